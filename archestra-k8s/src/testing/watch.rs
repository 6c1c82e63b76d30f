//! Lists and watches.

use super::{
    cluster::Inner,
    kinds::Kind,
    refusal::Refusal,
    selector::Selector,
    store::{Change, Key},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures::{StreamExt as _, stream, stream::BoxStream};
use serde_json::{Value, json};
use std::{collections::VecDeque, io, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until};

/// How often a watch that asked for bookmarks gets one.
const BOOKMARKS: Duration = Duration::from_secs(2);
/// How long a watch lives that says nothing about it.
const LIFETIME: Duration = Duration::from_secs(1800);

/// What a list or a watch is about.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) kind: &'static Kind,
    pub(super) namespace: Option<String>,
    pub(super) selector: Selector,
    /// Whether only metadata is wanted.
    pub(super) metadata_only: bool,
}

impl Scope {
    fn holds(&self, key: &Key, object: &Value) -> bool {
        key.kind == self.kind.name
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace)
            && self.selector.matches(object)
    }

    pub(super) fn view(&self, object: &Value) -> Value {
        if self.metadata_only { partial(object) } else { object.clone() }
    }
}

/// What a client gets that asks for nothing but metadata.
pub(super) fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

/// One page of a list.
pub(super) fn list(inner: &Inner, scope: &Scope, limit: usize, token: &str) -> Result<Value, Refusal> {
    inner.read(|store| {
        let (version, after) = if token.is_empty() { (store.version(), None) } else { continued(scope, token)? };
        if let Err(kept) = store.since(version).map(|_| ()) {
            return Err(Refusal::expired(version, kept));
        }
        let mut found: Vec<_> = store
            .all(scope.kind.name, scope.namespace.as_deref())
            .filter(|(key, object)| scope.selector.matches(object) && after.as_ref().is_none_or(|after| *key > after))
            .collect();
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if limit > 0 && found.len() > limit {
            let left = found.len() - limit;
            found.truncate(limit);
            if let Some((key, _)) = found.last() {
                let token = json!([version, key.namespace, key.name]).to_string();
                metadata["continue"] = URL_SAFE_NO_PAD.encode(token).into();
                metadata["remainingItemCount"] = left.into();
            }
        }
        let objects: Vec<_> = found.iter().map(|(_, object)| scope.view(object)).collect();
        let (kind, version) = if scope.metadata_only {
            ("PartialObjectMetadata".to_owned(), "meta.k8s.io/v1".to_owned())
        } else {
            (scope.kind.name.to_owned(), scope.kind.api_version())
        };
        Ok(json!({"kind": format!("{kind}List"), "apiVersion": version, "metadata": metadata, "items": objects}))
    })
}

fn continued(scope: &Scope, token: &str) -> Result<(u64, Option<Key>), Refusal> {
    let bad = || Refusal::bad_request("continue key is not valid");
    let token = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
    let (version, namespace, name): (u64, String, String) = serde_json::from_slice(&token).map_err(|_| bad())?;
    Ok((version, Some(Key::new(scope.kind.name, &namespace, &name))))
}

/// What a watch asks for besides its scope.
#[derive(Debug)]
pub(super) struct WatchOptions {
    pub(super) version: Option<u64>,
    pub(super) bookmarks: bool,
    pub(super) initial: bool,
    pub(super) timeout: Option<Duration>,
}

struct Watch {
    inner: Arc<Inner>,
    scope: Scope,
    version: u64,
    ready: VecDeque<Value>,
    changed: tokio::sync::watch::Receiver<u64>,
    interrupted: tokio::sync::watch::Receiver<u64>,
    bookmarks: bool,
    bookmarked: u64,
    next_bookmark: Instant,
    end: Instant,
    over: bool,
}

/// The changes from a version on, one JSON document per line.
pub(super) fn watch(inner: &Arc<Inner>, scope: Scope, options: &WatchOptions) -> BoxStream<'static, io::Result<Bytes>> {
    let mut ready = VecDeque::new();
    let changed = inner.changed.subscribe();
    let interrupted = inner.faults.interruptions();
    let version = inner.read(|store| match options.version {
        Some(version) if version > 0 && !options.initial => version,
        _ => {
            let all = store.all(scope.kind.name, scope.namespace.as_deref());
            let all = all.filter(|(_, object)| scope.selector.matches(object));
            ready.extend(all.map(|(_, object)| event("ADDED", &scope.view(object))));
            if options.initial {
                ready.push_back(bookmark(&scope, store.version(), true));
            }
            store.version()
        }
    });
    let now = Instant::now();
    let watch = Watch {
        inner: Arc::clone(inner),
        scope,
        version,
        ready,
        changed,
        interrupted,
        bookmarks: options.bookmarks,
        bookmarked: version,
        next_bookmark: now + BOOKMARKS,
        end: now + options.timeout.unwrap_or(LIFETIME),
        over: false,
    };
    stream::unfold(watch, |mut watch| async move {
        let event = watch.next().await?;
        Some((Ok(Bytes::from(format!("{event}\n"))), watch))
    })
    .boxed()
}

impl Watch {
    async fn next(&mut self) -> Option<Value> {
        loop {
            if self.interrupted.has_changed().unwrap_or(true) {
                return None;
            }
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.over {
                return None;
            }
            self.changed.mark_unchanged();
            self.collect();
            if !self.ready.is_empty() {
                continue;
            }
            tokio::select! {
                biased;
                _ = self.interrupted.changed() => return None,
                changed = self.changed.changed() => if changed.is_err() { return None },
                () = sleep_until(self.end) => {
                    self.over = true;
                    if self.bookmarks {
                        self.ready.push_back(bookmark(&self.scope, self.version, false));
                    }
                }
                () = sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.next_bookmark += BOOKMARKS;
                    if self.bookmarked != self.version {
                        self.bookmarked = self.version;
                        self.ready.push_back(bookmark(&self.scope, self.version, false));
                    }
                }
            }
        }
    }

    /// Takes over what has changed since the last time.
    fn collect(&mut self) {
        let (inner, scope, ready) = (&self.inner, &self.scope, &mut self.ready);
        let result = inner.read(|store| {
            let changes = store.since(self.version)?;
            ready.extend(changes.filter_map(|change| seen(scope, change)));
            Ok::<_, u64>(store.version())
        });
        match result {
            Ok(version) => self.version = version,
            Err(kept) => {
                self.over = true;
                ready.push_back(event("ERROR", &Refusal::expired(self.version, kept).status()));
            }
        }
    }
}

/// How a change looks through a scope: what comes into it was added, what leaves it was deleted.
fn seen(scope: &Scope, change: &Change) -> Option<Value> {
    let before = change.before.as_ref().is_some_and(|object| scope.holds(&change.key, object));
    let after = !change.removed && scope.holds(&change.key, &change.after);
    let kind = match (before, after) {
        (false, true) => "ADDED",
        (true, true) => "MODIFIED",
        (true, false) => "DELETED",
        (false, false) => return None,
    };
    Some(event(kind, &scope.view(&change.after)))
}

fn event(kind: &str, object: &Value) -> Value {
    json!({"type": kind, "object": object})
}

fn bookmark(scope: &Scope, version: u64, initial: bool) -> Value {
    let mut metadata = json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
    if initial {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    let mut object = json!({"kind": scope.kind.name, "apiVersion": scope.kind.api_version(), "metadata": metadata});
    if scope.metadata_only {
        object = partial(&object);
    }
    event("BOOKMARK", &object)
}

/// The version that a query names.
pub(super) fn version_of(query: &str) -> Result<Option<u64>, Refusal> {
    if query.is_empty() {
        return Ok(None);
    }
    query.parse().map(Some).map_err(|_| Refusal::bad_request(format!("invalid resource version: {query:?}")))
}
