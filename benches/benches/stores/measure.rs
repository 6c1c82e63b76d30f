//! Measures one filled catalog.

use std::{sync::Arc, time::Duration};

use archestra_core::{
    catalog::{CatalogStore, CatalogStoreExt as _, Entry, Kind, Query},
    feed::{ChangeSet, Expect, MAX_PAGE, PageRequest},
    secret::KeyRing,
    testing::fixtures,
    tool::Tool,
};
use archestra_gateway::platform::Platform;
use archestra_store::{SqlConfig, SqlSecrets, SqlStore};
use tokio::time::Instant;

use super::{Failure, Figures, resync};

/// Nothing here may take longer.
pub(super) const LIMIT: Duration = Duration::from_secs(300);

/// Builds a snapshot, changes entries and rules, and reads pages, each so many times.
pub(super) async fn measure(url: &str, times: usize) -> Result<Figures, Failure> {
    // A second installation is refused, and this is the first.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let store = SqlStore::connect(SqlConfig::new(url)).await?;
    let ring = Arc::new(KeyRing::generate()?);
    let shared = Arc::new(store.clone());
    let before = resident()?;
    let begun = Instant::now();
    let platform = Platform::builder()
        .catalog(Arc::<SqlStore>::clone(&shared))
        .identity(Arc::<SqlStore>::clone(&shared))
        .state(Arc::<SqlStore>::clone(&shared))
        .audit(shared)
        .secrets(Arc::new(SqlSecrets::new(&store, Arc::clone(&ring))))
        .key_ring(ring)
        .build()
        .await?;
    platform.synced(None, LIMIT).await?;
    let snapshot_ms = ms(begun.elapsed());
    let snapshot_mib = (resident()? - before) / 1024.0 / 1024.0;

    let page = store.list_page::<Entry>(Query::all(Kind::Entry), PageRequest { limit: MAX_PAGE, cursor: None }).await?;
    let entries = page.items;
    let (mut commits, mut followed) = (Vec::new(), Vec::new());
    for entry in entries.into_iter().step_by(7).cycle().take(times) {
        let mut entry = store.get_one::<Entry>(entry.value.id).await?;
        let expect = entry.expect();
        entry.value.spec.description = Some(format!("changed at version {}", entry.version));
        let begun = Instant::now();
        let revision = store.commit(ChangeSet::new().put(entry.value, expect)).await?;
        let committed = Instant::now();
        platform.synced(Some(revision), LIMIT).await?;
        commits.push(ms(committed - begun));
        followed.push(ms(committed.elapsed()));
    }
    let entry = store.list_page::<Entry>(Query::all(Kind::Entry), PageRequest { limit: 1, cursor: None }).await?;
    let entry = entry.items.first().ok_or("the catalog is empty")?.value.id;
    let mut rules = Vec::new();
    for (what, about) in [("of one entry", Some(entry)), ("about every tool", None)] {
        let mut rule = fixtures::policy("bench");
        rule.spec.entry = about;
        let mut followed = Vec::new();
        for n in 0..times {
            rule.spec.message = Some(format!("changed {n} times"));
            let revision = store.commit(ChangeSet::new().put(rule.clone(), Expect::Any)).await?;
            let committed = Instant::now();
            platform.synced(Some(revision), LIMIT).await?;
            followed.push(ms(committed.elapsed()));
        }
        store.commit(ChangeSet::new().delete(rule.id, Expect::Any)).await?;
        rules.push((format!("from the commit of a rule {what} until calls follow it"), spread(followed)));
    }
    let tools = store.list_page::<Tool>(Query::all(Kind::Tool), PageRequest { limit: 1000, cursor: None }).await?;
    let changes = tools.items.into_iter().fold(ChangeSet::new(), |changes, tool| {
        let expect = tool.expect();
        changes.put(tool.value, expect)
    });
    let begun = Instant::now();
    let revision = store.commit(changes).await?;
    let committed = Instant::now();
    platform.synced(Some(revision), LIMIT).await?;
    let thousand_ms = [ms(committed - begun), ms(committed.elapsed())];
    let calls = resync::calls(url, &platform).await?;
    platform.shutdown().await;

    let begun = Instant::now();
    for kind in Kind::ALL {
        pages(&store, &Query::all(*kind), MAX_PAGE, usize::MAX).await?;
    }
    let read_all_ms = ms(begun.elapsed());

    let first = store.list_page::<Entry>(Query::all(Kind::Entry), PageRequest::default()).await?;
    let entry = first.items.first().ok_or("the catalog is empty")?.value.id;
    let mut read = Vec::new();
    for (what, query, limit) in [
        ("page of 100 entries", Query::all(Kind::Entry), 100),
        ("page of 100 tools", Query::all(Kind::Tool), 100),
        ("page of 1000 tools", Query::all(Kind::Tool), 1000),
        ("page of 100 installations", Query::all(Kind::Installation), 100),
        ("the tools of one entry", Query::Tools { entry: Some(entry) }, 100),
        (
            "100 entries by a text in their names",
            Query::Entries { search: Some("entry-0".to_owned()), labels: None },
            100,
        ),
    ] {
        read.push((what.to_owned(), spread(pages(&store, &query, limit, times).await?)));
    }
    store.close().await;
    Ok(Figures {
        snapshot_ms,
        snapshot_mib,
        read_all_ms,
        commit_ms: spread(commits),
        followed_ms: spread(followed),
        rules,
        thousand_ms,
        calls,
        pages: read,
    })
}

/// Reads up to so many pages, following the cursors, and says how long each took.
async fn pages(store: &SqlStore, query: &Query, limit: usize, most: usize) -> Result<Vec<f64>, Failure> {
    let mut times = Vec::new();
    let mut page = PageRequest { limit, cursor: None };
    while times.len() < most {
        let begun = Instant::now();
        let found = CatalogStore::list(store, query, &page).await?;
        times.push(ms(begun.elapsed()));
        match found.next {
            Some(cursor) => page.cursor = Some(cursor),
            None => break,
        }
    }
    Ok(times)
}

/// The median and the worst.
fn spread(mut times: Vec<f64>) -> [f64; 2] {
    times.sort_by(f64::total_cmp);
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    [median, times.last().copied().unwrap_or_default()]
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The memory of this process, in bytes.
fn resident() -> Result<f64, Failure> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024.0)
}
