//! The objects of the cluster, their versions, and the changes that watches replay.

use super::{
    image::FakeImage,
    kinds::{Kind, named},
    managed::Managers,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// Changes that are kept for watches to replay.
const CHANGES: usize = 10_000;

/// Names an object. In the order of a list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) kind: &'static str,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Key {
    pub(super) fn new(kind: &'static str, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// One object as it is sent, and who owns its fields.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) object: Arc<Value>,
    pub(super) managers: Arc<Managers>,
}

/// One change: what was before, and what is after it.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) key: Key,
    pub(super) before: Option<Arc<Value>>,
    /// What is after it; of what was removed, its last state.
    pub(super) after: Arc<Value>,
    pub(super) removed: bool,
}

/// What the cluster does with what it is given.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub(super) images: BTreeMap<String, FakeImage>,
    pub(super) unschedulable: Option<String>,
    pub(super) pod_quotas: BTreeMap<String, usize>,
    pub(super) node_labels: BTreeMap<String, String>,
    pub(super) denials: BTreeMap<String, String>,
    /// Kinds whose webhook cannot be called, and why.
    pub(super) unjudged: BTreeMap<String, String>,
    /// Kinds whose webhook takes no dry runs.
    pub(super) no_dry_runs: BTreeSet<String>,
    /// How many objects of a kind, by namespace and kind.
    pub(super) object_quotas: BTreeMap<(String, String), usize>,
}

#[derive(Debug, Default)]
pub(super) struct Store {
    objects: BTreeMap<Key, Record>,
    version: u64,
    /// Changes up to this version are forgotten.
    compacted: u64,
    changes: VecDeque<Change>,
    named: u64,
    pub(super) rules: Rules,
    /// Whether the rules have changed since the controllers looked at everything.
    pub(super) rules_changed: bool,
}

impl Store {
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn record(&self, key: &Key) -> Option<&Record> {
        self.objects.get(key)
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key).map(|record| &record.object)
    }

    /// The objects of a kind, in a namespace or in all.
    pub(super) fn all<'a>(
        &'a self,
        kind: &'static str,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> + 'a {
        let start = Key::new(kind, namespace.unwrap_or_default(), "");
        self.objects
            .range(start..)
            .take_while(move |(key, _)| {
                key.kind == kind && namespace.is_none_or(|namespace| key.namespace == namespace)
            })
            .map(|(key, record)| (key, &record.object))
    }

    /// Every object.
    pub(super) fn everything(&self) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        self.objects.iter().map(|(key, record)| (key, &record.object))
    }

    /// Stores an object under a new version.
    pub(super) fn put(&mut self, kind: &Kind, key: Key, mut object: Value, managers: Managers) -> Arc<Value> {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        object["metadata"]["managedFields"] = managers.render(kind);
        self.keep(key, object, Arc::new(managers))
    }

    fn keep(&mut self, key: Key, object: Value, managers: Arc<Managers>) -> Arc<Value> {
        let object = Arc::new(object);
        let record = Record { object: Arc::clone(&object), managers };
        let before = self.objects.insert(key.clone(), record).map(|record| record.object);
        self.note(Change { version: self.version, key, before, after: Arc::clone(&object), removed: false });
        object
    }

    /// Removes an object. Its last state has the version of its removal.
    pub(super) fn remove(&mut self, key: &Key) -> Option<Arc<Value>> {
        let before = self.objects.remove(key)?.object;
        self.version += 1;
        let mut last = (*before).clone();
        last["metadata"]["resourceVersion"] = self.version.to_string().into();
        let after = Arc::new(last);
        let change = Change {
            version: self.version,
            key: key.clone(),
            before: Some(before),
            after: Arc::clone(&after),
            removed: true,
        };
        self.note(change);
        Some(after)
    }

    fn note(&mut self, change: Change) {
        self.changes.push_back(change);
        if self.changes.len() > CHANGES
            && let Some(oldest) = self.changes.pop_front()
        {
            self.compacted = oldest.version;
        }
    }

    /// Forgets all changes, so that nobody can go on from an earlier version.
    pub(super) fn compact(&mut self) {
        self.changes.clear();
        self.compacted = self.version;
    }

    /// The changes after a version; `Err` is the oldest version that one can go on from.
    pub(super) fn since(&self, version: u64) -> Result<impl Iterator<Item = &Change>, u64> {
        if version < self.compacted {
            return Err(self.compacted);
        }
        let start = self.changes.partition_point(|change| change.version <= version);
        Ok(self.changes.range(start..))
    }

    /// Changes an object as a controller does. Nothing is written if nothing changes. An object that only waited for its
    /// last finalizer is removed.
    pub(super) fn edit(&mut self, key: &Key, change: impl FnOnce(&mut Value)) -> bool {
        let (Some(record), Some(kind)) = (self.objects.get(key), named(key.kind)) else { return false };
        let (before, managers) = (Arc::clone(&record.object), Arc::clone(&record.managers));
        let mut object = (*before).clone();
        change(&mut object);
        if object == *before {
            return false;
        }
        if kind.has_generation && object["spec"] != before["spec"] {
            object["metadata"]["generation"] = (before["metadata"]["generation"].as_i64().unwrap_or(0) + 1).into();
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.keep(key.clone(), object, managers);
        true
    }

    /// A number that no other object's name was made with.
    pub(super) fn next_name(&mut self) -> u64 {
        self.named += 1;
        self.named
    }
}

/// The string at a path, or nothing.
pub(super) fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// The items of the list at a path.
pub(super) fn items<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    value.pointer(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
