//! What is known of a namespace: its Deployments, pods, ReplicaSets and warnings, and what was told of them last.

use super::{
    derive::{self, Derived, Ended, Evidence, PodEvidence, REMEMBERED, Trouble},
    parts::{Part, Parts},
    view,
};
use crate::{manifest::intact, names};
use archestra_core::runtime::{RevisionNumber, WorkloadEvent, WorkloadId, WorkloadStatus, WorkloadSummary};
use chrono::{DateTime, Utc};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::{Event, Pod},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::core::PartialObjectMeta;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

/// Which rollout a ReplicaSet is, on a Deployment and on its ReplicaSets.
const ROLLOUT: &str = "deployment.kubernetes.io/revision";
/// How many kinds of warnings are kept of one pod.
const MAX_TROUBLES: usize = 8;
/// How many pods warnings are kept of that are not known (yet).
const MAX_STRANGERS: usize = 256;

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Touched {
    /// Nothing of ours.
    Nothing,
    /// This workload.
    One(WorkloadId),
    /// Maybe all of them.
    All,
}

/// Everything that is known of one namespace.
#[derive(Debug, Default)]
pub(super) struct Store {
    namespace: String,
    deployments: BTreeMap<WorkloadId, Arc<Deployment>>,
    pods: BTreeMap<WorkloadId, BTreeMap<String, Arc<Pod>>>,
    sets: HashMap<String, ReplicaSetFacts>,
    pub(super) parts: Parts,
    troubles: HashMap<String, Vec<Trouble>>,
    words: HashMap<String, Words>,
    told: BTreeMap<WorkloadId, WorkloadSummary>,
    /// Deployments, by uid, that were deleted before their watch has said so.
    deleted: HashMap<WorkloadId, String>,
    /// What was applied while a list was under way that may not hold it.
    noted: HashSet<WorkloadId>,
}

#[derive(Debug)]
struct ReplicaSetFacts {
    workload: WorkloadId,
    rollout: Option<String>,
    revision: Option<RevisionNumber>,
}

#[derive(Debug)]
struct Words {
    run: String,
    text: Option<String>,
}

/// An object that is watched, and what becomes of it here.
pub(super) trait Tracked: Sized {
    /// What it is called in texts, in the plural.
    const KIND: &'static str;
    /// Whether it is asked who owns which of its fields, which is the larger half of many objects.
    const OWNERS: bool = false;

    /// A list begins.
    fn begin(store: &mut Store) {
        _ = store;
    }

    /// The list is complete, and holds all there are.
    fn replace(store: &mut Store, all: Vec<Self>) -> Touched;

    /// It is new or changed.
    fn put(store: &mut Store, object: Self) -> Touched;

    /// It is gone.
    fn delete(store: &mut Store, object: &Self) -> Touched;
}

impl Store {
    pub(super) fn new(namespace: String) -> Self {
        Self { namespace, ..Self::default() }
    }

    /// How a workload was told last.
    pub(super) fn summary(&self, id: &WorkloadId) -> Option<&WorkloadSummary> {
        self.told.get(id)
    }

    /// How all were told last.
    pub(super) fn summaries(&self) -> Vec<WorkloadSummary> {
        self.told.values().cloned().collect()
    }

    /// The Deployment of a workload that is there to stay.
    pub(super) fn deployment(&self, id: &WorkloadId) -> Option<&Arc<Deployment>> {
        self.deployments.get(id).filter(|found| !view::is_terminating(&found.metadata))
    }

    /// The Deployments whose NetworkPolicy bears another mark than the one that it would get.
    pub(super) fn with_other_policy(&self, wanted: impl Fn(&Deployment) -> Option<String>) -> Vec<Arc<Deployment>> {
        let is_other = |id: &WorkloadId, deployment: &Deployment| {
            // One that is missing is put back by whoever owns the desired state.
            self.parts
                .policy_mark(id)
                .is_some_and(|mark| wanted(deployment).is_some_and(|wanted| mark != Some(&wanted)))
        };
        let there = self.deployments.iter().filter(|(id, _)| self.deployment(id).is_some());
        there.filter(|(id, found)| is_other(id, found)).map(|(_, found)| Arc::clone(found)).collect()
    }

    /// All its pods, those that end or have ended included.
    pub(super) fn pods(&self, id: &WorkloadId) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.get(id).into_iter().flat_map(BTreeMap::values)
    }

    /// Its pods that are there to serve: the ready ones first, among them those of what is desired now, then the newest.
    pub(super) fn serving(&self, id: &WorkloadId) -> Vec<Arc<Pod>> {
        let deployment = self.deployments.get(id);
        let mut pods: Vec<_> = self.pods(id).filter(|pod| view::is_live(pod)).map(Arc::clone).collect();
        // Times of creation are whole seconds, too coarse to tell two rollouts apart.
        pods.sort_by_cached_key(|pod| {
            let current = deployment.is_some_and(|deployment| self.is_current(deployment, pod));
            (!view::is_ready(pod), !current, Reverse(view::created(&pod.metadata)))
        });
        pods
    }

    /// Whether a pod was made from the template that is desired now.
    fn is_current(&self, deployment: &Deployment, pod: &Pod) -> bool {
        let rollout = self.set_of(pod).and_then(|set| set.rollout.as_deref());
        derive::is_observed(deployment)
            && rollout.is_none_or(|rollout| annotation(&deployment.metadata, ROLLOUT) == Some(rollout))
    }

    /// What was applied a moment ago, unless something newer is known.
    pub(super) fn note_applied(&mut self, deployment: Deployment, parts: Vec<Part>) -> Touched {
        for part in parts {
            self.parts.note(part);
        }
        let Some(id) = names::workload_of(&deployment.metadata) else { return Touched::Nothing };
        self.deleted.remove(&id);
        self.noted.insert(id.clone());
        match self.accept(id.clone(), deployment) {
            // The rest of it may be news.
            Touched::Nothing => Touched::One(id),
            touched => touched,
        }
    }

    /// What was deleted a moment ago.
    pub(super) fn note_removed(&mut self, id: &WorkloadId) -> Touched {
        let Some(deployment) = self.deployments.remove(id) else { return Touched::Nothing };
        self.deleted.insert(id.clone(), view::uid(&deployment.metadata).to_owned());
        self.noted.remove(id);
        self.parts.forget(id);
        Touched::One(id.clone())
    }

    /// The last words of a container, or that there are none to be had.
    pub(super) fn note_words(&mut self, ended: &Ended, text: Option<String>) -> Touched {
        match self.words.get_mut(&ended.uid) {
            Some(words) if words.run == ended.run => words.text = text,
            Some(_) | None => return Touched::Nothing,
        }
        let holds = |pods: &BTreeMap<String, Arc<Pod>>| {
            pods.get(&ended.pod).is_some_and(|pod| view::uid(&pod.metadata) == ended.uid)
        };
        let found = self.pods.iter().find(|(_, pods)| holds(pods));
        found.map_or(Touched::Nothing, |(id, _)| Touched::One(id.clone()))
    }

    /// The workloads that may be told differently now.
    pub(super) fn named(&self, touched: Touched) -> Vec<WorkloadId> {
        match touched {
            Touched::Nothing => Vec::new(),
            Touched::One(id) => vec![id],
            Touched::All => {
                let mut all: Vec<_> = self.told.keys().chain(self.deployments.keys()).cloned().collect();
                all.sort_unstable();
                all.dedup();
                all
            }
        }
    }

    /// Tells a workload anew: what changed for those who watch, and whose last words would say more.
    pub(super) fn tell(&mut self, id: &WorkloadId, now: DateTime<Utc>) -> (Option<WorkloadEvent>, Option<Ended>) {
        let before = self.told.get(id);
        let Some(Derived { status, asks }) = self.derive(id, before.map(|told| &told.status), now) else {
            return (self.told.remove(id).map(|told| WorkloadEvent::Removed(told.id)), None);
        };
        let asks = asks.filter(|ended| self.words.get(&ended.uid).is_none_or(|words| words.run != ended.run));
        if let Some(ended) = &asks {
            self.words.insert(ended.uid.clone(), Words { run: ended.run.clone(), text: None });
        }
        let drift = self.deployment(id).and_then(|deployment| self.parts.drift(id, deployment));
        let summary = WorkloadSummary { id: id.clone(), namespace: Some(self.namespace.clone()), status, drift };
        if self.told.get(id) == Some(&summary) {
            return (None, asks);
        }
        self.told.insert(id.clone(), summary.clone());
        (Some(WorkloadEvent::Changed(summary)), asks)
    }

    /// Words that were asked for will not come.
    pub(super) fn forget_words(&mut self, ended: &Ended) {
        if self.words.get(&ended.uid).is_some_and(|words| words.run == ended.run && words.text.is_none()) {
            self.words.remove(&ended.uid);
        }
    }

    fn derive(&self, id: &WorkloadId, before: Option<&WorkloadStatus>, now: DateTime<Utc>) -> Option<Derived> {
        let deployment = self.deployment(id)?;
        let pods = self.pods(id).map(|pod| self.evidence(deployment, pod)).collect();
        Some(derive::derive(&Evidence { deployment, pods, before, now }))
    }

    fn evidence<'a>(&'a self, deployment: &Deployment, pod: &'a Pod) -> PodEvidence<'a> {
        let current = self.is_current(deployment, pod);
        let uid = view::uid(&pod.metadata);
        let revision = if current {
            derive::revision_of(&deployment.metadata)
        } else {
            self.set_of(pod).and_then(|set| set.revision)
        };
        PodEvidence {
            pod,
            current,
            revision,
            troubles: self.troubles.get(uid).map(Vec::as_slice).unwrap_or_default(),
            words: self.words.get(uid).and_then(|words| words.text.as_deref()),
        }
    }

    fn set_of(&self, pod: &Pod) -> Option<&ReplicaSetFacts> {
        self.sets.get(set_name(&pod.metadata)?)
    }

    /// Keeps the newer of what is known and what comes.
    fn accept(&mut self, id: WorkloadId, mut deployment: Deployment) -> Touched {
        if self.deployments.get(&id).is_some_and(|known| is_older(&deployment.metadata, &known.metadata)) {
            return Touched::Nothing;
        }
        intact::without_others(&mut deployment);
        self.deployments.insert(id.clone(), Arc::new(deployment));
        Touched::One(id)
    }

    fn remember(&mut self, uid: &str, trouble: Trouble) {
        let known = self.troubles.entry(uid.to_owned()).or_default();
        if let Some(at) = known.iter().position(|one| one.reason == trouble.reason) {
            if known[at].at > trouble.at {
                return;
            }
            known.remove(at);
        } else if known.len() >= MAX_TROUBLES {
            known.remove(0);
        }
        let place = known.iter().position(|one| one.at > trouble.at).unwrap_or(known.len());
        known.insert(place, trouble);
    }

    fn pod_by_uid(&self, uid: &str) -> Option<&WorkloadId> {
        self.pods.iter().find(|(_, pods)| pods.values().any(|pod| view::uid(&pod.metadata) == uid)).map(|(id, _)| id)
    }

    /// Drops what belongs to no pod that is known.
    fn prune(&mut self) {
        let known: HashSet<&str> =
            self.pods.values().flat_map(BTreeMap::values).map(|pod| view::uid(&pod.metadata)).collect();
        self.words.retain(|uid, _| known.contains(uid.as_str()));
        let strangers = self.troubles.keys().filter(|uid| !known.contains(uid.as_str())).count();
        if strangers > MAX_STRANGERS {
            self.troubles.retain(|uid, _| known.contains(uid.as_str()));
        }
    }
}

impl Tracked for Deployment {
    const KIND: &'static str = "Deployments";
    const OWNERS: bool = true;

    fn begin(store: &mut Store) {
        store.noted.clear();
    }

    fn replace(store: &mut Store, all: Vec<Self>) -> Touched {
        let mut listed = HashMap::new();
        for deployment in all {
            if let Some(id) = names::workload_of(&deployment.metadata) {
                listed.insert(id, deployment);
            }
        }
        let noted = &store.noted;
        store.deployments.retain(|id, _| listed.contains_key(id) || noted.contains(id));
        store.deleted.retain(|id, uid| listed.get(id).is_some_and(|found| view::uid(&found.metadata) == uid));
        for deployment in listed.into_values() {
            Self::put(store, deployment);
        }
        Touched::All
    }

    fn put(store: &mut Store, object: Self) -> Touched {
        let Some(id) = names::workload_of(&object.metadata) else { return Touched::Nothing };
        match store.deleted.get(&id) {
            Some(uid) if uid == view::uid(&object.metadata) => return Touched::Nothing,
            Some(_) => drop(store.deleted.remove(&id)),
            None => {}
        }
        store.accept(id, object)
    }

    fn delete(store: &mut Store, object: &Self) -> Touched {
        let Some(id) = names::workload_of(&object.metadata) else { return Touched::Nothing };
        let uid = view::uid(&object.metadata);
        if store.deleted.get(&id).is_some_and(|deleted| deleted == uid) {
            store.deleted.remove(&id);
        }
        // Another one of the same name may have been applied meanwhile.
        if store.deployments.get(&id).is_none_or(|known| view::uid(&known.metadata) != uid) {
            return Touched::Nothing;
        }
        store.deployments.remove(&id);
        Touched::One(id)
    }
}

impl Tracked for Pod {
    const KIND: &'static str = "Pods";

    fn replace(store: &mut Store, all: Vec<Self>) -> Touched {
        store.pods.clear();
        for pod in all {
            Self::put(store, pod);
        }
        store.prune();
        Touched::All
    }

    fn put(store: &mut Store, object: Self) -> Touched {
        let Some(id) = names::workload_of(&object.metadata) else { return Touched::Nothing };
        let waiting = view::containers(&object).iter().chain(view::init_containers(&object));
        let waiting = waiting.filter_map(|container| container.state.as_ref()?.waiting.as_ref());
        let pull = waiting.filter(|waiting| waiting.reason.as_deref() == Some(REMEMBERED));
        if let Some(message) = pull.filter_map(|waiting| waiting.message.clone()).next() {
            let trouble = Trouble { reason: REMEMBERED.to_owned(), message, at: Utc::now() };
            store.remember(view::uid(&object.metadata), trouble);
        }
        let name = view::name(&object.metadata).to_owned();
        store.pods.entry(id.clone()).or_default().insert(name, Arc::new(object));
        Touched::One(id)
    }

    fn delete(store: &mut Store, object: &Self) -> Touched {
        let Some(id) = names::workload_of(&object.metadata) else { return Touched::Nothing };
        if let Some(pods) = store.pods.get_mut(&id) {
            pods.remove(view::name(&object.metadata));
            if pods.is_empty() {
                store.pods.remove(&id);
            }
        }
        store.troubles.remove(view::uid(&object.metadata));
        store.words.remove(view::uid(&object.metadata));
        Touched::One(id)
    }
}

impl Tracked for PartialObjectMeta<ReplicaSet> {
    const KIND: &'static str = "ReplicaSets";

    fn replace(store: &mut Store, all: Vec<Self>) -> Touched {
        store.sets.clear();
        for set in all {
            Self::put(store, set);
        }
        Touched::All
    }

    fn put(store: &mut Store, object: Self) -> Touched {
        let Some(workload) = names::workload_of(&object.metadata) else { return Touched::Nothing };
        let facts = ReplicaSetFacts {
            workload: workload.clone(),
            rollout: annotation(&object.metadata, ROLLOUT).map(str::to_owned),
            revision: derive::revision_of(&object.metadata),
        };
        store.sets.insert(view::name(&object.metadata).to_owned(), facts);
        Touched::One(workload)
    }

    fn delete(store: &mut Store, object: &Self) -> Touched {
        let facts = store.sets.remove(view::name(&object.metadata));
        facts.map_or(Touched::Nothing, |facts| Touched::One(facts.workload))
    }
}

impl Tracked for Event {
    const KIND: &'static str = "Events";

    fn replace(store: &mut Store, all: Vec<Self>) -> Touched {
        for event in all {
            Self::put(store, event);
        }
        Touched::All
    }

    fn put(store: &mut Store, object: Self) -> Touched {
        let at = object.last_timestamp.as_ref().or(object.first_timestamp.as_ref()).and_then(view::time);
        let at = at.or_else(|| view::created(&object.metadata)).unwrap_or_else(Utc::now);
        let (Some(uid), Some(reason)) = (object.involved_object.uid, object.reason) else { return Touched::Nothing };
        store.remember(&uid, Trouble { reason, message: object.message.unwrap_or_default(), at });
        match store.pod_by_uid(&uid) {
            Some(id) => Touched::One(id.clone()),
            None => {
                if store.troubles.len() > MAX_STRANGERS {
                    store.prune();
                }
                Touched::Nothing
            }
        }
    }

    fn delete(store: &mut Store, object: &Self) -> Touched {
        // That an event expired does not undo what it told of.
        _ = (store, object);
        Touched::Nothing
    }
}

fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The name of the ReplicaSet that made a pod.
fn set_name(meta: &ObjectMeta) -> Option<&str> {
    let owners = meta.owner_references.as_deref()?;
    owners.iter().find(|owner| owner.kind == "ReplicaSet").map(|owner| owner.name.as_str())
}

/// Whether `this` is an older state of the same object than `that`.
fn is_older(this: &ObjectMeta, that: &ObjectMeta) -> bool {
    let version = |meta: &ObjectMeta| meta.resource_version.as_ref().and_then(|version| version.parse::<u64>().ok());
    this.uid == that.uid
        && match (version(this), version(that)) {
            (Some(this), Some(that)) => this < that,
            _ => false,
        }
}

#[cfg(test)]
mod tests;
