//! The controllers: Deployments make ReplicaSets, ReplicaSets make Pods, and what has lost its owner goes.

mod deployment;
mod replica_set;

pub(super) use replica_set::is_ready;

use super::{
    kinds::named,
    managed::Managers,
    store::{Key, Store, items, text},
    time,
    write::{Deletion, suffix, uid},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

/// Does what there is to do after the changes since a version, or with everything, until nothing changes any more; up to
/// which version that is.
pub(super) fn settle(store: &mut Store, mut since: Option<u64>) -> u64 {
    if std::mem::take(&mut store.rules_changed) {
        since = None;
    }
    // Each round brings every object one step further; a chain is shorter than this.
    for _ in 0..64 {
        let before = store.version();
        let work = Work::since(store, since);
        since = Some(before);
        if work.sweep {
            namespaces(store);
            collect_garbage(store);
        }
        for key in work.objects {
            let Some(object) = store.get(&key).map(Arc::clone) else { continue };
            if !object["metadata"]["deletionTimestamp"].is_null() {
                continue;
            }
            match key.kind {
                "Deployment" => deployment::reconcile(store, &key, &object),
                _ => replica_set::reconcile(store, &key, &object),
            }
        }
        if store.version() == before {
            break;
        }
    }
    since.unwrap_or_default()
}

/// What is to be looked at.
#[derive(Debug, Default)]
struct Work {
    /// Deployments and ReplicaSets.
    objects: BTreeSet<Key>,
    /// Whether something was or is being deleted.
    sweep: bool,
}

impl Work {
    fn since(store: &Store, version: Option<u64>) -> Self {
        let mut work = Self::default();
        if let Some(Ok(changes)) = version.map(|version| store.since(version)) {
            for change in changes {
                work.sweep |= change.removed || !change.after["metadata"]["deletionTimestamp"].is_null();
                work.add(&change.key, &change.after);
            }
            // A Deployment that recreates waits for pods that its ReplicaSet counts no more.
            let sets: Vec<_> = work.objects.iter().filter(|key| key.kind == "ReplicaSet").cloned().collect();
            for key in sets {
                if let Some(set) = store.get(&key) {
                    work.add(&key, set);
                }
            }
            return work;
        }
        work.sweep = true;
        for kind in ["Deployment", "ReplicaSet"] {
            work.objects.extend(store.all(kind, None).map(|(key, _)| key.clone()));
        }
        work
    }

    /// An object that changed, and its owners.
    fn add(&mut self, key: &Key, object: &Value) {
        if matches!(key.kind, "Deployment" | "ReplicaSet") {
            self.objects.insert(key.clone());
        }
        for owner in items(object, "/metadata/ownerReferences") {
            if let Some(kind) =
                named(text(owner, "/kind")).filter(|kind| matches!(kind.name, "Deployment" | "ReplicaSet"))
            {
                self.objects.insert(Key::new(kind.name, &key.namespace, text(owner, "/name")));
            }
        }
    }
}

/// Empties namespaces that are being deleted, and then removes them.
fn namespaces(store: &mut Store) {
    let ending: Vec<Key> = store
        .all("Namespace", None)
        .filter(|(_, object)| !object["metadata"]["deletionTimestamp"].is_null())
        .map(|(key, _)| key.clone())
        .collect();
    for namespace in ending {
        let inside: Vec<Key> =
            store.everything().map(|(key, _)| key).filter(|key| key.namespace == namespace.name).cloned().collect();
        if inside.is_empty() {
            store.remove(&namespace);
        }
        for key in inside {
            discard(store, &key);
        }
    }
}

/// Deletes what is owned, and whose owners are all gone or wait for it to go.
fn collect_garbage(store: &mut Store) {
    let uids: HashSet<&str> = store.everything().map(|(_, object)| text(object, "/metadata/uid")).collect();
    let waiting: Vec<(Key, String)> = store
        .everything()
        .filter(|(_, object)| items(object, "/metadata/finalizers").iter().any(|name| name == "foregroundDeletion"))
        .map(|(key, object)| (key.clone(), text(object, "/metadata/uid").to_owned()))
        .collect();
    let owned_by = |object: &Value, owner: &dyn Fn(&str) -> bool| {
        items(object, "/metadata/ownerReferences").iter().all(|reference| owner(text(reference, "/uid")))
    };
    let orphans: Vec<Key> = store
        .everything()
        .filter(|(_, object)| !items(object, "/metadata/ownerReferences").is_empty())
        .filter(|(_, object)| {
            owned_by(object, &|uid| !uids.contains(uid) || waiting.iter().any(|(_, waits)| waits == uid))
        })
        .map(|(key, _)| key.clone())
        .collect();
    for key in orphans {
        discard(store, &key);
    }
    for (key, uid) in waiting {
        let held = store
            .everything()
            .any(|(_, object)| items(object, "/metadata/ownerReferences").iter().any(|owner| owner["uid"] == uid));
        if !held {
            store.edit(&key, |object| {
                if let Some(Value::Array(finalizers)) = object.pointer_mut("/metadata/finalizers") {
                    finalizers.retain(|name| name != "foregroundDeletion");
                }
            });
            store.drop_if_done(&key);
        }
    }
}

/// Deletes an object as a controller does, once.
fn discard(store: &mut Store, key: &Key) {
    let going = store.get(key).is_none_or(|object| !object["metadata"]["deletionTimestamp"].is_null());
    if let Some(kind) = named(key.kind).filter(|_| !going) {
        // It is there, and nothing is asked of it that it could refuse.
        drop(store.delete(kind, key, &Deletion::default()));
    }
}

/// The objects of a kind that this one owns.
fn owned(store: &Store, kind: &'static str, owner: &Value) -> Vec<(Key, Arc<Value>)> {
    let (namespace, uid) = (text(owner, "/metadata/namespace"), &owner["metadata"]["uid"]);
    store
        .all(kind, Some(namespace))
        .filter(|(_, object)| items(object, "/metadata/ownerReferences").iter().any(|owner| owner["uid"] == *uid))
        .map(|(key, object)| (key.clone(), Arc::clone(object)))
        .collect()
}

/// A reference to its controller.
fn reference(owner: &Value) -> Value {
    json!([{
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
    }])
}

/// Stores an object that a controller makes.
fn make(store: &mut Store, kind: &'static str, mut object: Value) {
    let Some(kind) = named(kind) else { return };
    let key = Key::new(kind.name, text(&object, "/metadata/namespace"), text(&object, "/metadata/name"));
    if store.get(&key).is_some() {
        return;
    }
    object["apiVersion"] = kind.api_version().into();
    object["kind"] = kind.name.into();
    object["metadata"]["uid"] = uid().into();
    object["metadata"]["creationTimestamp"] = time::now().into();
    if kind.has_generation {
        object["metadata"]["generation"] = 1.into();
    }
    store.put(kind, key, object, Managers::default());
}

/// Sets a condition; its times change only with what it says.
fn set_condition(object: &mut Value, condition: &str, status: bool, reason: &str, message: &str) {
    let now = time::now();
    let value = if status { "True" } else { "False" };
    let conditions = &mut object["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Value::Array(conditions) = conditions else { return };
    let mut next = json!({
        "type": condition, "status": value, "reason": reason, "message": message,
        "lastUpdateTime": now, "lastTransitionTime": now,
    });
    match conditions.iter_mut().find(|present| present["type"] == condition) {
        None => conditions.push(next),
        Some(present) if present["status"] == value && present["reason"] == reason && present["message"] == message => {
        }
        Some(present) => {
            if present["status"] == value {
                next["lastTransitionTime"] = present["lastTransitionTime"].clone();
            }
            *present = next;
        }
    }
}

fn unset_condition(object: &mut Value, condition: &str) {
    if let Some(Value::Array(conditions)) = object.pointer_mut("/status/conditions") {
        conditions.retain(|present| present["type"] != condition);
    }
}

/// What somebody tells about an object: one Event for the same words, with a count.
pub(super) fn tell(store: &mut Store, about: &Value, warning: bool, reason: &str, message: &str, who: &str) {
    let (namespace, name) = (text(about, "/metadata/namespace"), text(about, "/metadata/name"));
    let known = store
        .all("Event", Some(namespace))
        .find(|(_, event)| {
            event["involvedObject"]["uid"] == about["metadata"]["uid"]
                && event["reason"] == reason
                && event["message"] == message
        })
        .map(|(key, _)| key.clone());
    let now = time::now();
    if let Some(key) = known {
        store.edit(&key, |event| {
            event["count"] = (event["count"].as_i64().unwrap_or(1) + 1).into();
            event["lastTimestamp"] = now.into();
        });
        return;
    }
    let number = store.next_name();
    let event = json!({
        "metadata": {"namespace": namespace, "name": format!("{name}.{}{number:08x}", suffix(number))},
        "involvedObject": {
            "apiVersion": about["apiVersion"], "kind": about["kind"], "namespace": namespace, "name": name,
            "uid": about["metadata"]["uid"], "resourceVersion": about["metadata"]["resourceVersion"],
        },
        "type": if warning { "Warning" } else { "Normal" },
        "reason": reason, "message": message, "count": 1, "source": {"component": who},
        "firstTimestamp": now, "lastTimestamp": now, "reportingComponent": who, "reportingInstance": "",
    });
    make(store, "Event", event);
}
