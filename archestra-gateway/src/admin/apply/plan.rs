//! From a document to what has to be done, with everything checked that can be checked without doing it.

use super::{
    super::{AdminState, Problem, caller::Who, named::Afterwards},
    ApplyAction, ApplyChange, ApplyDocument, ConsumerItem, consumers, people, prune, registry,
    world::World,
};
use crate::lifecycle::EntryDraft;
use archestra_core::{
    Finding,
    catalog::Entry,
    consumer::{Consumer, ConsumerKind},
    feed::Versioned,
    id::{EntryId, UserId},
    identity::IdentityChanges,
    installation::{Installation, Owner},
    policy::Policy,
    secret::SecretValue,
};
use std::collections::{BTreeMap, BTreeSet};

/// What has to be done, in order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Users and teams that are written first.
    pub(super) people: People,
    /// What follows, one after the other.
    pub(super) steps: Vec<Planned>,
    /// Users and teams that pruning deletes, last of all.
    pub(super) leavers: People,
    /// The set that new things belong to.
    pub(super) set: Option<String>,
}

/// A commit of users and teams, and the one that takes it back.
#[derive(Debug, Default)]
pub(super) struct People {
    pub(super) lines: Vec<ApplyChange>,
    pub(super) changes: IdentityChanges,
    pub(super) undo: IdentityChanges,
}

/// A line of the report with what there is to do for it.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) line: ApplyChange,
    pub(super) step: Option<Step>,
}

/// One thing to do.
#[derive(Debug)]
pub(super) enum Step {
    SaveEntry { before: Option<Box<Versioned<Entry>>>, draft: Box<EntryDraft> },
    Install { entry: String, owner: Owner, values: BTreeMap<String, SecretValue>, author: Option<UserId> },
    Reinstall { before: Box<Installation>, values: BTreeMap<String, SecretValue> },
    SaveConsumer { kind: ConsumerKind, before: Option<Box<Versioned<Consumer>>>, item: Box<ConsumerItem> },
    SavePolicy { before: Option<Box<Versioned<Policy>>>, item: Box<super::PolicyItem> },
    DeleteConsumer(Box<Versioned<Consumer>>),
    DeletePolicy(Box<Versioned<Policy>>),
    DeleteInstallation(Box<Versioned<Installation>>),
    DeleteEntry(Box<Versioned<Entry>>),
}

impl Plan {
    /// Everything, in the order it is done.
    pub(super) fn changes(&self) -> Vec<ApplyChange> {
        self.people
            .lines
            .iter()
            .chain(self.steps.iter().map(|planned| &planned.line))
            .chain(&self.leavers.lines)
            .cloned()
            .collect()
    }

    /// Whether there is anything to do.
    pub(super) fn writes(&self) -> bool {
        !self.people.changes.is_empty()
            || !self.leavers.changes.is_empty()
            || self.steps.iter().any(|planned| planned.step.is_some())
    }
}

/// What is being planned, and what was found wrong so far.
#[derive(Debug)]
pub(super) struct Planner<'a> {
    pub(super) state: &'a AdminState,
    pub(super) who: &'a Who,
    pub(super) world: World,
    pub(super) plan: Plan,
    pub(super) findings: Vec<Finding>,
    /// What the document makes of entries, by name.
    pub(super) specs: BTreeMap<String, archestra_core::catalog::EntrySpec>,
    /// Entries and owners of the installations in the document, so that none is there twice and pruning knows them.
    pub(super) installed: BTreeSet<(String, Owner)>,
    /// The stored entries that the document names.
    pub(super) kept_entries: BTreeSet<EntryId>,
    /// Which teams and users are named once the plan is carried out.
    pub(super) afterwards: Afterwards,
}

impl Planner<'_> {
    /// Keeps what is wrong with one item for the one answer that names everything; other trouble ends the planning.
    pub(super) fn note(&mut self, at: &str, outcome: Result<(), Problem>) -> Result<(), Problem> {
        match outcome {
            Ok(()) => Ok(()),
            Err(problem) if !problem.findings().is_empty() => {
                self.findings.extend(problem.findings().iter().cloned().map(|finding| finding.under(at)));
                Ok(())
            }
            Err(problem) => Err(problem.after(at)),
        }
    }

    pub(super) fn line(&mut self, kind: &str, name: &str, action: ApplyAction, step: Option<Step>) {
        self.plan.steps.push(Planned { line: line(kind, name, action), step });
    }
}

pub(super) fn line(kind: &str, name: &str, action: ApplyAction) -> ApplyChange {
    ApplyChange { kind: kind.to_owned(), name: name.to_owned(), action }
}

/// Plans a document; `pruned` names the set whose leftovers are deleted.
///
/// # Errors
/// Everything that is wrong, by its place in the document; a missing permission; a backend that does not answer.
pub(super) async fn plan(
    state: &AdminState,
    who: &Who,
    document: ApplyDocument,
    set: Option<String>,
    pruned: Option<String>,
) -> Result<Plan, Problem> {
    let mut planner = Planner {
        state,
        who,
        world: World::new(state),
        plan: Plan { set, ..Plan::default() },
        findings: Vec::new(),
        specs: BTreeMap::new(),
        installed: BTreeSet::new(),
        kept_entries: BTreeSet::new(),
        afterwards: Afterwards::default(),
    };
    let names = prune::Names::of(&document);
    people::users(&mut planner, document.users).await?;
    people::teams(&mut planner, document.teams).await?;
    registry::entries(&mut planner, document.entries).await?;
    registry::installations(&mut planner, document.installations).await?;
    consumers::consumers(&mut planner, ConsumerKind::Gateway, document.gateways).await?;
    consumers::consumers(&mut planner, ConsumerKind::Agent, document.agents).await?;
    consumers::policies(&mut planner, document.policies).await?;
    if let Some(pruned) = pruned {
        prune::prune(&mut planner, &pruned, &names).await?;
    }
    if planner.findings.is_empty() { Ok(planner.plan) } else { Err(Problem::invalid(planner.findings)) }
}
