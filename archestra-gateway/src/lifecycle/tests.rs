//! Tests of the lifecycle on in-memory backends.

mod consumers;
mod crossing;
mod doubt;
mod entries;
mod fakes;
mod faults;
mod following;
mod installing;
mod reconciling;
mod references;
mod reinstalling;
mod removing;

use super::*;
use archestra_core::{
    catalog::{Kind, Scope},
    consumer::{Assignment, Consumer, ToolAssignment},
    id::{ConsumerId, UserId},
    installation::{InstallationState, Owner},
    secret::SecretValue,
    testing::{MemoryCatalog, MemorySecrets, fixtures},
    tool::Tool,
};
use fakes::{FakeDiscover, FakeRuntime};
use std::{collections::BTreeMap, time::Duration};

/// A lifecycle and everything behind it.
#[derive(Debug)]
struct Rig {
    lifecycle: Lifecycle,
    catalog: MemoryCatalog,
    secrets: MemorySecrets,
    runtime: FakeRuntime,
    discover: FakeDiscover,
}

impl Rig {
    fn new() -> Self {
        Self::on(MemoryCatalog::new(), MemorySecrets::new(), LifecycleOptions::default())
    }

    fn on(catalog: MemoryCatalog, secrets: MemorySecrets, options: LifecycleOptions) -> Self {
        let (runtime, discover) = (FakeRuntime::default(), FakeDiscover::default());
        discover.serve(&["echo", "add"]);
        let parts = LifecycleParts {
            catalog: Arc::new(catalog.clone()),
            secrets: Arc::new(secrets.clone()),
            runtime: Some(Arc::new(runtime.clone())),
            discover: Arc::new(discover.clone()),
            options,
        };
        Self { lifecycle: Lifecycle::new(parts), catalog, secrets, runtime, discover }
    }

    /// The same stores under a platform that has just been started, with nothing running.
    fn restarted(&self) -> Self {
        Self::on(self.catalog.clone(), self.secrets.clone(), LifecycleOptions::default())
    }

    async fn save(&self, spec: EntrySpec) -> Versioned<Entry> {
        self.lifecycle.save_entry(None, draft(spec), Expect::Any).await.unwrap()
    }

    async fn resave(&self, entry: &Versioned<Entry>, change: impl FnOnce(&mut EntrySpec)) -> Versioned<Entry> {
        let mut spec = self.lifecycle.entry(entry.value.id).await.unwrap().value.spec;
        change(&mut spec);
        self.lifecycle.save_entry(Some(entry.value.id), draft(spec), Expect::Any).await.unwrap()
    }

    async fn install(
        &self,
        entry: &Versioned<Entry>,
        owner: Owner,
        values: &[(&str, &str)],
    ) -> Result<Versioned<Installation>> {
        self.lifecycle.install(request(entry, owner, values)).await
    }

    async fn ready(&self, id: InstallationId) -> Installation {
        self.until(id, |installation| installation.state == InstallationState::Ready).await
    }

    async fn until(&self, id: InstallationId, reached: impl Fn(&Installation) -> bool) -> Installation {
        for _ in 0..10_000 {
            let installation = self.lifecycle.installation(id).await.unwrap().value;
            if reached(&installation) {
                return installation;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("never reached: {:?}", self.lifecycle.installation(id).await);
    }

    /// Waits until nothing is under way in the background.
    async fn quiet(&self) {
        while !self.lifecycle.inner.tasks.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn all<T: Document>(&self) -> Vec<T> {
        self.catalog.list_all::<T>(Query::all(T::KIND)).await.unwrap().into_iter().map(|found| found.value).collect()
    }

    async fn references(&self) -> usize {
        self.secrets.list("").await.unwrap().len()
    }

    async fn save_consumer(&self, consumer: Consumer) -> Result<Versioned<Consumer>> {
        self.lifecycle.save_consumer(None, consumer_draft(consumer), Expect::Any).await
    }

    /// The exposed names of a consumer.
    async fn names(&self, consumer: ConsumerId) -> Vec<String> {
        let mut names: Vec<_> = self
            .all::<Assignment>()
            .await
            .into_iter()
            .filter(|one| one.consumer == consumer)
            .map(|one| one.exposed_name.to_string())
            .collect();
        names.sort();
        names
    }

    /// Nothing but the entry is there: no row, no secret but the entry's own, no workload.
    async fn assert_untouched(&self, entry: &Entry) {
        for kind in [Kind::Installation, Kind::Tool, Kind::Assignment, Kind::Revision] {
            let page =
                self.catalog.list(&Query::all(kind), &archestra_core::feed::PageRequest::default()).await.unwrap();
            assert!(page.items.is_empty(), "{kind:?} left behind: {:?}", page.items);
        }
        assert_eq!(self.references().await, usize::from(entry.secrets.is_some()), "secrets left behind");
        assert!(self.runtime.applied().is_empty(), "workloads left behind");
    }
}

fn draft(spec: EntrySpec) -> EntryDraft {
    EntryDraft { spec, scope: Scope::Organization, author: None, apply_set: None, saved_by_admin: true }
}

fn request(entry: &Versioned<Entry>, owner: Owner, values: &[(&str, &str)]) -> InstallRequest {
    let values: BTreeMap<_, _> =
        values.iter().map(|&(name, value)| (name.to_owned(), SecretValue::from(value))).collect();
    InstallRequest { entry: entry.value.id, owner, values, author: None, apply_set: None }
}

fn values(values: &[(&str, &str)]) -> BTreeMap<String, SecretValue> {
    values.iter().map(|&(name, value)| (name.to_owned(), SecretValue::from(value))).collect()
}

fn consumer_draft(consumer: Consumer) -> ConsumerDraft {
    ConsumerDraft {
        kind: consumer.kind,
        spec: consumer.spec,
        scope: consumer.scope,
        tools: consumer.tools,
        identity_provider: None,
        author: None,
        apply_set: None,
        user_teams: std::collections::BTreeSet::new(),
    }
}

fn automatic(slug: &str, key: &str, value: &str) -> Consumer {
    let mut consumer = fixtures::gateway(slug);
    consumer.spec.tool_assignment = ToolAssignment::Automatic;
    consumer.spec.labels.insert(key, value);
    consumer
}

/// A self-hosted server with a fixed secret, a prompted secret that is required, and a prompted plain variable.
fn hosted(name: &str) -> EntrySpec {
    let mut spec = fixtures::self_hosted_entry(name, &["server"]).spec;
    spec.self_hosted = Some(
        serde_json::from_value(serde_json::json!({
            "command": ["server"],
            "args": ["--region=${user_config.REGION}"],
            "env": [
                {"name": "API_KEY", "secret": true, "prompt": true, "required": true},
                {"name": "REGION", "prompt": true, "default": "eu"},
                {"name": "LICENSE", "secret": true, "value": "l1cense"}
            ]
        }))
        .unwrap(),
    );
    spec
}

/// A remote server with a required token.
fn remote(name: &str) -> EntrySpec {
    let mut spec = fixtures::entry_spec(name);
    spec.credential = serde_json::from_value(serde_json::json!({
        "static": [{"name": "token", "header": "Authorization", "prefix": "Bearer ", "required": true}]
    }))
    .unwrap();
    spec
}

fn owner() -> Owner {
    Owner::User(UserId::new())
}
