//! Backends that fail in the middle: whatever step an operation dies at, what is left is whole.

use super::*;
use archestra_core::{
    catalog::FixedValue,
    consumer::{CredentialChoice, ToolSelector},
    runtime::Revision,
    testing::{Faults, Faulty},
};
use std::{collections::BTreeSet, future::Future};

/// More calls than any operation makes.
const STEPS: u64 = 60;

/// A rig whose stores fail on demand, with an entry, an installation and a gateway that is pinned to it.
struct Brittle {
    rig: Rig,
    catalog: Faults,
    secrets: Faults,
    entry: Versioned<Entry>,
    installation: InstallationId,
}

impl Brittle {
    async fn new() -> Self {
        let mut rig = Rig::new();
        let catalog = Faulty::new(Arc::new(rig.catalog.clone()));
        let secrets = Faulty::new(Arc::new(rig.secrets.clone()));
        let (catalog_faults, secret_faults) = (catalog.faults(), secrets.faults());
        rig.lifecycle = Lifecycle::new(LifecycleParts {
            catalog: Arc::new(catalog),
            secrets: Arc::new(secrets),
            runtime: Some(Arc::new(rig.runtime.clone())),
            discover: Arc::new(rig.discover.clone()),
            options: LifecycleOptions {
                sweep_grace: Duration::ZERO,
                resync: Duration::from_secs(5),
                ..LifecycleOptions::default()
            },
        });
        let entry = rig.save(hosted("files")).await;
        let installation = rig.install(&entry, Owner::Organization, &[("API_KEY", "k3y")]).await.unwrap().value.id;
        rig.ready(installation).await;
        let mut gateway = automatic("auto", "a", "b");
        rig.save_consumer(gateway.clone()).await.unwrap();
        gateway = fixtures::gateway("pinned");
        gateway.tools = vec![ToolSelector {
            entry: entry.value.id,
            tool: "*".to_owned(),
            credential: CredentialChoice::Pinned(installation),
        }];
        rig.save_consumer(gateway).await.unwrap();
        rig.quiet().await;
        Self { rig, catalog: catalog_faults, secrets: secret_faults, entry, installation }
    }

    /// Repairs everything, lets the reconciler have its way, and looks.
    async fn check(&self, step: &str) {
        self.catalog.heal();
        self.secrets.heal();
        let stop = CancellationToken::new();
        let lifecycle = self.rig.lifecycle.clone();
        let reconciler = tokio::spawn({
            let stop = stop.clone();
            async move { lifecycle.run(stop).await }
        });
        tokio::time::sleep(Duration::from_secs(12)).await;
        stop.cancel();
        reconciler.await.unwrap();

        let mut named = BTreeSet::new();
        named.extend(self.rig.all::<Entry>().await.into_iter().filter_map(|entry| entry.secrets));
        let mut wanted = BTreeSet::new();
        for installation in self.rig.all::<Installation>().await {
            assert_eq!(installation.state, InstallationState::Ready, "{step}");
            named.extend(installation.secrets);
            wanted.extend(installation.workload);
        }
        let revisions = self.rig.all::<Revision>().await;
        for workload in &wanted {
            let newest = revisions.iter().filter(|one| one.workload == *workload).max_by_key(|one| one.number).unwrap();
            named.extend(newest.secrets.clone());
            let running = self.rig.runtime.applied().into_iter().find(|one| one.id == *workload).unwrap();
            assert_eq!(running.revision, newest.number, "{step}");
        }
        assert!(
            revisions.iter().all(|one| wanted.contains(&one.workload)),
            "{step}: revisions without an installation"
        );
        assert_eq!(self.rig.runtime.applied().len(), wanted.len(), "{step}: workloads that nobody wants");
        let stored: BTreeSet<_> = self.rig.secrets.list("").await.unwrap().into_iter().collect();
        assert_eq!(stored, named, "{step}: secrets that are missing or left over");
    }
}

/// Runs an operation with the catalog, then the secret store, failing after each number of calls, and losing each answer.
async fn everywhere<F: Future<Output = ()>>(name: &str, operation: impl Fn(Arc<Brittle>) -> F) {
    for step in 0..STEPS {
        let mut least = 0;
        for (fault, what) in [(0, "catalog fails"), (1, "secrets fail"), (2, "an answer is lost")] {
            let brittle = Arc::new(Brittle::new().await);
            let before = brittle.catalog.calls() + brittle.secrets.calls();
            match fault {
                0 => brittle.catalog.fail_after(step),
                1 => brittle.secrets.fail_after(step),
                _ => brittle.catalog.lose_answers(step),
            }
            operation(Arc::clone(&brittle)).await;
            least = (brittle.catalog.calls() + brittle.secrets.calls() - before).max(least);
            brittle.check(&format!("{name}: {what} at {step}")).await;
        }
        if least < step {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn installing_is_whole_or_not_at_all() {
    everywhere("install", |brittle| async move {
        drop(brittle.rig.install(&brittle.entry, owner(), &[("API_KEY", "other")]).await);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn saving_is_whole_or_not_at_all() {
    everywhere("save", |brittle| async move {
        let mut spec = hosted("files");
        spec.labels.insert("a", "b");
        let env = &mut spec.self_hosted.as_mut().unwrap().env;
        env[2].value = Some(FixedValue::Secret("n3w".into()));
        drop(brittle.rig.lifecycle.save_entry(Some(brittle.entry.value.id), draft(spec), Expect::Any).await);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn reinstalling_is_whole_or_not_at_all() {
    everywhere("reinstall", |brittle| async move {
        drop(brittle.rig.lifecycle.reinstall(brittle.installation, values(&[("API_KEY", "other")]), None).await);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn removing_is_whole_or_not_at_all() {
    everywhere("remove", |brittle| async move {
        drop(brittle.rig.lifecycle.remove(brittle.installation).await);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn deleting_is_whole_or_not_at_all() {
    everywhere("delete", |brittle| async move {
        drop(brittle.rig.lifecycle.delete_entry(brittle.entry.value.id, Expect::Any, Cascade::Installations).await);
    })
    .await;
}
