//! Logs: what the server wrote, and following it.

use super::RuntimeFixture;
use crate::{
    runtime::{LogOptions, LogSource, WorkloadId},
    testing::conformance::works,
};
use futures::StreamExt as _;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

impl RuntimeFixture {
    /// Waits until the list holds exactly these.
    pub(super) async fn listed_exactly(&self, ids: &[&WorkloadId]) {
        let end = Instant::now() + self.limit;
        loop {
            let listed: Vec<_> = works(self.runtime.list().await, "workloads can be listed")
                .into_iter()
                .map(|summary| summary.id)
                .collect();
            if listed.iter().collect::<Vec<_>>() == ids {
                return;
            }
            assert!(Instant::now() < end, "a list holds what there is, {ids:?}, not {listed:?}");
            sleep(Duration::from_millis(25)).await;
        }
    }
}

/// The log holds what the server wrote, and a tail its last lines.
pub async fn logs_hold_what_the_server_wrote(fixture: &RuntimeFixture) {
    let Some(text) = &fixture.started_line else { return };
    let workload = fixture.running().await;
    let end = Instant::now() + fixture.limit;
    let all = loop {
        let lines = fixture.log(&workload.id, LogOptions { tail: None, ..LogOptions::default() }).await;
        if lines.iter().any(|line| line.source == LogSource::Server && line.text.contains(text)) {
            break lines;
        }
        assert!(Instant::now() < end, "a log holds what the server wrote: {text:?} is not in {lines:?}");
        sleep(Duration::from_millis(50)).await;
    };
    assert!(all.iter().all(|line| !line.text.ends_with(['\n', '\r'])), "a line is without its end");
    let tail = fixture.log(&workload.id, LogOptions { tail: Some(1), ..LogOptions::default() }).await;
    assert_eq!(tail.len(), 1, "a tail holds as many lines as were asked for");
    let none = fixture.log(&workload.id, LogOptions { tail: Some(0), ..LogOptions::default() }).await;
    assert!(none.is_empty(), "a tail of nothing holds nothing");
}

/// Who follows a log goes on over a restart, until the workload is removed.
pub async fn logs_follow_over_a_restart(fixture: &RuntimeFixture) {
    let Some(text) = &fixture.started_line else { return };
    let workload = fixture.running().await;
    let options = LogOptions { tail: None, follow: true, ..LogOptions::default() };
    let mut lines = works(fixture.runtime.logs(&workload.id, options).await, "the log of a workload can be followed");
    let mut restarted = false;
    for start in ["the first start", "the second start"] {
        let read = async {
            loop {
                match lines.next().await {
                    Some(line) => {
                        let line = works(line, "a log can be followed");
                        if line.source == LogSource::Server && line.text.contains(text) {
                            return;
                        }
                    }
                    None => panic!("a log that is followed goes on until its workload is removed"),
                }
            }
        };
        assert!(timeout(fixture.limit, read).await.is_ok(), "who follows a log sees {start}");
        if !restarted {
            works(fixture.runtime.restart(&workload.id).await, "a workload can be restarted");
            restarted = true;
        }
    }
    works(fixture.runtime.remove(&workload.id).await, "a workload can be removed");
    let ended = timeout(fixture.limit, async { while lines.next().await.is_some() {} }).await;
    assert!(ended.is_ok(), "a log that is followed ends when its workload is removed");
}
