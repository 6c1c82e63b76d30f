//! When what leads to a pod is to be given up though nobody has closed it: the pod is lost with its node, or ends.

use super::{
    Shared,
    link::{Link, ReadyPod},
};
use crate::observe::view;
use k8s_openapi::api::core::v1::Pod;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until};

/// How much later than its grace a pod may end. The kubelet begins to count when it hears of it.
const MARGIN: Duration = Duration::from_secs(2);
/// The grace of a pod that does not say, which is Kubernetes' own.
const GRACE: Duration = Duration::from_secs(30);

/// Why a stream is to be given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Farewell {
    /// Nobody answers there any more.
    Lost(&'static str),
    /// Calls go to another pod. What is under way here may finish until then.
    Leaving(Instant),
}

/// How the pod of a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Serves,
    /// It is not there any more, or has ended.
    Gone(&'static str),
    /// It is not ready, and another one is.
    Outdone,
    /// It is asked to end, and has this long.
    Ending {
        grace: Duration,
        successor: bool,
    },
}

/// Waits until a stream that all callers share is to be given up.
///
/// A node that falls silent closes no stream, and the API server does not do so for it. What is observed of the pod is all that
/// tells: its node's controller says that it is not ready, then it is asked to end and replaced, and the kubelet that should
/// confirm its end is not heard of again.
pub(super) async fn farewell(shared: &Shared, link: &Link, pod: &ReadyPod) -> Farewell {
    let judge = |standing, until: Option<Instant>| match standing {
        Standing::Gone(reason) => Some(Farewell::Lost(reason)),
        Standing::Outdone => Some(Farewell::Lost("its pod is not ready, and another one is")),
        Standing::Ending { successor: true, .. } => until.map(Farewell::Leaving),
        Standing::Ending { .. } | Standing::Serves => None,
    };
    watch(shared, link, pod, judge).await
}

/// Whether a stream to a pod is not to be given up yet.
pub(super) fn serves(shared: &Shared, link: &Link, pod: &ReadyPod) -> bool {
    match standing(&shared.observer.pods(&link.id), &pod.uid) {
        Standing::Serves => true,
        Standing::Ending { successor, .. } => !successor,
        Standing::Gone(_) | Standing::Outdone => false,
    }
}

/// Waits until nobody answers at a pod any more: it is gone, or its time to end is over. One that is not ready may still answer
/// what it was asked.
pub(super) async fn over(shared: &Shared, link: &Link, pod: &ReadyPod) {
    let judge = |standing, _| match standing {
        Standing::Gone(reason) => Some(Farewell::Lost(reason)),
        Standing::Outdone | Standing::Ending { .. } | Standing::Serves => None,
    };
    let _lost = watch(shared, link, pod, judge).await;
}

async fn watch(
    shared: &Shared,
    link: &Link,
    pod: &ReadyPod,
    judge: impl Fn(Standing, Option<Instant>) -> Option<Farewell> + Send + Sync,
) -> Farewell {
    let mut changed = shared.observer.changed();
    let mut end: Option<Instant> = None;
    loop {
        changed.mark_unchanged();
        let standing = standing(&shared.observer.pods(&link.id), &pod.uid);
        let until = match standing {
            Standing::Ending { grace, .. } => Some(*end.get_or_insert_with(|| Instant::now() + grace + MARGIN)),
            Standing::Serves | Standing::Gone(_) | Standing::Outdone => None,
        };
        if let Some(farewell) = judge(standing, until) {
            return farewell;
        }
        let overdue = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = overdue => return Farewell::Lost("its pod was to end and has not said that it did"),
            known = changed.changed() => if known.is_err() { std::future::pending::<()>().await },
        }
    }
}

fn standing(pods: &[Arc<Pod>], uid: &str) -> Standing {
    let Some(pod) = pods.iter().find(|pod| view::uid(&pod.metadata) == uid) else {
        return Standing::Gone("its pod is gone");
    };
    if view::is_finished(pod) {
        return Standing::Gone("its pod has ended");
    }
    let successor = pods.iter().any(|other| view::uid(&other.metadata) != uid && view::is_ready(other));
    if view::is_terminating(&pod.metadata) {
        let grace = pod.metadata.deletion_grace_period_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        return Standing::Ending { grace: grace.map_or(GRACE, Duration::from_secs), successor };
    }
    // One that is not ready by itself may become so again: a node that was out of reach for a while keeps its streams.
    if successor && !view::is_ready(pod) {
        return Standing::Outdone;
    }
    Standing::Serves
}

#[cfg(test)]
mod tests {
    use super::{GRACE, Standing, standing};
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};
    use std::{sync::Arc, time::Duration};

    const READY: &str = "True";
    const UNREADY: &str = "False";

    fn pod(uid: &str, ready: &str, change: impl FnOnce(&mut Value)) -> Arc<Pod> {
        let mut pod = json!({
            "metadata": {"name": uid, "uid": uid},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]},
        });
        change(&mut pod);
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn ending(seconds: Option<u64>) -> impl FnOnce(&mut Value) {
        move |pod| {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            pod["metadata"]["deletionGracePeriodSeconds"] = seconds.into();
        }
    }

    #[test]
    fn a_pod_serves_until_it_is_lost_or_asked_to_end() {
        let same = |_: &mut Value| {};
        assert_eq!(standing(&[pod("a", READY, same)], "a"), Standing::Serves);
        assert_eq!(standing(&[pod("a", READY, same), pod("b", READY, same)], "a"), Standing::Serves, "a rollout");
        assert_eq!(standing(&[pod("a", UNREADY, same)], "a"), Standing::Serves, "its node may come back");
        assert_eq!(standing(&[pod("a", UNREADY, same), pod("b", UNREADY, same)], "a"), Standing::Serves);
        assert_eq!(standing(&[pod("a", UNREADY, same), pod("b", READY, same)], "a"), Standing::Outdone);
        let gone = |pods: &[Arc<Pod>]| matches!(standing(pods, "a"), Standing::Gone(_));
        assert!(gone(&[pod("b", UNREADY, same)]) && gone(&[]));
        assert!(gone(&[pod("a", READY, |pod| pod["status"]["phase"] = "Failed".into())]));
    }

    #[test]
    fn a_pod_that_ends_keeps_its_grace_whatever_else_is_said_of_it() {
        let seconds = Duration::from_secs;
        for ready in [READY, UNREADY] {
            let alone = [pod("a", ready, ending(Some(7)))];
            assert_eq!(standing(&alone, "a"), Standing::Ending { grace: seconds(7), successor: false });
        }
        let replaced = [pod("a", UNREADY, ending(None)), pod("b", READY, |_| {})];
        assert_eq!(standing(&replaced, "a"), Standing::Ending { grace: GRACE, successor: true });
        let both = [pod("a", READY, ending(Some(7))), pod("b", READY, ending(Some(7)))];
        assert_eq!(standing(&both, "a"), Standing::Ending { grace: seconds(7), successor: false });
    }
}
