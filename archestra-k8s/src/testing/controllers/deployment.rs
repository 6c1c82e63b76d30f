//! Deployments: a ReplicaSet for each template, rolled without a gap or replaced, and the status of it.

use super::{make, owned, reference, set_condition, tell, unset_condition};
use crate::testing::store::{Key, Store, text};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

const REVISION: &str = "deployment.kubernetes.io/revision";
const HASH: &str = "pod-template-hash";
const WHO: &str = "deployment-controller";

/// Brings a Deployment one step further.
pub(super) fn reconcile(store: &mut Store, key: &Key, object: &Arc<Value>) {
    let spec = &object["spec"];
    let hash = hash_of(&spec["template"]);
    let mut sets = owned(store, "ReplicaSet", object);
    sets.sort_by_key(|(_, set)| revision_of(set));
    let newest = sets.last().map_or(0, |(_, set)| revision_of(set));
    let (current, old): (Vec<_>, Vec<_>) =
        sets.into_iter().partition(|(_, set)| text(set, &format!("/metadata/labels/{HASH}")) == hash);
    if spec["paused"] != true {
        let wanted = count(&spec["replicas"], 1);
        match current.first() {
            None if spec["strategy"]["type"] == "Recreate" && !emptied(store, key, object, &old) => {}
            None => {
                let start = if old.is_empty() { wanted } else { 0 };
                make_set(store, key, object, &hash, newest + 1, start);
            }
            Some((set_key, set)) => {
                let revision = if revision_of(set) == newest { newest } else { newest + 1 };
                store.edit(set_key, |set| {
                    // A ReplicaSet repeats what its Deployment says of itself.
                    for (name, value) in object["metadata"]["annotations"].as_object().into_iter().flatten() {
                        set["metadata"]["annotations"][name] = value.clone();
                    }
                    set["metadata"]["annotations"][REVISION] = revision.to_string().into();
                });
                store.edit(key, |object| object["metadata"]["annotations"][REVISION] = revision.to_string().into());
                if spec["strategy"]["type"] == "Recreate" {
                    if emptied(store, key, object, &old) {
                        scale(store, object, set_key, wanted);
                    }
                } else {
                    roll(store, object, (set_key, set), &old, wanted);
                }
                trim(store, &old, count(&spec["revisionHistoryLimit"], 10));
            }
        }
    }
    report(store, key, object, &hash);
}

fn count(value: &Value, otherwise: i64) -> i64 {
    value.as_i64().unwrap_or(otherwise)
}

fn revision_of(set: &Value) -> i64 {
    set["metadata"]["annotations"][REVISION].as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn hash_of(template: &Value) -> String {
    let mut hasher = DefaultHasher::new();
    template.to_string().hash(&mut hasher);
    format!("{:010x}", hasher.finish() & 0xff_ffff_ffff)
}

fn make_set(store: &mut Store, key: &Key, object: &Value, hash: &str, revision: i64, replicas: i64) {
    let mut template = object["spec"]["template"].clone();
    let mut selector = object["spec"]["selector"].clone();
    template["metadata"]["labels"][HASH] = hash.into();
    selector["matchLabels"][HASH] = hash.into();
    let set = json!({
        "metadata": {
            "namespace": key.namespace, "name": format!("{}-{hash}", key.name), "labels": template["metadata"]["labels"],
            "annotations": {REVISION: revision.to_string()}, "ownerReferences": reference(object),
        },
        "spec": {"replicas": replicas, "selector": selector, "template": template},
        "status": {"replicas": 0},
    });
    make(store, "ReplicaSet", set);
    let message = format!("Scaled up replica set {}-{hash} to {replicas}", key.name);
    tell(store, object, false, "ScalingReplicaSet", &message, WHO);
}

fn scale(store: &mut Store, object: &Value, key: &Key, replicas: i64) {
    let before = store.get(key).map_or(0, |set| count(&set["spec"]["replicas"], 0));
    if store.edit(key, |set| set["spec"]["replicas"] = replicas.into()) {
        let way = if replicas > before { "up" } else { "down" };
        let message = format!("Scaled {way} replica set {} to {replicas}", key.name);
        tell(store, object, false, "ScalingReplicaSet", &message, WHO);
    }
}

/// Scales old sets down to nothing; whether nothing of them is left.
fn emptied(store: &mut Store, _key: &Key, object: &Value, old: &[(Key, Arc<Value>)]) -> bool {
    let mut empty = true;
    for (key, set) in old {
        scale(store, object, key, 0);
        empty &= owned(store, "Pod", set).is_empty();
    }
    empty
}

/// One step of a rolling update: never more pods than the surge allows, never fewer that are available than promised.
fn roll(store: &mut Store, object: &Value, new: (&Key, &Arc<Value>), old: &[(Key, Arc<Value>)], wanted: i64) {
    let limits = &object["spec"]["strategy"]["rollingUpdate"];
    let mut surge = portion(&limits["maxSurge"], wanted, true);
    let unavailable = portion(&limits["maxUnavailable"], wanted, false);
    if surge == 0 && unavailable == 0 {
        surge = 1;
    }
    let size = |set: &Value| count(&set["spec"]["replicas"], 0);
    let available = |set: &Value| count(&set["status"]["availableReplicas"], 0);
    let old_total: i64 = old.iter().map(|(_, set)| size(set)).sum();
    let room = wanted + surge - old_total;
    let target = wanted.min(room).max(size(new.1).min(wanted));
    scale(store, object, new.0, target);
    let floor = wanted - unavailable;
    let mut spare = old_total + target - floor - (target - available(new.1)).max(0);
    let all_available: i64 = available(new.1) + old.iter().map(|(_, set)| available(set)).sum::<i64>();
    let mut surplus = all_available - floor;
    for (key, set) in old {
        let broken = (size(set) - available(set)).min(spare).max(0);
        let healthy = available(set).min(surplus).min(spare - broken).max(0);
        surplus -= healthy;
        spare -= broken + healthy;
        if broken + healthy > 0 {
            scale(store, object, key, size(set) - broken - healthy);
        }
    }
}

/// A number, or a percentage of the whole.
fn portion(value: &Value, whole: i64, up: bool) -> i64 {
    let percent = value.as_str().and_then(|text| text.trim_end_matches('%').parse::<i64>().ok());
    match percent {
        Some(percent) if up => (whole * percent + 99) / 100,
        Some(percent) => whole * percent / 100,
        None => count(value, i64::from(up)),
    }
}

fn trim(store: &mut Store, old: &[(Key, Arc<Value>)], keep: i64) {
    let empty = |set: &Value| count(&set["spec"]["replicas"], 0) == 0 && count(&set["status"]["replicas"], 0) == 0;
    let empty: Vec<_> = old.iter().filter(|(_, set)| empty(set)).collect();
    let surplus = empty.len().saturating_sub(usize::try_from(keep).unwrap_or_default());
    for (key, _) in empty.into_iter().take(surplus) {
        store.remove(key);
    }
}

fn report(store: &mut Store, key: &Key, object: &Value, hash: &str) {
    let sets = owned(store, "ReplicaSet", object);
    let sum = |field: &str| sets.iter().map(|(_, set)| count(&set["status"][field], 0)).sum::<i64>();
    let current = sets.iter().find(|(_, set)| text(set, &format!("/metadata/labels/{HASH}")) == hash);
    let (replicas, ready, available) = (sum("replicas"), sum("readyReplicas"), sum("availableReplicas"));
    let updated = current.map_or(0, |(_, set)| count(&set["status"]["replicas"], 0));
    let new_available = current.map_or(0, |(_, set)| count(&set["status"]["availableReplicas"], 0));
    let wanted = count(&object["spec"]["replicas"], 1);
    let complete = updated == wanted && replicas == wanted && new_available == wanted;
    let unavailable = portion(&object["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"], wanted, false);
    let failure = current.and_then(|(_, set)| {
        let conditions = set["status"]["conditions"].as_array()?;
        conditions.iter().find(|condition| condition["type"] == "ReplicaFailure").cloned()
    });
    let name = current.map_or("", |(key, _)| key.name.as_str());
    store.edit(key, |object| {
        let generation = object["metadata"]["generation"].clone();
        let status = &mut object["status"];
        status["observedGeneration"] = generation;
        let fields = [
            ("replicas", replicas),
            ("updatedReplicas", updated),
            ("readyReplicas", ready),
            ("availableReplicas", available),
            ("unavailableReplicas", (wanted.max(replicas) - available).max(0)),
        ];
        for (field, value) in fields {
            if value > 0 {
                status[field] = value.into();
            } else if let Value::Object(status) = status {
                status.remove(field);
            }
        }
        if available >= wanted - unavailable {
            set_condition(
                object,
                "Available",
                true,
                "MinimumReplicasAvailable",
                "Deployment has minimum availability.",
            );
        } else {
            let message = "Deployment does not have minimum availability.";
            set_condition(object, "Available", false, "MinimumReplicasUnavailable", message);
        }
        match &failure {
            Some(failure) => {
                set_condition(object, "ReplicaFailure", true, text(failure, "/reason"), text(failure, "/message"));
            }
            None => unset_condition(object, "ReplicaFailure"),
        }
        if complete {
            let message = format!("ReplicaSet \"{name}\" has successfully progressed.");
            set_condition(object, "Progressing", true, "NewReplicaSetAvailable", &message);
        } else if is_late(object, name) {
            let message = format!("ReplicaSet \"{name}\" has timed out progressing.");
            set_condition(object, "Progressing", false, "ProgressDeadlineExceeded", &message);
        } else {
            let message = format!("ReplicaSet \"{name}\" is progressing.");
            set_condition(object, "Progressing", true, "ReplicaSetUpdated", &message);
        }
    });
}

/// Whether a rollout has been under way for longer than its deadline.
fn is_late(object: &Value, set: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    let progressing = conditions.and_then(|all| all.iter().find(|condition| condition["type"] == "Progressing"));
    let Some(progressing) = progressing.filter(|condition| condition["reason"] != "NewReplicaSetAvailable") else {
        return false;
    };
    let Ok(since) = text(progressing, "/lastUpdateTime").parse::<DateTime<Utc>>() else { return false };
    let late = (Utc::now() - since).num_seconds() > count(&object["spec"]["progressDeadlineSeconds"], 600);
    let same = text(progressing, "/message").contains(&format!("\"{set}\""));
    same && (late || progressing["reason"] == "ProgressDeadlineExceeded")
}
