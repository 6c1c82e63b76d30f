//! Calls while everything is read again: following never holds one up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use archestra_core::{
    catalog::{CatalogStore as _, CatalogStoreExt as _, Entry, Kind, Query},
    feed::{ChangeSet, Expect, PageRequest},
    policy::PolicyAction,
    testing::fixtures,
};
use archestra_gateway::platform::Platform;
use archestra_store::{SqlConfig, SqlStore};
use serde_json::json;
use tokio::time::Instant;

use super::{Failure, measure::LIMIT};

/// How many calls are under way at once.
const CALLERS: usize = 4;
/// The pause of a caller, so that it is not the callers that use up the processors.
const PAUSE: Duration = Duration::from_millis(1);
/// How long calls are made while nothing else goes on.
const QUIET: Duration = Duration::from_secs(3);
/// So many commits at once, of which a store keeps one, leave every follower behind.
const BURST: usize = 64;

/// How long calls take, in milliseconds: median and worst, and of how many a hundredth took longer.
pub(super) async fn calls(url: &str, platform: &Platform) -> Result<Vec<(String, [f64; 2])>, Failure> {
    let other = SqlStore::connect(SqlConfig::new(url).kept_revisions(1)).await?;
    // A refused call goes all the way that needs no server.
    let mut rule = fixtures::policy("nobody");
    (rule.spec.action, rule.spec.priority) = (PolicyAction::Block, i32::MAX);
    let revision = other.commit(ChangeSet::new().put(rule.clone(), Expect::Any)).await?;
    platform.synced(Some(revision), LIMIT).await?;
    let mut figures = Vec::new();
    let mut row = |what: &str, mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
        figures.push((format!("refused call, {what}"), [at(50), at(100)]));
        figures.push((format!("refused call, {what}, 99 of 100 within"), [at(99); 2]));
    };
    let quiet = async {
        tokio::time::sleep(QUIET).await;
        Ok(())
    };
    row("nothing else going on", during(platform, quiet).await?);
    let page = PageRequest { limit: BURST, cursor: None };
    let entries = other.list_page::<Entry>(Query::all(Kind::Entry), page).await?.items;
    let begun = Instant::now();
    let reading = async {
        let mut newest = None;
        for mut entry in entries {
            let expect = entry.expect();
            entry.value.spec.description = Some("changed with many others".to_owned());
            newest = Some(other.commit(ChangeSet::new().put(entry.value, expect)).await?);
        }
        platform.synced(newest, LIMIT).await?;
        Ok(())
    };
    row("while everything is read again", during(platform, reading).await?);
    let read = begun.elapsed().as_secs_f64() * 1000.0;
    figures.push(("commits that leave it behind, and everything read again".to_owned(), [read; 2]));
    other.commit(ChangeSet::new().delete(rule.id, Expect::Any)).await?;
    other.close().await;
    Ok(figures)
}

/// Makes calls until something is done, and says how long each took, in milliseconds.
async fn during(
    platform: &Platform,
    something: impl Future<Output = Result<(), Failure>>,
) -> Result<Vec<f64>, Failure> {
    let agent = platform.agent("gateway-0");
    let tool: Arc<str> = agent.tools()?.first().ok_or("the gateway has no tools")?.name.as_str().into();
    let done = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (agent, tool, done) = (agent.clone(), Arc::clone(&tool), Arc::clone(&done));
            tokio::spawn(async move {
                let mut times = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let answer = agent.call(&tool, &json!({})).await;
                    times.push(begun.elapsed().as_secs_f64() * 1000.0);
                    if !answer.is_ok_and(|answer| answer["isError"] == true) {
                        return Err("a call was not refused");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                Ok(times)
            })
        })
        .collect();
    let outcome = something.await;
    done.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    for caller in callers {
        times.extend(caller.await??);
    }
    outcome?;
    Ok(times)
}
