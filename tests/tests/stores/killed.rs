//! The binary killed as `kill -9` does while it writes: on PostgreSQL beside another one; and alone with secrets, which are in SQLite,
//! in PostgreSQL, or in Vault.

use super::{
    kept::{Backup, Kept},
    on, seconds,
    writing::{Acknowledged, call, install, save},
};
use archestra_tests::{
    Home, Running, Start,
    openbao::OpenBao,
    postgres::Database,
    upstream::{self, Upstream},
};
use serde_json::json;
use std::{collections::BTreeSet, fs, path::Path, sync::Arc, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

const SWEPT: &str = "secrets that no row names were removed";

/// How long a busy machine may take for one installation.
const BUSY: Duration = Duration::from_secs(30);

/// How often it is killed.
fn kills() -> u64 {
    (seconds() / 2).clamp(3, 50)
}

/// For how long it may write before the kill of a round.
fn until_the_kill(round: u64) -> Duration {
    Duration::from_millis(200 + round * 37 % 400)
}

#[tokio::test]
#[ignore = "needs a PostgreSQL server"]
async fn killed_during_writes_it_loses_nothing_that_it_acknowledged() {
    let (database, homes) = (Database::new(), [Home::new(), Home::new()]);
    let start = on(&database, &homes[0].key_file("key"));
    let survivor = homes[1].start(&start).await;
    let acknowledged = Acknowledged::default();
    let mut slowest = Duration::ZERO;
    for round in 0..kills() {
        let killed = homes[0].start(&start).await;
        let mut writers = JoinSet::new();
        for n in 0..4 {
            writers.spawn(save(killed.api(), format!("killed-{round}-{n}"), acknowledged.clone()));
        }
        writers.spawn(save(survivor.api(), format!("survivor-{round}"), acknowledged.clone()));
        sleep(until_the_kill(round)).await;
        killed.kill().await;
        // What it held open ends with it, and holds up nobody.
        let begun = Instant::now();
        let after = json!({ "name": format!("after-{round}"), "remote": { "url": "http://127.0.0.1:9/mcp" } });
        survivor.api().post("/api/v1/entries", &after).await.ok();
        slowest = slowest.max(begun.elapsed());
        writers.shutdown().await;
        acknowledged.all_there(&survivor).await;
    }
    let saved = acknowledged.saved();
    println!("{} kills, {saved} entries acknowledged; a write right after took at most {slowest:?}", kills());
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    assert!(saved as u64 > kills() * 3, "hardly anything was written: {saved}");
    assert!(survivor.stop().await.success());
}

/// Where a binary that is killed has its data, and how it is started on it.
struct Place {
    home: Home,
    start: Start,
}

impl Place {
    async fn start(&self) -> Running {
        self.home.start(&self.start).await
    }

    fn file(home: Home) -> Self {
        Self { home, start: Start { env: vec![("ARCHESTRA_QUICKSTART", "false".to_owned())], ..Start::default() } }
    }

    fn database(home: Home, database: &Database, key: &Path) -> Self {
        Self { home, start: on(database, key) }
    }

    /// How a command finds the same database.
    fn command(&self) -> Start {
        Start { args: Vec::new(), env: self.start.env.clone() }
    }

    fn backup(&self, name: &str) -> Backup {
        Backup::of(&self.home, &self.command(), &self.home.path().join(name))
    }
}

/// Kills it again and again while it saves and installs servers with secrets: what it acknowledged is there after each, and serves.
/// What was installed.
async fn killed_while_it_installs(place: &Place, upstream: &Arc<Upstream>) -> BTreeSet<String> {
    let acknowledged = Acknowledged::default();
    let mut binary = place.start().await;
    binary.api().post("/api/v1/gateways", &upstream::gateway()).await.ok();
    binary.api().post("/api/v1/entries", &upstream.keyed("before")).await.ok();
    let mut called = BTreeSet::new();
    for round in 0..kills() {
        let mut writers = JoinSet::new();
        for n in 0..4 {
            let name = format!("killed-{round}-{n}");
            writers.spawn(install(binary.api(), Arc::clone(upstream), name, acknowledged.clone()));
        }
        sleep(until_the_kill(round)).await;
        // A busy machine may not have come to anything yet.
        let until = Instant::now() + BUSY;
        while acknowledged.installed().len() == called.len() && Instant::now() < until {
            sleep(Duration::from_millis(20)).await;
        }
        binary.kill().await;
        while let Some(ended) = writers.join_next().await {
            ended.unwrap();
        }
        binary = place.start().await;
        acknowledged.all_there(&binary).await;
        let gateway = binary.gateway("all");
        for name in acknowledged.installed().difference(&called) {
            call(&gateway, name).await.unwrap_or_else(|answer| panic!("{name} does not serve: {answer}"));
        }
        called = acknowledged.installed();
    }
    let (kills, saved, installed) = (kills(), acknowledged.saved(), called.len());
    assert!(acknowledged.refused().is_empty(), "{:?}", acknowledged.refused());
    assert!(saved as u64 > kills && installed as u64 >= kills, "hardly anything was written: {saved}, {installed}");
    assert!(binary.stop().await.success());
    println!("{kills} kills, {saved} entries and {installed} installations acknowledged");
    called
}

#[tokio::test]
async fn killed_during_writes_to_a_file_it_loses_nothing_and_keeps_no_secret_for_good_that_no_row_names() {
    let (place, upstream) = (Place::file(Home::new()), Arc::new(Upstream::start().await));
    let installed = killed_while_it_installs(&place, &upstream).await;
    let later = Place::file(Home::new());
    restored_an_hour_later(&place, &later);
    fs::copy(place.home.path().join("data/archestra.key"), later.home.path().join("data/archestra.key")).unwrap();
    swept(&later, &installed).await;
    let kept = later.backup("swept").kept();
    assert_eq!(kept.unnamed(), BTreeSet::new());
}

#[tokio::test]
#[ignore = "needs a PostgreSQL server"]
async fn killed_during_writes_of_secrets_to_postgresql_it_loses_nothing_and_keeps_none_that_no_row_names() {
    let (database, other) = (Database::new(), Database::new());
    let (home, upstream) = (Home::new(), Arc::new(Upstream::start().await));
    let key = home.key_file("key");
    let place = Place::database(home, &database, &key);
    let installed = killed_while_it_installs(&place, &upstream).await;
    let later = Place::database(Home::new(), &other, &key);
    restored_an_hour_later(&place, &later);
    swept(&later, &installed).await;
    let kept = later.backup("swept").kept();
    assert_eq!(kept.unnamed(), BTreeSet::new());
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn killed_during_writes_of_secrets_to_vault_it_loses_nothing_and_keeps_none_that_no_row_names() {
    let (bao, upstream) = (OpenBao::start().await, Arc::new(Upstream::start().await));
    let place = Place { home: Home::new(), start: bao.start_with("vault") };
    let installed = killed_while_it_installs(&place, &upstream).await;
    let named = place.backup("backup").named();
    let kept = Kept { stored: bao.secrets().await, named: named.clone() };
    println!("{} secrets left without a row", kept.unnamed().len());
    // So long is not waited: those secrets are made older, and one more.
    let one = kept.named.first().unwrap();
    bao.copy(one, &Backup::older(one)).await;
    for reference in kept.unnamed() {
        bao.copy(&reference, &Backup::older(&reference)).await;
        bao.remove(&reference).await;
    }
    swept(&place, &installed).await;
    assert_eq!(bao.secrets().await, named);
}

/// Puts a copy of the data elsewhere in which the secrets that the kills left without a row are an hour older, and one more: so long is
/// not waited.
fn restored_an_hour_later(place: &Place, later: &Place) {
    let mut backup = place.backup("backup");
    println!("{} secrets left without a row", backup.kept().unnamed().len());
    backup.plant_one_unnamed();
    for reference in backup.kept().unnamed() {
        backup.age(&reference);
    }
    let aged = later.home.path().join("backup");
    fs::write(&aged, backup.text()).unwrap();
    let (code, said) = later.home.run(&["restore", "--from", aged.to_str().unwrap()], &later.command());
    assert_eq!(code, 0, "{said}");
}

/// Waits until what no row names is swept, and makes sure that everything else serves.
async fn swept(place: &Place, installed: &BTreeSet<String>) {
    let binary = place.start().await;
    for _ in 0..600 {
        if binary.log().contains(SWEPT) {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    assert!(binary.log().contains(SWEPT), "{}", binary.log());
    let gateway = binary.gateway("all");
    for name in installed {
        call(&gateway, name).await.unwrap_or_else(|answer| panic!("{name} does not serve: {answer}"));
    }
    assert!(binary.stop().await.success());
}
