//! The status of a pod: its conditions and the states of its containers.

use crate::testing::{
    store::{items, text},
    time,
};
use serde_json::{Value, json};

/// Sets a condition; its time changes only with its value.
pub(super) fn set(pod: &mut Value, condition: &str, value: bool, reason: &str, message: &str) {
    let value = if value { "True" } else { "False" };
    let conditions = &mut pod["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Value::Array(conditions) = conditions else { return };
    let mut next =
        json!({"type": condition, "status": value, "lastProbeTime": null, "lastTransitionTime": time::now()});
    for (field, text) in [("reason", reason), ("message", message)] {
        if !text.is_empty() {
            next[field] = text.into();
        }
    }
    match conditions.iter_mut().find(|present| present["type"] == condition) {
        None => conditions.push(next),
        Some(present) => {
            if present["status"] == value {
                next["lastTransitionTime"] = present["lastTransitionTime"].clone();
            }
            *present = next;
        }
    }
}

/// All containers wait.
pub(super) fn begin(pod: &mut Value, inits: &[Value], mains: &[Value]) {
    let waiting = |reason: &'static str| {
        move |container: &Value| {
            json!({
                "name": container["name"], "image": container["image"], "imageID": "", "ready": false, "started": false,
                "restartCount": 0, "lastState": {}, "state": {"waiting": {"reason": reason}},
            })
        }
    };
    let reason = if inits.is_empty() { "ContainerCreating" } else { "PodInitializing" };
    pod["status"]["containerStatuses"] = mains.iter().map(waiting(reason)).collect();
    if inits.is_empty() {
        set(pod, "Initialized", true, "", "");
    } else {
        pod["status"]["initContainerStatuses"] = inits.iter().map(waiting("PodInitializing")).collect();
        let names: Vec<_> = inits.iter().map(|container| text(container, "/name")).collect();
        let message = format!("containers with incomplete status: [{}]", names.join(" "));
        set(pod, "Initialized", false, "ContainersNotInitialized", &message);
    }
    conditions(pod);
}

/// All init containers are done.
pub(super) fn initialized(pod: &mut Value) {
    set(pod, "Initialized", true, "", "");
}

/// The part of a pod's status that is about one container.
pub(super) fn of_container<'a>(pod: &'a mut Value, list: &str, name: &str) -> Option<&'a mut Value> {
    let all = pod.pointer_mut(&format!("/status/{list}"))?.as_array_mut()?;
    all.iter_mut().find(|container| container["name"] == name)
}

/// What follows for the pod from how its containers are.
pub(super) fn conditions(pod: &mut Value) {
    let containers = items(pod, "/status/containerStatuses");
    let unready: Vec<_> =
        containers.iter().filter(|one| one["ready"] != true).map(|one| text(one, "/name").to_owned()).collect();
    let ever_ran = containers.iter().all(|one| one["state"].get("waiting").is_none() || one["restartCount"] != 0);
    let over = matches!(text(pod, "/status/phase"), "Failed" | "Succeeded");
    let ready = unready.is_empty() && !over;
    let message = format!("containers with unready status: [{}]", unready.join(" "));
    for condition in ["ContainersReady", "Ready"] {
        if ready {
            set(pod, condition, true, "", "");
        } else if over {
            set(pod, condition, false, "PodCompleted", "");
        } else {
            set(pod, condition, false, "ContainersNotReady", &message);
        }
    }
    if ever_ran && !over {
        pod["status"]["phase"] = "Running".into();
    }
}
