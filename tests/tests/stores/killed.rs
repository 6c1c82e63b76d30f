//! The binary killed as `kill -9` does while it writes: on PostgreSQL beside another one, and on SQLite alone, with secrets.

use super::{
    on, seconds,
    writing::{Acknowledged, call, install, save},
};
use archestra_tests::{
    Home, Start,
    postgres::Database,
    upstream::{self, Upstream},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs, path::Path, sync::Arc, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

/// Secrets that no row names are removed once they are older than this.
const GRACE: Duration = Duration::from_secs(3600);
const SWEPT: &str = "secrets that no row names were removed";

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

#[tokio::test]
async fn killed_during_writes_to_a_file_it_loses_nothing_and_keeps_no_secret_for_good_that_no_row_names() {
    let (home, upstream) = (Home::new(), Arc::new(Upstream::start().await));
    let acknowledged = Acknowledged::default();
    let mut binary = home.bare().await;
    binary.api().post("/api/v1/gateways", &upstream::gateway()).await.ok();
    binary.api().post("/api/v1/entries", &upstream.keyed("before")).await.ok();
    let mut called = BTreeSet::new();
    for round in 0..kills() {
        let mut writers = JoinSet::new();
        for n in 0..4 {
            let name = format!("killed-{round}-{n}");
            writers.spawn(install(binary.api(), Arc::clone(&upstream), name, acknowledged.clone()));
        }
        sleep(until_the_kill(round)).await;
        binary.kill().await;
        while let Some(ended) = writers.join_next().await {
            ended.unwrap();
        }
        binary = home.bare().await;
        acknowledged.all_there(&binary).await;
        let gateway = binary.gateway("all");
        for name in acknowledged.installed().difference(&called) {
            call(&gateway, name).await.unwrap_or_else(|answer| panic!("{name} does not serve: {answer}"));
        }
        called = acknowledged.installed();
    }
    let (kills, saved, installed) = (kills(), acknowledged.saved(), called.len());
    assert!(acknowledged.refused().is_empty(), "{:?}", acknowledged.refused());
    assert!(saved as u64 > kills * 3 && installed as u64 > kills, "hardly anything was written: {saved}, {installed}");
    assert!(binary.stop().await.success());
    let left = unnamed_are_swept(&home, &called).await;
    println!(
        "{kills} kills, {saved} entries and {installed} installations acknowledged, {left} secrets left without a row"
    );
}

/// An hour later, secrets that the kills left without a row are gone and all others serve. So long is not waited: a copy of the
/// data is started in which those secrets are older, and one more. How many the kills left.
async fn unnamed_are_swept(home: &Home, installed: &BTreeSet<String>) -> usize {
    let later = Home::new();
    let (file, aged) = (home.path().join("backup"), later.path().join("backup"));
    let mut backup = Backup::of(home, &file);
    let left = backup.unnamed().len();
    backup.plant_one_unnamed();
    for reference in backup.unnamed() {
        backup.age(&reference);
    }
    fs::write(&aged, backup.text()).unwrap();
    let (code, said) = later.run(&["restore", "--from", aged.to_str().unwrap()], &Start::default());
    assert_eq!(code, 0, "{said}");
    fs::copy(home.path().join("data/archestra.key"), later.path().join("data/archestra.key")).unwrap();
    let binary = later.bare().await;
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
    let swept = Backup::of(&later, &later.path().join("swept"));
    assert_eq!(swept.unnamed(), BTreeSet::new());
    left
}

/// The lines of a backup, of which it looks at secrets and at what names them.
struct Backup {
    lines: Vec<Value>,
}

impl Backup {
    fn of(home: &Home, file: &Path) -> Self {
        let (code, said) = home.run(&["backup", "--to", file.to_str().unwrap()], &Start::default());
        assert_eq!(code, 0, "{said}");
        let text = fs::read_to_string(file).unwrap();
        Self { lines: text.lines().map(|line| serde_json::from_str(line).unwrap()).collect() }
    }

    fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }

    fn unnamed(&self) -> BTreeSet<String> {
        let (mut stored, mut named) = (BTreeSet::new(), BTreeSet::new());
        for line in &self.lines {
            match (line["table"].as_str(), line["row"].as_array()) {
                (Some("secrets"), Some(row)) => drop(stored.insert(row[0].as_str().unwrap().to_owned())),
                (Some("entries" | "installations"), Some(row)) => {
                    let document: Value = serde_json::from_str(row.last().unwrap().as_str().unwrap()).unwrap();
                    named.extend(document["secrets"].as_str().map(str::to_owned));
                }
                _ => {}
            }
        }
        assert!(named.len() > 2 && named.is_subset(&stored), "{:?}", named.difference(&stored));
        &stored - &named
    }

    /// The last secret once more, under a reference of its own.
    fn plant_one_unnamed(&mut self) {
        let mut planted = self.lines.iter().rfind(|line| line["table"] == "secrets").unwrap().clone();
        let reference = planted["row"][0].as_str().unwrap();
        let other = if reference.ends_with('0') { "1" } else { "0" };
        planted["row"][0] = format!("{}{other}", &reference[..reference.len() - 1]).into();
        let end = self.lines.len() - 1;
        let counted = &mut self.lines[end]["end"]["secrets"];
        *counted = (counted.as_u64().unwrap() + 1).into();
        self.lines.insert(end, planted);
    }

    /// Makes a secret older than any that may be about to be named: its reference ends in a UUID that begins with the time.
    fn age(&mut self, reference: &str) {
        let (path, unique) = reference.rsplit_once('/').unwrap();
        let made = u64::from_str_radix(&format!("{}{}", &unique[..8], &unique[9..13]), 16).unwrap();
        let older = format!("{:012x}", made - 2 * u64::try_from(GRACE.as_millis()).unwrap());
        let older = format!("{path}/{}-{}{}", &older[..8], &older[8..], &unique[13..]);
        let line = self.lines.iter_mut().find(|line| line["table"] == "secrets" && line["row"][0] == reference);
        line.unwrap()["row"][0] = older.into();
    }
}
