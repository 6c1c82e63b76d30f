//! A server that goes away and comes back under load: nothing that was acknowledged is lost, and nobody must be restarted.

use crate::{
    hammer::seconds,
    support::{Fresh, ring},
};
use archestra_core::{
    Error, ErrorKind,
    catalog::{CatalogStore, CatalogStoreExt as _, Entry, Kind, Query, RecordKey},
    feed::{ChangeSet, FeedEvent},
    secret::{Expect, SecretStore as _},
    state::{StateKey, StateStore},
    testing::fixtures,
};
use archestra_store::{SqlSecrets, SqlStore};
use futures::StreamExt as _;
use std::{
    collections::BTreeSet,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// A server of this test's own.
#[derive(Debug)]
struct Server {
    folder: PathBuf,
    url: String,
}

impl Server {
    fn start() -> Self {
        let folder = std::env::temp_dir().join(format!("archestra-pg-{}", uuid::Uuid::now_v7().simple()));
        let printed = run(&folder, &[]);
        let url = printed.trim().rsplit_once("ARCHESTRA_TEST_POSTGRES_URL=").unwrap().1.to_owned();
        Self { folder, url }
    }

    async fn restart(&self, how: &'static str) {
        let folder = self.folder.clone();
        tokio::task::spawn_blocking(move || run(&folder, &["restart", how])).await.unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        run(&self.folder, &["stop"]);
    }
}

fn run(folder: &PathBuf, args: &[&str]) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../.ci/postgres");
    let mut command = Command::new(script);
    let output = command.args(args).env("ARCHESTRA_POSTGRES_DIR", folder).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What writers were told.
#[derive(Debug, Default)]
struct Told {
    done: BTreeSet<RecordKey>,
    /// Those of which it was said that nothing was changed.
    not_done: BTreeSet<RecordKey>,
    unknown: u64,
    refused: u64,
    added: i64,
    secrets: BTreeSet<String>,
}

async fn write(store: SqlStore, secrets: SqlSecrets, n: usize, end: Instant, told: Arc<Mutex<Told>>) {
    let mut round = 0;
    while Instant::now() < end {
        round += 1;
        let entry = fixtures::remote_entry(&format!("{n} {round}"));
        let key = RecordKey::from(entry.id);
        let outcome = CatalogStore::commit(&store, ChangeSet::new().create(entry)).await;
        {
            let mut told = told.lock().unwrap();
            match &outcome {
                Ok(_) => drop(told.done.insert(key)),
                Err(error) => match error.to_string() {
                    text if text.contains("nothing was changed") => drop(told.not_done.insert(key)),
                    text if text.contains("may or may not be there") => told.unknown += 1,
                    // Before the commit there is nothing to doubt.
                    text if error.kind() == ErrorKind::Unavailable && text.contains("database") => {
                        told.refused += 1;
                        told.not_done.insert(key);
                    }
                    text => panic!("{text}: {error:?}"),
                },
            }
        }
        if store.add(&StateKey::new("counter", "one"), 1, Duration::from_secs(3600)).await.is_ok() {
            told.lock().unwrap().added += 1;
        }
        let name = format!("entry/{n}-{round}");
        let put = secrets.put(&fixtures::secret_ref(&name), &fixtures::bundle(&[("k", &name)]), Expect::Absent).await;
        match put {
            Ok(_) => drop(told.lock().unwrap().secrets.insert(name)),
            Err(error) => assert!(matches!(error, Error::Unavailable { .. }), "{error:?}"),
        }
        if outcome.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a PostgreSQL server"]
async fn a_server_restarted_under_load_loses_nothing_that_was_acknowledged() {
    let server = Server::start();
    let fresh = Fresh::on(server.url.clone()).await;
    let (near, far) = (fresh.open().await, fresh.open().await);
    let ring = ring();
    let mut events = CatalogStore::changes(&far, None);
    assert!(matches!(events.next().await.unwrap().unwrap(), FeedEvent::Resync { .. }));
    let told = Arc::new(Mutex::new(Told::default()));
    let duration = seconds(6);
    let end = Instant::now() + duration;
    let mut writers = JoinSet::new();
    for n in 0..8 {
        let store = if n % 2 == 0 { near.clone() } else { far.clone() };
        let secrets = SqlSecrets::new(&store, Arc::clone(&ring));
        writers.spawn(write(store, secrets, n, end, Arc::clone(&told)));
    }
    let followed: Arc<Mutex<BTreeSet<RecordKey>>> = Arc::default();
    let seen = Arc::clone(&followed);
    let following = tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if let Ok(FeedEvent::Changed { keys, .. }) = event {
                seen.lock().unwrap().extend(keys);
            }
        }
    });
    let mut restarts = 0;
    while Instant::now() + Duration::from_secs(1) < end {
        sleep(Duration::from_millis(700)).await;
        server.restart(if restarts % 3 == 2 { "fast" } else { "immediate" }).await;
        restarts += 1;
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    let recovered = Instant::now();
    let last = fixtures::remote_entry("the last one");
    let last_key = RecordKey::from(last.id);
    while let Err(error) = CatalogStore::commit(&near, ChangeSet::new().create(last.clone())).await {
        assert!(recovered.elapsed() < Duration::from_secs(20), "no recovery: {error:?}");
        if error.kind() == ErrorKind::Conflict {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    let told = Arc::try_unwrap(told).unwrap().into_inner().unwrap();
    println!(
        "{restarts} restarts in {duration:?}: {} commits, {} not done ({} refused), {} unknown; recovered in {:?}",
        told.done.len(),
        told.not_done.len(),
        told.refused,
        told.unknown,
        recovered.elapsed()
    );
    let stored: BTreeSet<RecordKey> = near
        .list_all::<Entry>(Query::all(Kind::Entry))
        .await
        .unwrap()
        .into_iter()
        .map(|entry| entry.value.id.into())
        .collect();
    assert!(told.done.len() > 20 && told.done.is_subset(&stored), "{:?}", told.done.difference(&stored));
    assert!(told.not_done.is_disjoint(&stored), "{:?}", told.not_done.intersection(&stored));
    assert!(near.add(&StateKey::new("counter", "one"), 0, Duration::from_secs(1)).await.unwrap() >= told.added);
    let secrets = SqlSecrets::new(&near, ring);
    for name in &told.secrets {
        let found = secrets.get(&fixtures::secret_ref(name)).await.unwrap();
        assert_eq!(found.bundle.get("k").unwrap().expose(), name);
    }
    let all_followed = async {
        while !followed.lock().unwrap().contains(&last_key) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(30), all_followed).await.unwrap();
    assert!(told.done.is_subset(&followed.lock().unwrap()), "the feed names everything that was committed");
    near.close().await;
    far.close().await;
    following.await.unwrap();
    drop(fresh);
}
