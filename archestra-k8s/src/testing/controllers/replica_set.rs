//! ReplicaSets: as many Pods as wanted, and the status of them.

use super::{make, owned, reference, set_condition, tell, unset_condition};
use crate::testing::{
    kinds::named,
    store::{Key, Store, text},
    write::{Deletion, suffix},
};
use serde_json::{Value, json};
use std::sync::Arc;

const WHO: &str = "replicaset-controller";

/// Brings a ReplicaSet one step further.
pub(super) fn reconcile(store: &mut Store, key: &Key, object: &Arc<Value>) {
    let wanted = usize::try_from(object["spec"]["replicas"].as_i64().unwrap_or(1)).unwrap_or_default();
    let mut active: Vec<_> = owned(store, "Pod", object).into_iter().filter(|(_, pod)| is_active(pod)).collect();
    let mut failure = None;
    while active.len() < wanted && failure.is_none() {
        let before = active.len();
        failure = make_pod(store, key, object).err();
        active = owned(store, "Pod", object).into_iter().filter(|(_, pod)| is_active(pod)).collect();
        if active.len() == before {
            break;
        }
    }
    // What is not ready goes first, then what is youngest.
    active.sort_by_key(|(_, pod)| {
        (is_ready(pod), std::cmp::Reverse(text(pod, "/metadata/creationTimestamp").to_owned()))
    });
    let surplus = active.len().saturating_sub(wanted);
    for (pod, _) in active.drain(..surplus) {
        if let Some(kind) = named("Pod") {
            // It is there, and nothing is asked of it that it could refuse.
            drop(store.delete(kind, &pod, &Deletion::default()));
            tell(store, object, false, "SuccessfulDelete", &format!("Deleted pod: {}", pod.name), WHO);
        }
    }
    let ready = active.iter().filter(|(_, pod)| is_ready(pod)).count();
    store.edit(key, |object| {
        let generation = object["metadata"]["generation"].clone();
        let status = &mut object["status"];
        status["observedGeneration"] = generation;
        status["replicas"] = active.len().into();
        for (field, value) in
            [("fullyLabeledReplicas", active.len()), ("readyReplicas", ready), ("availableReplicas", ready)]
        {
            if value > 0 {
                status[field] = value.into();
            } else if let Value::Object(status) = status {
                status.remove(field);
            }
        }
        match &failure {
            Some(message) => set_condition(object, "ReplicaFailure", true, "FailedCreate", message),
            None => unset_condition(object, "ReplicaFailure"),
        }
    });
    if let Some(message) = failure {
        let message = format!("Error creating: {message}");
        let told = store.all("Event", Some(&key.namespace)).any(|(_, event)| {
            event["involvedObject"]["uid"] == object["metadata"]["uid"] && event["message"] == message
        });
        if !told {
            tell(store, object, true, "FailedCreate", &message, WHO);
        }
    }
}

fn is_active(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_null() && !matches!(text(pod, "/status/phase"), "Failed" | "Succeeded")
}

/// Whether a pod's condition `Ready` is true.
pub(in crate::testing) fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions
        .is_some_and(|all| all.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True"))
}

fn make_pod(store: &mut Store, set: &Key, object: &Value) -> Result<(), String> {
    let Some(kind) = named("Pod") else { return Ok(()) };
    let mut pod = object["spec"]["template"].clone();
    // A refusal names the pod that it is about, and says the same each time.
    let attempt = Key::new(kind.name, &set.namespace, &format!("{}-{}", set.name, suffix(set.name.len() as u64)));
    store.admit(kind, &attempt, &pod).map_err(|refusal| refusal.message().to_owned())?;
    let number = store.next_name();
    let name = format!("{}-{}", set.name, suffix(number));
    if !pod["metadata"].is_object() {
        pod["metadata"] = json!({});
    }
    pod["metadata"]["namespace"] = set.namespace.clone().into();
    pod["metadata"]["name"] = name.clone().into();
    pod["metadata"]["generateName"] = format!("{}-", set.name).into();
    pod["metadata"]["ownerReferences"] = reference(object);
    pod["status"] = json!({"phase": "Pending", "qosClass": "Burstable"});
    make(store, "Pod", pod);
    tell(store, object, false, "SuccessfulCreate", &format!("Created pod: {name}"), WHO);
    Ok(())
}
