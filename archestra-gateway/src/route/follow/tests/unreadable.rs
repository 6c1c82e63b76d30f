//! A catalog in which something cannot be read: everything else is followed, unless what is missing is what forbids.

use crate::{
    observe::Meters,
    route::{Follower, Freshness, Names, RouteParts, Routes, Source},
    upstream::{
        UpstreamOptions, UpstreamParts, Upstreams,
        client::{HttpClient, PoolOptions},
        dial::{ClientTls, DialOptions, DialPolicy, Dialer},
    },
};
use archestra_core::{
    catalog::{CatalogChanges, CatalogStore, RecordKey},
    consumer::{Consumer, CredentialChoice},
    installation::{InstallationState, Owner},
    secret::Expect,
    testing::{Faults, Faulty, MemoryCatalog, MemorySecrets, fixtures},
};
use rustls::crypto::aws_lc_rs;
use std::{sync::Arc, time::Duration};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

struct Rig {
    catalog: Arc<Faulty<MemoryCatalog>>,
    routes: Arc<Routes>,
    freshness: Arc<Freshness>,
    meters: Meters,
    following: JoinHandle<()>,
    consumer: Consumer,
    keys: Vec<RecordKey>,
}

impl Rig {
    /// A gateway with two tools of two entries, and a rule; this is there before anybody follows, with what `before` does.
    async fn new(before: impl FnOnce(&Faults, &[RecordKey])) -> Self {
        let catalog = Arc::new(Faulty::new(Arc::new(MemoryCatalog::new())));
        let consumer = fixtures::gateway("main");
        let mut changes = CatalogChanges::new().create(consumer.clone());
        let mut keys = Vec::new();
        for name in ["one", "two"] {
            let entry = fixtures::remote_entry(name);
            let tool = fixtures::tool(&entry, "echo");
            let mut installation = fixtures::installation(&entry, Owner::Organization);
            installation.state = InstallationState::Ready;
            installation.tools = [(tool.name.clone(), tool.hash)].into();
            let mut assignment = fixtures::assignment(&consumer, &entry, &tool);
            assignment.credential = CredentialChoice::ResolveAtCallTime;
            keys.extend([RecordKey::from(entry.id), installation.id.into(), tool.id.into(), assignment.id.into()]);
            changes = changes.create(entry).create(installation).create(tool).create(assignment);
        }
        let rule = fixtures::policy("rule");
        keys.extend([RecordKey::from(consumer.id), rule.id.into()]);
        catalog.commit(changes.create(rule)).await.unwrap();
        before(&catalog.faults(), &keys);
        let (routes, freshness, meters) =
            (Arc::new(Routes::default()), Arc::new(Freshness::new(Duration::from_secs(5))), Meters::new());
        let store: Arc<dyn CatalogStore> = Arc::<Faulty<MemoryCatalog>>::clone(&catalog);
        let follower = Follower {
            catalog: store,
            routes: Arc::clone(&routes),
            names: Arc::new(Names::default()),
            freshness: Arc::clone(&freshness),
            upstreams: upstreams(),
            parts: RouteParts {
                meters: meters.clone(),
                server_info: "{}".into(),
                call_timeout: Duration::from_secs(60),
            },
        };
        let following = tokio::spawn(follower.run(CancellationToken::new()));
        Self { catalog, routes, freshness, meters, following, consumer, keys }
    }

    /// Writes records as they are, so that they are followed once more.
    async fn touch(&self, keys: &[RecordKey]) {
        for key in keys {
            let record = self.catalog.inner().get(*key).await.unwrap().value;
            self.catalog.commit(CatalogChanges::new().put(record, Expect::Any)).await.unwrap();
        }
        sleep(Duration::from_secs(3)).await;
    }

    /// The tools that can be called; `None` where the consumer is not found.
    fn callable(&self) -> Option<usize> {
        let snapshot = self.routes.load();
        let route = snapshot.consumer_by_id(self.consumer.id)?;
        Some(route.tools.values().filter(|tool| !tool.candidates.is_empty()).count())
    }

    /// Whether calls are served, and how many records they are served without.
    fn served(&self) -> (bool, usize) {
        self.freshness.confirm(Source::Identity, Instant::now());
        let metrics = self.meters.render();
        let line = metrics.lines().find(|line| line.starts_with("catalog_records_unreadable ")).unwrap();
        (self.freshness.check().is_ok(), line.rsplit_once(' ').unwrap().1.parse().unwrap())
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.following.abort();
    }
}

fn upstreams() -> Upstreams {
    drop(aws_lc_rs::default_provider().install_default());
    let tls = ClientTls::new(std::iter::empty::<&[u8]>()).unwrap();
    Upstreams::new(UpstreamParts {
        client: HttpClient::new(Dialer::new(DialOptions::new(DialPolicy::loopback(), tls)), PoolOptions::default()),
        runtime: None,
        secrets: Arc::new(MemorySecrets::new()),
        options: UpstreamOptions::default(),
    })
}

#[tokio::test(start_paused = true)]
async fn calls_are_served_without_what_cannot_be_read() {
    // Of the first entry: itself, its installation, its tool, its assignment.
    for n in 0..4 {
        for is_there_before in [true, false] {
            let rig = Rig::new(|faults, keys| {
                if is_there_before {
                    faults.spoil(keys[n]);
                }
            })
            .await;
            sleep(Duration::from_secs(3)).await;
            if !is_there_before {
                assert_eq!((rig.callable(), rig.served()), (Some(2), (true, 0)));
                rig.catalog.faults().spoil(rig.keys[n]);
                rig.touch(&rig.keys[n..=n]).await;
            }
            assert_eq!((rig.callable(), rig.served()), (Some(1), (true, 1)), "{}", rig.keys[n]);
            // What comes afterwards is followed: the other entry goes the same way.
            rig.catalog.faults().spoil(rig.keys[n + 4]);
            rig.touch(&rig.keys[n + 4..=n + 4]).await;
            assert_eq!((rig.callable(), rig.served()), (Some(0), (true, 2)));
            rig.catalog.faults().heal();
            rig.touch(&[rig.keys[n], rig.keys[n + 4]]).await;
            assert_eq!((rig.callable(), rig.served()), (Some(2), (true, 0)));
        }
    }
    let rig = Rig::new(|faults, keys| faults.spoil(keys[8])).await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!((rig.callable(), rig.served()), (None, (true, 1)), "a consumer is not found");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_served_without_a_rule_that_cannot_be_read() {
    for is_there_before in [true, false] {
        let rig = Rig::new(|faults, keys| {
            if is_there_before {
                faults.spoil(keys[9]);
            }
        })
        .await;
        sleep(Duration::from_secs(3)).await;
        if !is_there_before {
            assert_eq!(rig.served(), (true, 0));
            rig.catalog.faults().spoil(rig.keys[9]);
            rig.touch(&rig.keys[9..]).await;
            sleep(Duration::from_secs(10)).await;
        }
        assert!(!rig.served().0);
        rig.catalog.commit(CatalogChanges::new().delete(rig.keys[9], Expect::Any)).await.unwrap();
        sleep(Duration::from_secs(3)).await;
        assert_eq!((rig.callable(), rig.served()), (Some(2), (true, 0)), "it is gone");
    }
}
