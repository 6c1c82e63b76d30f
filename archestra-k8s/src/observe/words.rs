//! The last words of containers that ended: fetched once, few, and without the secrets the server was given.

use super::{Observer, derive::Ended};
use crate::{error, logs::is_protocol};
use archestra_core::{
    runtime::WorkloadId,
    secret::{SecretValue, redact},
};
use futures::stream::{FuturesUnordered, StreamExt};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{Api, Client, api::LogParams};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

/// How many requests may wait.
pub(super) const WAITING: usize = 64;
/// How many logs are read at the same time.
const AT_ONCE: usize = 4;
const LIMIT: Duration = Duration::from_secs(10);
const READ_LINES: i64 = 40;
const READ_BYTES: i64 = 64 * 1024;
const SHOWN_LINES: usize = 3;
const SHOWN_BYTES: usize = 600;

/// Whose last words are wanted.
#[derive(Debug)]
pub(super) struct Request {
    /// Of which workload.
    pub(super) workload: WorkloadId,
    /// Which container.
    pub(super) ended: Ended,
    /// Whether its standard output is the protocol.
    pub(super) speaks: bool,
    /// The Secrets that its pod reads.
    pub(super) secrets: BTreeSet<String>,
}

/// Fetches until `stop`.
pub(super) async fn run(
    observer: Arc<Observer>,
    client: Client,
    mut requests: mpsc::Receiver<Request>,
    stop: CancellationToken,
) {
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(request) = requests.recv(), if under_way.len() < AT_ONCE => {
                under_way.push(fetch(&client, &observer.namespace, request));
            }
            Some((ended, words)) = under_way.next(), if !under_way.is_empty() => {
                observer.change(|store| store.note_words(&ended, words));
            }
        }
    }
}

async fn fetch(client: &Client, namespace: &str, request: Request) -> (Ended, Option<String>) {
    let Request { workload, ended, speaks, secrets: names } = request;
    let read = async {
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let params = LogParams {
            container: Some(ended.container.clone()),
            previous: ended.previous,
            tail_lines: Some(READ_LINES),
            limit_bytes: Some(READ_BYTES),
            ..LogParams::default()
        };
        let log = pods.logs(&ended.pod, &params).await?;
        // What it was given is not known here, and without that its words are not fit to be shown.
        let mut given = Vec::new();
        for name in &names {
            given.extend(secrets.get_opt(name).await?.map(values).unwrap_or_default());
        }
        Ok::<_, kube::Error>(shown(&log, &given, speaks))
    };
    let words = match timeout(LIMIT, read).await {
        Ok(Ok(words)) => Some(words),
        Ok(Err(error)) => {
            // What a parser says of a Secret may quote it, which this does not.
            let error = error::from_kube("reading the last words of a container", error);
            tracing::debug!(%workload, %error, "they are not told");
            None
        }
        Err(_) => None,
    };
    (ended, words)
}

fn values(secret: Secret) -> Vec<SecretValue> {
    let data = secret.data.unwrap_or_default();
    data.into_values().filter_map(|value| String::from_utf8(value.0).ok()).map(SecretValue::new).collect()
}

/// The last lines that say something, in one.
fn shown(log: &str, secrets: &[SecretValue], speaks: bool) -> String {
    let lines = log.lines().rev().map(str::trim_end).filter(|line| !line.trim().is_empty());
    let mut lines: Vec<_> = lines.filter(|line| !speaks || !is_protocol(line)).take(SHOWN_LINES).collect();
    lines.reverse();
    // Half a secret would not be found any more, so the text is cut afterwards.
    let mut text = redact(lines.join(" ⏎ "), secrets);
    text.truncate(text.floor_char_boundary(SHOWN_BYTES));
    text
}

#[cfg(test)]
mod tests {
    use super::shown;
    use archestra_core::secret::SecretValue;

    #[test]
    fn the_last_lines_are_shown_without_protocol() {
        let log = "one\ntwo\n\n{\"jsonrpc\":\"2.0\",\"id\":1}\nthree\nfour\n";
        assert_eq!(shown(log, &[], true), "two ⏎ three ⏎ four");
        assert_eq!(shown(log, &[], false), "{\"jsonrpc\":\"2.0\",\"id\":1} ⏎ three ⏎ four");
        assert_eq!(shown("", &[], false), "");
    }

    #[test]
    fn no_secret_is_shown() {
        let secrets = ["hunter2", "-----BEGIN-----\n  c2VjcmV0\n}\n", "hunter22", " "].map(SecretValue::new);
        assert_eq!(shown("with hunter2 and hunter22, {}", &secrets, false), "with <redacted> and <redacted>, {}");
        assert_eq!(shown("-----BEGIN-----\nc2VjcmV0\n}", &secrets, false), "<redacted> ⏎ <redacted> ⏎ }");
    }
}
