//! What is told of a Deployment and its pods, case by case.
#![expect(clippy::needless_pass_by_value, reason = "the cases are literals")]

use super::{Derived, Evidence, PodEvidence, Trouble, derive};
use archestra_core::runtime::{Phase, RevisionNumber, WorkloadStatus};
use chrono::{DateTime, Utc};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use serde_json::{Value, json};

fn at(text: &str) -> DateTime<Utc> {
    format!("2026-11-20T{text}Z").parse().expect("a time")
}

/// A Deployment of revision 2, and what its status says.
fn deployment(status: &Value) -> Deployment {
    let mut whole = json!({
        "metadata": {"name": "mcp-1", "generation": 3, "annotations": {"archestra.dev/revision": "2"}},
        "spec": {"replicas": 1, "selector": {}, "template": {}},
        "status": {"observedGeneration": 3},
    });
    for (key, value) in status.as_object().expect("an object") {
        whole["status"][key] = value.clone();
    }
    serde_json::from_value(whole).expect("a Deployment")
}

/// A pod on a node with this status of its only container, in this pod status.
fn pod(status: Value) -> Pod {
    let spec = json!({"nodeName": "node1", "containers": [{"name": "mcp-server"}]});
    serde_json::from_value(json!({
        "metadata": {"name": "mcp-1-abc", "uid": "u1", "creationTimestamp": "2026-11-20T10:00:00Z"},
        "spec": spec,
        "status": status,
    }))
    .expect("a pod")
}

fn container(state: Value, last: Value, restarts: u32, ready: bool) -> Value {
    json!({
        "phase": if ready { "Running" } else { "Pending" },
        "conditions": [
            {"type": "Initialized", "status": "True"},
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-11-20T10:00:00Z"},
            {"type": "Ready", "status": if ready { "True" } else { "False" }, "lastTransitionTime": "2026-11-20T10:00:05Z"},
            {"type": "ContainersReady", "status": if ready { "True" } else { "False" }, "lastTransitionTime": "2026-11-20T10:00:05Z"},
        ],
        "containerStatuses": [{
            "name": "mcp-server", "image": "registry.example.com/a:1", "imageID": "", "containerID": "containerd://now",
            "ready": ready, "restartCount": restarts, "state": state, "lastState": last,
        }],
    })
}

fn waiting(reason: &str, message: &str) -> Pod {
    pod(container(json!({"waiting": {"reason": reason, "message": message}}), json!({}), 0, false))
}

fn running(ready: bool) -> Pod {
    pod(container(json!({"running": {"startedAt": "2026-11-20T10:00:05Z"}}), json!({}), 0, ready))
}

fn terminated(code: i32, reason: &str) -> Value {
    json!({"terminated": {
        "exitCode": code, "reason": reason, "containerID": "containerd://before", "finishedAt": "2026-11-20T10:00:09Z",
    }})
}

fn crash(code: i32, reason: &str, restarts: u32) -> Pod {
    let waits =
        json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting failed container"}});
    pod(container(waits, terminated(code, reason), restarts, false))
}

fn current(pod: &Pod) -> PodEvidence<'_> {
    PodEvidence { pod, current: true, revision: Some(RevisionNumber(2)), troubles: &[], words: None }
}

fn former(pod: &Pod) -> PodEvidence<'_> {
    PodEvidence { revision: Some(RevisionNumber(1)), current: false, ..current(pod) }
}

fn tell(deployment: &Deployment, pods: Vec<PodEvidence<'_>>) -> Derived {
    derive(&Evidence { deployment, pods, before: None, now: at("12:00:00") })
}

fn of_pod(pod: &Pod) -> WorkloadStatus {
    tell(&deployment(&json!({})), vec![current(pod)]).status
}

/// The phase, and words of the reason and of the hint.
#[track_caller]
fn assert_told(status: &WorkloadStatus, phase: Phase, reason: &str, hint: &str) {
    assert_eq!(status.phase, phase, "{status:?}");
    assert!(status.reason.as_deref().unwrap_or_default().contains(reason), "{reason:?} is not in {status:?}");
    assert!(status.hint.as_deref().unwrap_or_default().contains(hint), "{hint:?} is not in {status:?}");
}

#[test]
fn a_ready_pod_is_running() {
    let status = of_pod(&running(true));
    assert_eq!(
        status,
        WorkloadStatus {
            phase: Phase::Running,
            reason: None,
            hint: None,
            restarts: 0,
            since: at("10:00:05"),
            started_at: Some(at("10:00:05")),
            revision: Some(RevisionNumber(2)),
        }
    );
}

#[test]
fn a_paused_deployment_is_told_instead_of_being_waited_for() {
    let mut paused = json!(deployment(&json!({})));
    paused["spec"]["paused"] = true.into();
    let paused: Deployment = serde_json::from_value(paused).unwrap();
    assert_told(&tell(&paused, vec![]).status, Phase::Error, "is paused", "deploymentYaml");
    let pod = running(true);
    let before = tell(&paused, vec![former(&pod)]).status;
    assert_told(&before, Phase::Running, "still answers: its Deployment is paused", "resume it");
    assert_eq!(tell(&paused, vec![current(&pod)]).status.reason, None, "there is nothing to roll out");
}

#[test]
fn what_is_on_its_way_is_pending_and_says_why() {
    let unobserved = deployment(&json!({"observedGeneration": 2}));
    assert_told(&tell(&unobserved, vec![]).status, Phase::Pending, "not acted on it yet", "");
    assert_told(&tell(&deployment(&json!({})), vec![]).status, Phase::Pending, "about to be made", "");
    let cases = [
        (waiting("ContainerCreating", ""), "its container is being created"),
        (waiting("PodInitializing", ""), "its container is being created"),
        (running(false), "started at 2026-11-20 10:00:05 UTC and does not answer yet"),
    ];
    for (pod, reason) in cases {
        let status = of_pod(&pod);
        assert_told(&status, Phase::Pending, reason, "");
        assert_eq!(status.revision, Some(RevisionNumber(2)));
    }
}

#[test]
fn an_error_of_what_ran_before_is_none_of_what_is_desired() {
    let unobserved = deployment(&json!({"observedGeneration": 2}));
    let broken = crash(1, "Error", 4);
    let status = tell(&unobserved, vec![former(&broken)]).status;
    assert_eq!((status.phase, status.revision), (Phase::Pending, None));
}

#[test]
fn images_that_cannot_be_pulled_say_whether_it_is_name_credentials_or_network() {
    let cases = [
        (
            "ErrImagePull",
            "rpc error: code = NotFound desc = failed to pull and unpack image: not found",
            "name and tag",
        ),
        (
            "ErrImagePull",
            "failed to authorize: failed to fetch oauth token: unexpected status: 401 Unauthorized",
            "imagePullSecrets",
        ),
        (
            "ErrImagePull",
            "pull access denied, repository does not exist or may require authorization",
            "imagePullSecrets",
        ),
        (
            "ErrImagePull",
            "failed to do request: Head \"https://r/v2\": dial tcp: lookup r: no such host",
            "does not reach the registry",
        ),
        ("ErrImagePull", "dial tcp 127.0.0.1:5000: connect: connection refused", "does not reach the registry"),
        (
            "ErrImagePull",
            "tls: failed to verify certificate: x509: certificate signed by unknown authority",
            "certificate",
        ),
        ("ErrImagePull", "429 Too Many Requests - toomanyrequests", "limits how much"),
        ("ImagePullBackOff", "Back-off pulling image \"a\": ErrImagePull: manifest unknown", "name and tag"),
        (
            "InvalidImageName",
            "Failed to apply default image tag \"A:B\": couldn't parse image reference",
            "registry/name:tag",
        ),
        ("ErrImageNeverPull", "Container image \"a\" is not present with pull policy of Never", "load the image"),
    ];
    for (reason, message, hint) in cases {
        let status = of_pod(&waiting(reason, message));
        assert_told(&status, Phase::Error, "registry.example.com/a:1", hint);
        assert!(status.reason.unwrap_or_default().contains(message), "the registry's own words are told");
    }
}

#[test]
fn why_a_pull_failed_is_remembered_while_it_backs_off() {
    let pod = waiting("ImagePullBackOff", "Back-off pulling image \"registry.example.com/a:1\"");
    let trouble = |reason: &str, message: &str| Trouble {
        reason: reason.to_owned(),
        message: message.to_owned(),
        at: at("10:00:01"),
    };
    let troubles = [
        trouble("Failed", "Failed to pull image \"a\": rpc error: 401 Unauthorized"),
        trouble("Failed", "Error: ImagePullBackOff"),
    ];
    let evidence = PodEvidence { troubles: &troubles, ..current(&pod) };
    assert_told(
        &tell(&deployment(&json!({})), vec![evidence]).status,
        Phase::Error,
        "401 Unauthorized",
        "imagePullSecrets",
    );
}

#[test]
fn crash_loops_say_how_the_server_ended() {
    let cases = [
        (crash(1, "Error", 4), "ended with exit code 1, and was restarted 4 times", "logs of the run before"),
        (crash(0, "Completed", 1), "ended with exit code 0, and was restarted once", "has to go on running"),
        (crash(127, "Error", 2), "exit code 127", "check command"),
        (crash(137, "OOMKilled", 2), "OOMKilled", "memory limit"),
        (crash(139, "Error", 2), "signal 11 (SIGSEGV)", "crashed"),
    ];
    for (pod, reason, hint) in cases {
        let derived = tell(&deployment(&json!({})), vec![current(&pod)]);
        assert_told(&derived.status, Phase::Error, reason, hint);
        assert_eq!(derived.status.since, at("10:00:09"));
        let asks = derived.asks.expect("its last words are asked for");
        assert_eq!((asks.run.as_str(), asks.previous), ("containerd://before", false));
    }
}

#[test]
fn last_words_are_part_of_the_hint() {
    let pod = crash(1, "Error", 4);
    let told = |words| {
        let evidence = PodEvidence { words: Some(words), ..current(&pod) };
        tell(&deployment(&json!({})), vec![evidence]).status
    };
    assert_told(
        &told("Error: API_KEY is missing"),
        Phase::Error,
        "exit code 1",
        "its last words: Error: API_KEY is missing",
    );
    assert_told(&told("EACCES: permission denied, mkdir '/x'"), Phase::Error, "exit code 1", "runAsUser");
    assert!(!told("").hint.unwrap_or_default().contains("last words"));
}

#[test]
fn what_ended_and_is_started_again_is_restarting() {
    let ended = pod(container(terminated(1, "Error"), json!({}), 0, false));
    assert_told(&of_pod(&ended), Phase::Restarting, "ended with exit code 1", "");
    let again = json!({"running": {"startedAt": "2026-11-20T10:00:10Z"}});
    let again = pod(container(again, terminated(1, "Error"), 1, false));
    let derived = tell(&deployment(&json!({})), vec![current(&again)]);
    assert_told(&derived.status, Phase::Restarting, "started again at 2026-11-20 10:00:10 UTC", "");
    assert_eq!(derived.status.restarts, 1);
    assert!(derived.asks.expect("its last words are asked for").previous);
}

#[test]
fn containers_that_cannot_be_created_name_what_to_change() {
    let cases = [
        ("CreateContainerConfigError", "secret \"shared\" not found", "make the Secret \"shared\""),
        ("CreateContainerConfigError", "configmap \"settings\" not found", "make the ConfigMap \"settings\""),
        ("CreateContainerConfigError", "Error: secret \"x\" not found", "make the Secret \"x\""),
        (
            "CreateContainerConfigError",
            "secret \"mcp-0192d3b4c5d67e8f90a1b2c3d4e5f607\" not found",
            "its own Secret \"mcp-0192d3b4c5d67e8f90a1b2c3d4e5f607\" is gone: reinstall",
        ),
        ("CreateContainerConfigError", "couldn't find key API_KEY in Secret ns/mcp-1", "lacks a value"),
        ("CreateContainerConfigError", "container has runAsNonRoot and image will run as root", "runAsUser"),
        ("RunContainerError", "exec: \"nope\": executable file not found in $PATH: unknown", "check command"),
        ("CreateContainerError", "no command specified", "check command"),
        ("RunContainerError", "exec: \"/srv\": permission denied: unknown", "not executable"),
    ];
    for (reason, message, hint) in cases {
        assert_told(&of_pod(&waiting(reason, message)), Phase::Error, message, hint);
    }
    let mut never = terminated(128, "StartError");
    never["terminated"]["message"] = json!("exec: \"nope\": executable file not found in $PATH: unknown");
    let loops = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    let status = of_pod(&pod(container(loops, never, 3, false)));
    assert_told(&status, Phase::Error, "cannot be started: exec: \"nope\"", "check command");
}

#[test]
fn volumes_and_pod_networks_are_told_by_their_warnings() {
    let pod = waiting("ContainerCreating", "");
    let tell_of = |reason: &str, message: &str| {
        let troubles = [Trouble { reason: reason.to_owned(), message: message.to_owned(), at: at("10:00:01") }];
        tell(&deployment(&json!({})), vec![PodEvidence { troubles: &troubles, ..current(&pod) }]).status
    };
    let missing = tell_of("FailedMount", "MountVolume.SetUp failed for volume \"x\" : secret \"s\" not found");
    assert_told(&missing, Phase::Error, "secret \"s\" not found", "does not exist");
    let slow = tell_of("FailedMount", "failed to sync secret cache: timed out waiting for the condition");
    assert_told(&slow, Phase::Pending, "timed out waiting", "");
    assert_told(
        &tell_of("FailedCreatePodSandBox", "no IP addresses"),
        Phase::Pending,
        "no IP addresses",
        "pod network",
    );
}

#[test]
fn the_scheduler_is_quoted() {
    let unscheduled = |message: &str| {
        let mut pod = pod(json!({"phase": "Pending", "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
            "lastTransitionTime": "2026-11-20T10:00:01Z",
        }]}));
        pod.spec.as_mut().expect("a spec").node_name = None;
        of_pod(&pod)
    };
    let cases = [
        ("0/1 nodes are available: 1 Insufficient memory.", "resource requests"),
        ("0/1 nodes are available: 1 node(s) had taint {a: b}, that the pod didn't tolerate.", "toleration"),
        ("0/1 nodes are available: 1 node(s) didn't match node selector.", "nodeSelector"),
    ];
    for (message, hint) in cases {
        let status = unscheduled(message);
        assert_told(&status, Phase::Error, message, hint);
        assert_eq!(status.since, at("10:00:01"));
    }
}

#[test]
fn pods_that_may_not_be_made_say_who_refuses_them() {
    let cases = [
        ("pods \"a\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1", "quota"),
        (
            "pods \"a\" is forbidden: error looking up service account ns/x: serviceaccount \"x\" not found",
            "service account",
        ),
        ("pods \"a\" is forbidden: violates PodSecurity \"restricted:latest\": runAsNonRoot != true", "pod security"),
        ("admission webhook \"w\" denied the request: no", "admission rule"),
        ("pods \"a\" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi", "limit range"),
    ];
    for (message, what) in cases {
        let refused = deployment(&json!({"conditions": [
            {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message},
        ]}));
        let status = tell(&refused, vec![]).status;
        assert_told(&status, Phase::Error, what, "");
        assert!(status.reason.unwrap_or_default().contains(message));
        assert!(status.hint.is_some());
    }
}

#[test]
fn init_containers_that_fail_are_named() {
    let mut failing = container(json!({"waiting": {"reason": "PodInitializing"}}), json!({}), 0, false);
    failing["conditions"][0]["status"] = json!("False");
    failing["initContainerStatuses"] = json!([{
        "name": "archestra-bridge", "image": "b", "imageID": "", "ready": false, "restartCount": 2,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": terminated(1, "Error"),
    }]);
    assert_told(
        &of_pod(&pod(failing.clone())),
        Phase::Error,
        "its init container archestra-bridge fails: it ended with exit code 1",
        "",
    );
    failing["initContainerStatuses"][0]["state"] =
        json!({"waiting": {"reason": "ErrImagePull", "message": "not found"}});
    assert_told(
        &of_pod(&pod(failing)),
        Phase::Error,
        "init container archestra-bridge fails: its image b",
        "name and tag",
    );
}

#[test]
fn evicted_pods_and_lost_nodes_are_told() {
    let evicted =
        pod(json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}));
    assert_told(&of_pod(&evicted), Phase::Pending, "evicted from its node: The node was low", "");
    let mut lost = container(json!({"running": {"startedAt": "2026-11-20T10:00:05Z"}}), json!({}), 0, true);
    lost["conditions"][2]["status"] = json!("False");
    assert_told(&of_pod(&pod(lost)), Phase::Error, "node node1 does not report", "");
}

#[test]
fn a_server_that_no_longer_answers_says_since_when() {
    let mut quiet = container(json!({"running": {"startedAt": "2026-11-20T10:00:05Z"}}), json!({}), 0, false);
    for condition in [2, 3] {
        quiet["conditions"][condition]["lastTransitionTime"] = json!("2026-11-20T11:00:00Z");
    }
    let pod = pod(quiet);
    let troubles = [Trouble {
        reason: "Unhealthy".to_owned(),
        message: "Readiness probe failed: connection refused".to_owned(),
        at: at("11:00:10"),
    }];
    let evidence = PodEvidence { troubles: &troubles, ..current(&pod) };
    let status = tell(&deployment(&json!({})), vec![evidence]).status;
    assert_told(
        &status,
        Phase::Pending,
        "has not answered since 2026-11-20 11:00:00 UTC (Readiness probe failed",
        "restart",
    );
    assert_eq!(status.since, at("11:00:00"));
}

#[test]
fn what_ran_before_goes_on_running_while_the_new_revision_fails() {
    let (old, new) = (running(true), waiting("ErrImagePull", "manifest unknown"));
    let status = tell(&deployment(&json!({})), vec![current(&new), former(&old)]).status;
    assert_told(&status, Phase::Running, "revision 2 does not come to run", "name and tag");
    assert_eq!(status.revision, Some(RevisionNumber(1)));
    let new = running(false);
    let status = tell(&deployment(&json!({})), vec![former(&old), current(&new)]).status;
    assert_eq!((status.phase, status.reason), (Phase::Running, None), "progress is no news");
}

#[test]
fn what_takes_too_long_is_an_error() {
    let late = deployment(&json!({"conditions": [
        {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"},
    ]}));
    let (old, new) = (running(true), running(false));
    assert_told(
        &tell(&late, vec![current(&new)]).status,
        Phase::Error,
        "does not answer yet (and its",
        "read its logs",
    );
    let status = tell(&late, vec![current(&new), former(&old)]).status;
    assert_told(&status, Phase::Running, "revision 2 does not come to run", "read its logs");
}

#[test]
fn what_ran_and_comes_back_is_restarting() {
    let deployment = deployment(&json!({}));
    let before = of_pod(&running(true));
    let next =
        |pods| derive(&Evidence { deployment: &deployment, pods, before: Some(&before), now: at("12:00:00") }).status;
    let gone = next(vec![]);
    assert_told(&gone, Phase::Restarting, "about to be made", "");
    let starts = waiting("ContainerCreating", "");
    let on = derive(&Evidence {
        deployment: &deployment,
        pods: vec![current(&starts)],
        before: Some(&gone),
        now: at("12:00:01"),
    });
    assert_eq!((on.status.phase, on.status.since), (Phase::Restarting, gone.since));
}

#[test]
fn scaled_to_zero_is_stopped() {
    let mut none = deployment(&json!({}));
    none.spec.as_mut().expect("a spec").replicas = Some(0);
    assert_told(&tell(&none, vec![]).status, Phase::Stopped, "scaled to zero", "");
}

#[test]
fn long_texts_are_cut_and_are_one_line() {
    let status = of_pod(&waiting("ErrImagePull", &"ä\n".repeat(5000)));
    let reason = status.reason.unwrap_or_default();
    assert!(reason.len() < 800 && !reason.contains('\n'));
}
