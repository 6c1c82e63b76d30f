//! From what people and labels say to the assignments a consumer has, as one pure function.

use super::{Assignment, Consumer, CredentialChoice, ToolAssignment, ToolNames};
use crate::{
    catalog::{Entry, Scope},
    id::{AssignmentId, EntryId, ToolId},
    tool::{ExposedName, Tool, expose},
};
use std::collections::{BTreeMap, BTreeSet};

/// What decides the assignments of one consumer.
#[derive(Debug, Clone, Copy)]
pub struct ReconcileInput<'a> {
    /// The consumer, as it is to be.
    pub consumer: &'a Consumer,
    /// Every entry that could matter: those it names, and in automatic mode all.
    pub entries: &'a [Entry],
    /// Every tool of those entries.
    pub tools: &'a [Tool],
    /// The assignments it has.
    pub present: &'a [Assignment],
}

/// What has to change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// New assignments.
    pub create: Vec<Assignment>,
    /// Assignments whose credential changed; id and exposed name stay.
    pub update: Vec<Assignment>,
    /// Assignments to take away.
    pub remove: Vec<AssignmentId>,
}

impl Reconciled {
    /// Whether nothing has to change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.create.is_empty() && self.update.is_empty() && self.remove.is_empty()
    }
}

/// The changes that make a consumer's assignments what its selectors or labels say.
///
/// A selector that names a tool beats one for `*`; of several alike the first counts. Names that were given stay; newcomers
/// are named in the order of entry id and raw name, so that the outcome does not depend on the order of the input.
///
/// Labels select an entry only where everybody who may use the consumer sees the entry: one of the organization, one of
/// teams that include all teams of the consumer, or one of the same user. An entry of teams is not given to a consumer of
/// one user by labels, since memberships end without a word to the catalog; a selector can name it.
#[must_use]
pub fn reconcile(input: ReconcileInput<'_>) -> Reconciled {
    let entries: BTreeMap<EntryId, &Entry> = input.entries.iter().map(|entry| (entry.id, entry)).collect();
    let mut wanted: BTreeMap<ToolId, (&Tool, CredentialChoice)> = BTreeMap::new();
    for tool in input.tools {
        let Some(entry) = entries.get(&tool.entry) else { continue };
        if let Some(credential) = choice(input.consumer, entry, tool) {
            wanted.insert(tool.id, (tool, credential));
        }
    }

    let mut changes = Reconciled::default();
    let mut taken: BTreeSet<ExposedName> = BTreeSet::new();
    for assignment in input.present {
        match wanted.remove(&assignment.tool) {
            None => changes.remove.push(assignment.id),
            Some((_, credential)) => {
                taken.insert(assignment.exposed_name.clone());
                if credential != assignment.credential {
                    changes.update.push(Assignment { credential, ..assignment.clone() });
                }
            }
        }
    }

    let mut newcomers: Vec<_> = wanted.into_values().collect();
    newcomers.sort_by(|(a, _), (b, _)| (a.entry, &a.name).cmp(&(b.entry, &b.name)));
    for (tool, credential) in newcomers {
        let server = match input.consumer.spec.tool_names {
            ToolNames::Bare => None,
            ToolNames::Prefixed => entries.get(&tool.entry).map(|entry| entry.spec.name.as_str()),
        };
        let exposed_name = expose(server, &tool.name, &taken);
        taken.insert(exposed_name.clone());
        changes.create.push(Assignment {
            id: AssignmentId::new(),
            consumer: input.consumer.id,
            entry: tool.entry,
            tool: tool.id,
            exposed_name,
            credential,
        });
    }
    changes
}

fn choice(consumer: &Consumer, entry: &Entry, tool: &Tool) -> Option<CredentialChoice> {
    match consumer.spec.tool_assignment {
        ToolAssignment::Automatic => {
            let matches = consumer.spec.labels.intersects(&entry.spec.labels) && covers(&entry.scope, &consumer.scope);
            matches.then_some(CredentialChoice::ResolveAtCallTime)
        }
        ToolAssignment::Manual => {
            let of_entry = || consumer.tools.iter().filter(|selector| selector.entry == entry.id);
            let named = of_entry().find(|selector| selector.tool == tool.name);
            named
                .or_else(|| of_entry().find(|selector| selector.selects(&tool.name)))
                .map(|selector| selector.credential)
        }
    }
}

/// Whether everybody of the narrower scope is sure to be in the wider one.
fn covers(wider: &Scope, narrower: &Scope) -> bool {
    match (wider, narrower) {
        (Scope::Organization, _) => true,
        (Scope::Teams(wider), Scope::Teams(narrower)) => narrower.is_subset(wider),
        (Scope::User(one), Scope::User(other)) => one == other,
        (Scope::Teams(_), Scope::Organization | Scope::User(_))
        | (Scope::User(_), Scope::Organization | Scope::Teams(_)) => false,
    }
}

#[cfg(test)]
mod tests;
