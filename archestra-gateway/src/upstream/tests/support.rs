//! Entries, installations, secrets and callers for tests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use archestra_core::catalog::{Entry, Scope};
use archestra_core::credential::CredentialPlan;
use archestra_core::id::{EntryId, InstallationId};
use archestra_core::installation::{Installation, InstallationState, Owner};
use archestra_core::runtime::Runtime;
use archestra_core::secret::{Accepts, Expect, SecretBundle, SecretRef, SecretStore, SecretVersion, StoredBundle};
use archestra_core::{Error, Result};
use async_trait::async_trait;
use bytes::Bytes;
use chrono::Utc;
use futures::StreamExt;
use http::HeaderMap;
use http_body_util::BodyExt;
use rustls::crypto::aws_lc_rs;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::mcp::envelope::{self, Message};
use crate::mcp::version::Era;
use crate::upstream::client::{HttpClient, PoolOptions};
use crate::upstream::dial::{ClientTls, DialOptions, DialPolicy, Dialer};
use crate::upstream::{
    Answer, Cancel, Exchange, Target, Turn, UpstreamError, UpstreamOptions, UpstreamParts, Upstreams,
};

pub(super) fn client(policy: DialPolicy) -> HttpClient {
    drop(aws_lc_rs::default_provider().install_default());
    let tls = ClientTls::new(std::iter::empty::<&[u8]>()).unwrap();
    HttpClient::new(Dialer::new(DialOptions::new(policy, tls)), PoolOptions::default())
}

/// Options under which a single doubt is acted on at once.
pub(super) fn options() -> UpstreamOptions {
    UpstreamOptions { reprobe_after: Duration::ZERO, ..UpstreamOptions::default() }
}

pub(super) fn upstreams_with(
    options: UpstreamOptions,
    runtime: Option<Arc<dyn Runtime>>,
    secrets: Arc<Secrets>,
) -> Upstreams {
    Upstreams::new(UpstreamParts { client: client(DialPolicy::loopback()), runtime, secrets, options })
}

pub(super) fn upstreams() -> Upstreams {
    upstreams_with(options(), None, Arc::default())
}

pub(super) fn entry(spec: Value) -> Entry {
    Entry {
        id: EntryId::new(),
        spec: serde_json::from_value(spec).unwrap(),
        scope: Scope::Organization,
        author: None,
        secrets: None,
        apply_set: None,
        given_yaml: None,
        saved_by_admin: true,
        created_at: Utc::now(),
        updated_at: Utc::now(),
    }
}

pub(super) fn installation(entry: &Entry) -> Installation {
    Installation {
        id: InstallationId::new(),
        entry: entry.id,
        owner: Owner::Organization,
        values: BTreeMap::new(),
        secret_fields: std::collections::BTreeSet::new(),
        secrets: None,
        state: InstallationState::Ready,
        reinstall_required: None,
        credential: None,
        workload: None,
        tools: BTreeMap::new(),
        author: None,
        apply_set: None,
        created_at: Utc::now(),
        updated_at: Utc::now(),
    }
}

pub(super) fn target_of(spec: Value) -> Arc<Target> {
    let entry = entry(spec);
    let installation = installation(&entry);
    Arc::new(Target::new(Arc::new(entry), Arc::new(installation)))
}

pub(super) fn remote(url: &str) -> Arc<Target> {
    target_of(json!({ "name": "tracker", "remote": { "url": url } }))
}

const MODERN_META: &str =
    r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}"#;

pub(super) fn modern_call(id: &str, more_meta: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"t__echo","arguments":{{"a":1}},"_meta":{{{MODERN_META}{more_meta}}}}}}}"#
    )
}

pub(super) fn legacy_call(id: &str, meta: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"t__echo","arguments":{{"a":1}}{meta}}}}}"#
    )
}

/// A caller, with what it may vary.
pub(super) struct Caller {
    pub(super) era: Era,
    pub(super) body: Bytes,
    pub(super) plan: CredentialPlan,
    pub(super) forwarded: HeaderMap,
    pub(super) within: Duration,
    pub(super) session: Option<u128>,
    pub(super) cancel: CancellationToken,
}

impl Caller {
    pub(super) fn modern(body: impl Into<Bytes>) -> Self {
        Self {
            era: Era::Modern,
            body: body.into(),
            plan: CredentialPlan::None,
            forwarded: HeaderMap::new(),
            within: Duration::from_secs(10),
            session: None,
            cancel: CancellationToken::new(),
        }
    }

    pub(super) fn legacy(body: impl Into<Bytes>) -> Self {
        Self { era: Era::Legacy, ..Self::modern(body) }
    }

    pub(super) fn with(self, plan: CredentialPlan) -> Self {
        Self { plan, ..self }
    }

    pub(super) fn within(self, within: Duration) -> Self {
        Self { within, ..self }
    }

    pub(super) async fn call(&self, upstreams: &Upstreams, target: &Arc<Target>) -> Result<Answer, UpstreamError> {
        let Ok(Message::Request(request)) = envelope::parse(&self.body) else { panic!("{:?}", self.body) };
        let exchange = Exchange {
            body: &self.body,
            request: &request,
            caller_era: self.era,
            name: Some("echo"),
            log_level: None,
            plan: &self.plan,
            principal: None,
            turn: self.session.map(Turn::Session),
            forwarded: self.forwarded.clone(),
            traceparent: None,
            deadline: Instant::now() + self.within,
            cancel: Cancel::By(&self.cancel),
        };
        upstreams.call(target, exchange).await
    }

    /// The messages of the answer.
    pub(super) async fn messages(
        &self,
        upstreams: &Upstreams,
        target: &Arc<Target>,
    ) -> Result<Vec<Value>, UpstreamError> {
        collect(self.call(upstreams, target).await?).await
    }

    /// The only message of the answer.
    pub(super) async fn message(&self, upstreams: &Upstreams, target: &Arc<Target>) -> Value {
        let mut messages = self.messages(upstreams, target).await.unwrap();
        assert_eq!(messages.len(), 1, "{messages:?}");
        messages.remove(0)
    }
}

pub(super) async fn collect(answer: Answer) -> Result<Vec<Value>, UpstreamError> {
    match answer {
        Answer::Message(message) => Ok(vec![serde_json::from_slice(&message).unwrap()]),
        Answer::Body { body, .. } => {
            Ok(vec![serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap()])
        }
        Answer::Stream(stream) => {
            let messages: Vec<_> = stream.collect().await;
            messages.into_iter().map(|message| Ok(serde_json::from_slice(&message?).unwrap())).collect()
        }
    }
}

/// A secret store that counts how often it is read, and can fail.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    bundles: Mutex<BTreeMap<String, SecretBundle>>,
    pub(super) reads: AtomicUsize,
    pub(super) down: std::sync::atomic::AtomicBool,
    /// Whether the values are said to be kept elsewhere.
    pub(super) refers: std::sync::atomic::AtomicBool,
    /// Whether an answer waits until `go` is told.
    pub(super) slow: std::sync::atomic::AtomicBool,
    pub(super) go: tokio::sync::Notify,
}

impl Secrets {
    pub(super) fn with(reference: &str, bundle: &[(&str, &str)]) -> Arc<Self> {
        let secrets = Arc::new(Self::default());
        secrets.set(reference, bundle);
        secrets
    }

    pub(super) fn set(&self, reference: &str, bundle: &[(&str, &str)]) {
        self.bundles.lock().unwrap().insert(reference.to_owned(), bundle.iter().copied().collect());
    }
}

#[async_trait]
impl SecretStore for Secrets {
    async fn get(&self, reference: &SecretRef) -> Result<StoredBundle> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if self.slow.load(Ordering::SeqCst) {
            self.go.notified().await;
        }
        if self.down.load(Ordering::SeqCst) {
            return Err(Error::unavailable("the vault", "sealed"));
        }
        let bundle = self.bundles.lock().unwrap().get(reference.as_str()).cloned();
        let bundle = bundle.ok_or_else(|| Error::not_found("secret", reference))?;
        Ok(StoredBundle { bundle, version: SecretVersion(1) })
    }

    async fn put(&self, _: &SecretRef, _: &SecretBundle, _: Expect) -> Result<SecretVersion> {
        Err(Error::Unsupported { backend: "this store", operation: "write" })
    }

    async fn remove(&self, _: &SecretRef) -> Result<()> {
        Ok(())
    }

    async fn list(&self, _: &str) -> Result<Vec<SecretRef>> {
        Ok(Vec::new())
    }

    async fn check(&self) -> Result<()> {
        Ok(())
    }

    fn accepts(&self) -> Accepts {
        if self.refers.load(Ordering::SeqCst) { Accepts::References } else { Accepts::Values }
    }
}
