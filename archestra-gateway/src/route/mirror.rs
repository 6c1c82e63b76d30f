//! The catalog in memory, as the follower keeps it, and what of the snapshot each change makes anew.

use super::{ConsumerRoute, ToolList, ToolRoute, tool::judge_arguments};
use crate::{mcp::headers::HeaderParams, observe::Meters, upstream::Target};
use archestra_core::{
    catalog::{Entry, Record, RecordKey},
    consumer::{Assignment, Consumer},
    credential::Candidate,
    id::{AssignmentId, ConsumerId, EntryId, InstallationId, PolicyId, ToolId},
    installation::{Installation, InstallationState},
    policy::Policy,
    tool::Tool,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

/// What routes are built with, besides the catalog.
#[derive(Debug, Clone)]
pub(crate) struct RouteParts {
    /// Counts calls.
    pub(crate) meters: Meters,
    /// `serverInfo`, as JSON text.
    pub(crate) server_info: Arc<str>,
    /// How long a call may take if nobody says otherwise.
    pub(crate) call_timeout: Duration,
}

/// The records that routes are made of.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    entries: HashMap<EntryId, Arc<Entry>>,
    installations: HashMap<InstallationId, Arc<Installation>>,
    installations_of: HashMap<EntryId, BTreeSet<InstallationId>>,
    tools: HashMap<ToolId, Arc<Tool>>,
    consumers: HashMap<ConsumerId, Arc<Consumer>>,
    assignments: HashMap<AssignmentId, Arc<Assignment>>,
    assignments_of: HashMap<ConsumerId, BTreeSet<AssignmentId>>,
    consumers_of: HashMap<EntryId, HashMap<ConsumerId, usize>>,
    policies: BTreeMap<PolicyId, Arc<Policy>>,
    targets: HashMap<InstallationId, Arc<Target>>,
    changed: HashMap<ConsumerId, Arc<watch::Sender<u64>>>,
}

/// What must be built anew.
#[derive(Debug, Default)]
pub(super) struct Affected {
    /// Consumers that are built anew.
    pub(super) consumers: HashSet<ConsumerId>,
    /// Rules that came, changed or went, as they were and as they are: nothing but judging is different because of them.
    pub(super) rules: Vec<Arc<Policy>>,
    /// Installations that are gone: nothing of theirs may be reused.
    pub(super) gone: Vec<InstallationId>,
}

impl Mirror {
    /// Takes over who waits for changes of tool lists.
    pub(super) fn keep_subscribers(&mut self, before: &Self) {
        self.changed.clone_from(&before.changed);
    }

    /// Takes in the present state of one record; `None` when it is gone.
    pub(super) fn apply(&mut self, key: RecordKey, record: Option<Record>, affected: &mut Affected) {
        match key {
            RecordKey::Entry(id) => {
                match record {
                    Some(Record::Entry(entry)) => drop(self.entries.insert(id, Arc::new(entry))),
                    _ => drop(self.entries.remove(&id)),
                }
                self.retarget(id);
                self.affect_entry(id, affected);
            }
            RecordKey::Installation(id) => {
                let before = self.installations.remove(&id);
                if let Some(before) = &before {
                    self.affect_entry(before.entry, affected);
                }
                if let Some(Record::Installation(installation)) = record {
                    let entry = installation.entry;
                    self.installations_of.entry(entry).or_default().insert(id);
                    self.installations.insert(id, Arc::new(installation));
                    self.retarget(entry);
                    self.affect_entry(entry, affected);
                } else {
                    self.targets.remove(&id);
                    affected.gone.push(id);
                    if let Some(siblings) = before.and_then(|before| self.installations_of.get_mut(&before.entry)) {
                        siblings.remove(&id);
                    }
                }
            }
            RecordKey::Tool(id) => {
                let before = self.tools.remove(&id).map(|tool| tool.entry);
                if let Some(Record::Tool(tool)) = record {
                    self.affect_entry(tool.entry, affected);
                    self.tools.insert(id, Arc::new(tool));
                } else if let Some(entry) = before {
                    self.affect_entry(entry, affected);
                }
            }
            RecordKey::Consumer(id) => {
                match record {
                    Some(Record::Consumer(consumer)) => drop(self.consumers.insert(id, Arc::new(consumer))),
                    _ => drop(self.consumers.remove(&id)),
                }
                affected.consumers.insert(id);
            }
            RecordKey::Assignment(id) => {
                if let Some(before) = self.assignments.remove(&id) {
                    self.unlink(&before);
                    affected.consumers.insert(before.consumer);
                }
                if let Some(Record::Assignment(assignment)) = record {
                    affected.consumers.insert(assignment.consumer);
                    self.link(&assignment);
                    self.assignments.insert(id, Arc::new(assignment));
                }
            }
            RecordKey::Policy(id) => {
                let before = self.policies.remove(&id);
                match record {
                    // A feed may tell the same thing twice.
                    Some(Record::Policy(policy)) if before.as_deref() == Some(&policy) => {
                        self.policies.extend(before.map(|before| (id, before)));
                    }
                    Some(Record::Policy(policy)) => {
                        let policy = Arc::new(policy);
                        affected.rules.extend(before.into_iter().chain([Arc::clone(&policy)]));
                        self.policies.insert(id, policy);
                    }
                    _ => affected.rules.extend(before),
                }
            }
            RecordKey::Revision(_) | RecordKey::Limit(_) => {}
        }
    }

    /// Every consumer there is.
    pub(super) fn consumer_ids(&self) -> impl Iterator<Item = ConsumerId> + '_ {
        self.consumers.keys().copied()
    }

    /// Builds the route of one consumer; `None` when it is gone.
    pub(super) fn build(&mut self, id: ConsumerId, parts: &RouteParts) -> Option<Arc<ConsumerRoute>> {
        let Some(consumer) = self.consumers.get(&id) else {
            self.changed.remove(&id);
            return None;
        };
        let consumer = Arc::clone(consumer);
        let assignments = self.assignments_of.get(&id).into_iter().flatten();
        let mut listed: Vec<(&Assignment, Arc<Tool>)> = Vec::new();
        let mut tools = HashMap::new();
        for assignment in assignments.filter_map(|id| self.assignments.get(id)) {
            let (Some(tool), Some(entry)) = (self.tools.get(&assignment.tool), self.entries.get(&assignment.entry))
            else {
                continue;
            };
            let route = self.tool(&consumer, assignment, tool, entry, parts);
            if !route.candidates.is_empty() || !self.has_ready_installation(entry.id) {
                listed.push((assignment, Arc::clone(tool)));
            }
            tools.insert(assignment.exposed_name.as_str().into(), Arc::new(route));
        }
        listed.sort_by(|(a, _), (b, _)| a.exposed_name.cmp(&b.exposed_name));
        let names = listed.iter().map(|(assignment, tool)| (&assignment.exposed_name, &**tool));
        let list = ToolList::new(names, &parts.server_info);
        let changed = self.changed.entry(id).or_insert_with(|| Arc::new(watch::Sender::new(list.version())));
        changed.send_if_modified(|version| std::mem::replace(version, list.version()) != list.version());
        let changed = Arc::clone(changed);
        let unknown = parts.meters.unknown_tool(&consumer);
        Some(Arc::new(ConsumerRoute { consumer, tools, list, unknown, changed }))
    }

    /// The consumers with tools that one of these rules could be about.
    pub(super) fn concerned(&self, rules: &[Arc<Policy>]) -> HashSet<ConsumerId> {
        let mut concerned = HashSet::new();
        for rule in rules {
            match (rule.spec.consumer, rule.spec.entry) {
                (Some(consumer), _) => drop(concerned.insert(consumer)),
                (None, Some(entry)) => {
                    concerned.extend(self.consumers_of.get(&entry).into_iter().flat_map(HashMap::keys))
                }
                (None, None) => concerned.extend(self.consumer_ids()),
            }
        }
        concerned
    }

    /// The same route under the rules that there are now; `None` when none of its tools is among those that `changed` is about.
    pub(super) fn judged_anew(&self, route: &ConsumerRoute, changed: &[Arc<Policy>]) -> Option<Arc<ConsumerRoute>> {
        let id = route.consumer.id;
        let concerned = |tool: &ToolRoute| changed.iter().any(|rule| rule.concerns(id, tool.entry.id, &tool.tool.name));
        if !route.tools.values().any(|tool| concerned(tool)) {
            return None;
        }
        let tools = route.tools.iter().map(|(name, tool)| {
            let tool = if concerned(tool) {
                Arc::new(tool.under(self.rules(id, tool.entry.id, &tool.tool.name)))
            } else {
                Arc::clone(tool)
            };
            (name.clone(), tool)
        });
        Some(Arc::new(ConsumerRoute {
            consumer: Arc::clone(&route.consumer),
            tools: tools.collect(),
            list: route.list.clone(),
            unknown: Arc::clone(&route.unknown),
            changed: Arc::clone(&route.changed),
        }))
    }

    /// The rules that could be about a tool of a consumer.
    fn rules(&self, consumer: ConsumerId, entry: EntryId, tool: &str) -> Box<[Arc<Policy>]> {
        self.policies.values().filter(|policy| policy.concerns(consumer, entry, tool)).map(Arc::clone).collect()
    }

    fn tool(
        &self,
        consumer: &Consumer,
        assignment: &Assignment,
        tool: &Arc<Tool>,
        entry: &Arc<Entry>,
        parts: &RouteParts,
    ) -> ToolRoute {
        let ready = self.installations_of.get(&entry.id).into_iter().flatten().filter_map(|id| {
            let installation = self.installations.get(id)?;
            let serves = installation.state == InstallationState::Ready && installation.tools.contains_key(&tool.name);
            serves.then_some(installation)
        });
        let (candidates, targets): (Vec<_>, HashMap<_, _>) = ready
            .filter_map(|installation| {
                let target = self.targets.get(&installation.id)?;
                let candidate = Candidate {
                    installation: installation.id,
                    owner: installation.owner,
                    secrets: installation.secrets.clone(),
                };
                Some((candidate, (installation.id, Arc::clone(target))))
            })
            .unzip();
        let rules = self.rules(consumer.id, entry.id, &tool.name);
        ToolRoute {
            choice: assignment.credential,
            candidates: candidates.into(),
            targets,
            judges_arguments: judge_arguments(&rules),
            rules,
            header_params: header_params(&tool.definition),
            timeout: entry.spec.call_timeout().or_else(|| consumer.call_timeout()).unwrap_or(parts.call_timeout),
            meters: parts.meters.tool(consumer, entry, tool),
            tool: Arc::clone(tool),
            entry: Arc::clone(entry),
        }
    }

    fn has_ready_installation(&self, entry: EntryId) -> bool {
        let installations = self.installations_of.get(&entry).into_iter().flatten();
        installations.filter_map(|id| self.installations.get(id)).any(|found| found.state == InstallationState::Ready)
    }

    fn retarget(&mut self, entry: EntryId) {
        let ids: Vec<_> = self.installations_of.get(&entry).into_iter().flatten().copied().collect();
        for id in ids {
            let target = match (self.entries.get(&entry), self.installations.get(&id)) {
                (Some(entry), Some(installation)) => Target::new(Arc::clone(entry), Arc::clone(installation)),
                _ => {
                    self.targets.remove(&id);
                    continue;
                }
            };
            self.targets.insert(id, Arc::new(target));
        }
    }

    fn affect_entry(&self, entry: EntryId, affected: &mut Affected) {
        affected.consumers.extend(self.consumers_of.get(&entry).into_iter().flat_map(HashMap::keys));
    }

    fn link(&mut self, assignment: &Assignment) {
        self.assignments_of.entry(assignment.consumer).or_default().insert(assignment.id);
        *self.consumers_of.entry(assignment.entry).or_default().entry(assignment.consumer).or_default() += 1;
    }

    fn unlink(&mut self, assignment: &Assignment) {
        if let Some(ids) = self.assignments_of.get_mut(&assignment.consumer) {
            ids.remove(&assignment.id);
        }
        if let Some(counts) = self.consumers_of.get_mut(&assignment.entry)
            && let Some(count) = counts.get_mut(&assignment.consumer)
        {
            *count -= 1;
            if *count == 0 {
                counts.remove(&assignment.consumer);
            }
        }
    }
}

/// The annotations of a definition's input schema. Tools with invalid ones are dropped when they are discovered.
fn header_params(definition: &str) -> Option<HeaderParams> {
    #[derive(Deserialize)]
    struct Schema<'a> {
        #[serde(borrow, rename = "inputSchema")]
        input: Option<&'a RawValue>,
    }
    let schema: Schema<'_> = serde_json::from_str(definition).ok()?;
    HeaderParams::compile(schema.input?.get()).ok().flatten()
}
