//! The watches themselves: one for each kind and namespace, tried again with back-off for as long as the observer lives.

use super::{Observer, store::Tracked, synced::Problem};
use futures::{Stream, StreamExt};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::{Event, Pod, Secret, Service},
        networking::v1::NetworkPolicy,
    },
};
use kube::{
    Api, Client, Resource,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt, utils::Backoff, watcher},
};
use serde::de::DeserializeOwned;
use std::{fmt, pin::pin, sync::Arc, time::Duration};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A list that takes longer is asked for again on another connection.
const LIST_LIMIT: Duration = Duration::from_secs(30);
/// The longest pause before a watch that failed is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Warnings about pods: what their own status does not tell.
const POD_WARNINGS: &str = "involvedObject.kind=Pod,type=Warning";

/// Starts all watches of the observer's namespace, of what the label selector `ours` finds.
pub(super) fn start(
    observer: &Arc<Observer>,
    client: &Client,
    ours: &str,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let ours = config().labels(ours);
    let namespace = &observer.namespace;
    spawn::<Deployment>(observer, client, &ours, tasks, stop);
    spawn::<PartialObjectMeta<ReplicaSet>>(observer, client, &ours, tasks, stop);
    spawn::<Pod>(observer, client, &ours, tasks, stop);
    spawn::<Service>(observer, client, &ours, tasks, stop);
    spawn::<NetworkPolicy>(observer, client, &ours, tasks, stop);
    // What is in Secrets stays there.
    spawn::<PartialObjectMeta<Secret>>(observer, client, &ours, tasks, stop);
    let (observer, events) = (Arc::clone(observer), Api::<Event>::namespaced(client.clone(), namespace));
    let stop = stop.clone();
    tasks.spawn(async move {
        let mut progress = observer.progress.subscribe();
        tokio::select! {
            () = stop.cancelled() => return,
            // Before the pods are known it cannot be told which warnings are about ours.
            listed = progress.wait_for(|progress| progress.has_listed(<Pod as Tracked>::KIND)) => drop(listed),
        }
        drop(progress);
        follow(observer, move || watcher(events.clone(), config().fields(POD_WARNINGS)), stop).await;
    });
}

/// The pauses between tries: those of kube, but none so long that what happened in an outage is told long after it.
#[derive(Default)]
struct Pauses(watcher::DefaultBackoff);

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|pause| pause.min(LONGEST_PAUSE))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.0.reset();
    }
}

fn config() -> watcher::Config {
    watcher::Config::default()
}

fn spawn<K>(
    observer: &Arc<Observer>,
    client: &Client,
    ours: &watcher::Config,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) where
    K: Tracked
        + Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + fmt::Debug
        + Send
        + 'static,
{
    let (api, ours) = (Api::<K>::namespaced(client.clone(), &observer.namespace), ours.clone());
    tasks.spawn(follow(Arc::clone(observer), move || watcher(api.clone(), ours.clone()), stop.clone()));
}

async fn follow<K, S>(observer: Arc<Observer>, events: impl Fn() -> S + Send, stop: CancellationToken)
where
    K: Tracked + Resource + Send + 'static,
    S: Stream<Item = watcher::Result<watcher::Event<K>>> + Send,
{
    loop {
        let events = events().backoff(Pauses::default());
        tokio::select! {
            () = stop.cancelled() => return,
            () = take(&observer, events) => {
                let problem = Problem::late(K::KIND, &observer.namespace, LIST_LIMIT);
                observer.note_problem(K::KIND, problem);
            }
        }
    }
}

/// Takes what comes until a list does not come.
async fn take<K>(observer: &Arc<Observer>, events: impl Stream<Item = watcher::Result<watcher::Event<K>>>)
where
    K: Tracked + Resource,
{
    let mut events = pin!(events);
    let mut listing: Option<Vec<K>> = None;
    loop {
        // A watch may be quiet for as long as it likes; a list may not. No pause between two tries is as long.
        let next = match listing {
            Some(_) => match timeout(LIST_LIMIT, events.next()).await {
                Ok(next) => next,
                Err(_) => return,
            },
            None => events.next().await,
        };
        match next {
            Some(Ok(watcher::Event::Init)) => {
                listing = Some(Vec::new());
                observer.change(|store| {
                    K::begin(store);
                    super::store::Touched::Nothing
                });
            }
            Some(Ok(watcher::Event::InitApply(object))) => {
                listing.get_or_insert_default().push(light(object));
            }
            Some(Ok(watcher::Event::InitDone)) => {
                let all = listing.take().unwrap_or_default();
                observer.change(|store| K::replace(store, all));
                observer.note_listed(K::KIND);
            }
            Some(Ok(watcher::Event::Apply(object))) => {
                observer.note_well(K::KIND);
                observer.change(|store| K::put(store, light(object)));
            }
            Some(Ok(watcher::Event::Delete(object))) => {
                observer.note_well(K::KIND);
                observer.change(|store| K::delete(store, &object));
            }
            Some(Err(error)) => {
                listing = None;
                observer.note_problem(K::KIND, Problem::of(K::KIND, &observer.namespace, error));
            }
            None => return,
        }
    }
}

/// Without what nobody here asks for.
fn light<K: Tracked + Resource>(mut object: K) -> K {
    if !K::OWNERS {
        object.meta_mut().managed_fields = None;
    }
    object
}
