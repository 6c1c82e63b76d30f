//! Writers who note what they were told is done, and the look at whether it is.

use archestra_tests::{
    Answer, Api, Mcp, Running,
    upstream::{Upstream, token},
};
use http::Method;
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::sleep;

/// How long a writer waits who was refused.
const PAUSE: Duration = Duration::from_millis(50);

/// What was acknowledged.
#[derive(Debug, Default, Clone)]
pub(crate) struct Acknowledged {
    saved: Arc<Mutex<BTreeSet<String>>>,
    installed: Arc<Mutex<BTreeSet<String>>>,
    refused: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Acknowledged {
    /// How many entries were saved.
    pub(crate) fn saved(&self) -> usize {
        self.saved.lock().unwrap().len()
    }

    /// The servers that were installed.
    pub(crate) fn installed(&self) -> BTreeSet<String> {
        self.installed.lock().unwrap().clone()
    }

    /// What was said where something was refused, and how often.
    pub(crate) fn refused(&self) -> BTreeMap<String, usize> {
        self.refused.lock().unwrap().clone()
    }

    /// Makes sure that every entry is there of which it was said that it is saved.
    pub(crate) async fn all_there(&self, binary: &Running) {
        let mut missing = self.saved.lock().unwrap().clone();
        let mut path = "/api/v1/entries?limit=1000".to_owned();
        loop {
            let page = binary.api().get(&path).await.ok();
            for item in page["items"].as_array().unwrap() {
                missing.remove(item["name"].as_str().unwrap());
            }
            let Some(next) = page["nextCursor"].as_str() else { break };
            path = format!("/api/v1/entries?limit=1000&cursor={next}");
        }
        assert!(missing.is_empty(), "{missing:?}");
    }
}

/// Saves entries until nobody answers.
pub(crate) async fn save(api: Api, name: String, done: Acknowledged) {
    for n in 0.. {
        let name = format!("{name}-{n}");
        let entry = json!({ "name": name, "scope": "organization", "remote": { "url": "http://127.0.0.1:9/mcp" } });
        let Some(answer) = api.try_send(Method::POST, "/api/v1/entries", Some(&entry)).await else { return };
        assert!((200..300).contains(&answer.status), "{} {}", answer.status, answer.text());
        done.saved.lock().unwrap().insert(name);
    }
}

/// Saves entries with a secret of their own and installs them with another one, until nobody answers. What is refused says that
/// the database is away.
pub(crate) async fn install(api: Api, upstream: Arc<Upstream>, name: String, done: Acknowledged) {
    for n in 0.. {
        let name = format!("{name}-{n}");
        let values = json!({ "token": token(&name) });
        let installation = json!({ "entry": name, "scope": "organization", "values": values });
        for (path, what, noted) in [
            ("/api/v1/entries", upstream.keyed(&name), &done.saved),
            ("/api/v1/installations", installation, &done.installed),
        ] {
            let Some(answer) = api.try_send(Method::POST, path, Some(&what)).await else { return };
            if !(200..300).contains(&answer.status) {
                let said = refusal(&answer);
                *done.refused.lock().unwrap().entry(said).or_default() += 1;
                sleep(PAUSE).await;
                break;
            }
            noted.lock().unwrap().insert(name.clone());
        }
    }
}

/// What is said where nothing could be done, in words that say why and without anything secret.
pub(crate) fn refusal(answer: &Answer) -> String {
    let text = answer.text();
    assert!(matches!(answer.status, 502..=504), "{} {text}", answer.status);
    let told = ["database", "took longer", "credentials cannot be checked right now"];
    assert!(told.iter().any(|told| text.contains(told)), "{text}");
    assert!(!text.contains("canary"), "{text}");
    format!("{} {}", answer.status, answer.json()["detail"].as_str().unwrap_or_default())
}

/// A call of the server `name`, which is sent its own credentials, or is not made; then what is said.
pub(crate) async fn call(gateway: &Mcp, name: &str) -> Result<(), String> {
    let answer = gateway.modern("tools/call", json!({ "name": format!("{name}__echo"), "arguments": {} })).await;
    let text = answer.text();
    if answer.status == 200 && text.contains(&format!("\"{}\"", Upstream::told(name))) {
        return Ok(());
    }
    assert!(!text.contains("Bearer"), "{name} was sent something else: {text}");
    Err(format!("{} {text}", answer.status))
}
