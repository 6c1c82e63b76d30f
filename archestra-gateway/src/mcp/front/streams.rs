//! Long streams that tell clients of changed tool lists: `subscriptions/listen` (modern) and GET (legacy).

use super::{
    McpBody, Visit,
    answer::{Reply, events, later, rpc_error},
    legacy::resume,
};
use crate::{
    auth::Place,
    mcp::{
        envelope::Request,
        error::{ErrorKind, RpcError},
        sse,
        version::{Era, meta},
    },
    platform::Shared,
};
use archestra_core::{id::ConsumerId, identity::TokenHash};
use bytes::Bytes;
use futures::Stream;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::Instant,
};

/// How often it is checked that the client may still listen.
const RECHECK: Duration = Duration::from_secs(2);
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A `subscriptions/listen` request: acknowledged first, then a notification for each change, then a result at our end.
pub(super) fn modern(shared: &Arc<Shared>, visit: &Visit, request: &Request<'_>) -> Result<Reply, Reply> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Params {
        notifications: Wanted,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Wanted {
        tools_list_changed: bool,
    }
    let params: Params = request.params.raw.and_then(|raw| serde_json::from_str(raw.as_str()).ok()).unwrap_or_default();
    let wanted = params.notifications.tools_list_changed;
    let accepted = if wanted { serde_json::json!({ "toolsListChanged": true }) } else { serde_json::json!({}) };
    let id = request.id.as_str();
    let tagged = format!("{{\"{}\":{id}}}", meta::SUBSCRIPTION_ID);
    let first = format!(
        "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/subscriptions/acknowledged\",\"params\":{{\"_meta\":{tagged},\"notifications\":{accepted}}}}}"
    );
    let changed = format!(
        "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\",\"params\":{{\"_meta\":{tagged}}}}}"
    );
    let last =
        format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"resultType\":\"complete\",\"_meta\":{tagged}}}}}");
    let script =
        Script { first: Some(encode(&first)), changed: wanted.then(|| encode(&changed)), last: Some(encode(&last)) };
    let place = visit.who.usage.stream().map_err(|bound| {
        rpc_error(&RpcError::new(ErrorKind::TooManyRequests, too_many(bound)), Some(request.id), Era::Modern)
    })?;
    start(shared, visit, script, place)
}

/// The GET stream of a legacy session.
pub(super) fn legacy(shared: &Arc<Shared>, visit: &Visit, headers: &HeaderMap) -> Result<Reply, Reply> {
    let accepts = headers.get_all(header::ACCEPT).iter();
    let accepts = accepts
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("text/event-stream") || value.contains("*/*"));
    if !accepts || resume(shared, visit, headers)?.is_none() {
        return Err(super::answer::method_not_allowed());
    }
    let changed = encode("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}");
    let place = visit
        .who
        .usage
        .stream()
        .map_err(|bound| later(StatusCode::TOO_MANY_REQUESTS, &too_many(bound), Duration::from_secs(1)))?;
    start(shared, visit, Script { first: None, changed: Some(changed), last: None }, place)
}

/// What a stream says.
struct Script {
    first: Option<Bytes>,
    changed: Option<Bytes>,
    last: Option<Bytes>,
}

struct Listener {
    shared: Arc<Shared>,
    credential: TokenHash,
    consumer: ConsumerId,
    versions: watch::Receiver<u64>,
    script: Script,
    spoke: Instant,
    checked: Instant,
    ended: bool,
    _slot: OwnedSemaphorePermit,
    _place: Place,
}

fn too_many(bound: usize) -> String {
    format!("you listen on {bound} streams, which is as many as a caller may: close one first")
}

fn start(shared: &Arc<Shared>, visit: &Visit, script: Script, place: Place) -> Result<Reply, Reply> {
    let Ok(slot) = Arc::clone(&shared.listeners).try_acquire_owned() else {
        let detail = "too many clients are listening: try again later";
        return Err(later(StatusCode::SERVICE_UNAVAILABLE, detail, Duration::from_secs(1)));
    };
    let now = Instant::now();
    let listener = Listener {
        shared: Arc::clone(shared),
        consumer: visit.consumer.consumer.id,
        versions: visit.consumer.changed.subscribe(),
        credential: visit.who.credential,
        script,
        spoke: now,
        checked: now,
        ended: false,
        _slot: slot,
        _place: place,
    };
    Ok(events(McpBody::events(listener.into_stream())))
}

impl Listener {
    fn into_stream(self) -> impl Stream<Item = Bytes> + Send + 'static {
        futures::stream::unfold(self, async |mut listener| listener.next().await.map(|event| (event, listener)))
    }

    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.script.first.take() {
            return Some(first);
        }
        let stop = self.shared.stop.clone();
        loop {
            if self.ended {
                return None;
            }
            let wake = (self.spoke + KEEP_ALIVE).min(self.checked + RECHECK);
            tokio::select! {
                () = stop.cancelled() => {
                    self.ended = true;
                    return self.script.last.take();
                }
                changed = self.versions.changed() => {
                    self.ended = changed.is_err();
                    if let (Ok(()), Some(event)) = (changed, &self.script.changed) {
                        self.spoke = Instant::now();
                        return Some(event.clone());
                    }
                }
                () = tokio::time::sleep_until(wake) => {
                    if !self.still_admitted().await {
                        self.ended = true;
                        return self.script.last.take();
                    }
                    self.checked = Instant::now();
                    if self.spoke + KEEP_ALIVE <= self.checked {
                        self.spoke = self.checked;
                        return Some(sse::KEEP_ALIVE);
                    }
                }
            }
        }
    }

    /// Whether a revoked token, a smaller scope or a removed consumer ends the stream.
    async fn still_admitted(&self) -> bool {
        let Ok(principal) = self.shared.authenticator.principal(self.credential).await else { return false };
        let snapshot = self.shared.routes.load();
        snapshot.consumer_by_id(self.consumer).is_some_and(|route| route.admits(&principal))
    }
}

fn encode(message: &str) -> Bytes {
    sse::encode_message(message.as_bytes(), None)
}
