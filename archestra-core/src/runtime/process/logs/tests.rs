//! Tests of the log ring: bounds, cuts, selection, followers.

use super::{LogBuffer, MAX_LINE};
use crate::runtime::{
    LogOptions, LogSource,
    process::config::{ProcessConfig, SupervisorCommand},
};
use futures::StreamExt;
use std::{path::PathBuf, sync::Arc};

fn buffer(lines: usize) -> Arc<LogBuffer> {
    let supervisor = SupervisorCommand { program: PathBuf::from("/supervisor"), args: Vec::new() };
    Arc::new(LogBuffer::new(&ProcessConfig { log_lines: lines, ..ProcessConfig::new("/state", supervisor) }))
}

async fn texts(buffer: &Arc<LogBuffer>, options: LogOptions) -> Vec<String> {
    buffer.read(options).map(|line| line.unwrap().text).collect().await
}

const ALL: LogOptions = LogOptions { tail: None, follow: false, since: None, previous: false };

#[tokio::test]
async fn lines_are_split_cut_and_kept_lossily() {
    let buffer = buffer(10);
    let long = "x".repeat(MAX_LINE * 3);
    let written = [b"one\r\n\xff two\n".as_slice(), long.as_bytes(), b"\nno end"].concat();
    Arc::clone(&buffer).capture(written.as_slice()).await;
    let texts = texts(&buffer, ALL).await;
    assert_eq!(texts.len(), 4);
    assert_eq!(texts[0], "one");
    assert_eq!(texts[1], "\u{fffd} two");
    assert_eq!(texts[2].len(), MAX_LINE);
    assert_eq!(texts[3], "no end");
}

#[tokio::test]
async fn the_oldest_lines_go_first_and_runs_are_kept_apart() {
    let buffer = buffer(4);
    buffer.begin_run();
    for n in 0..4 {
        buffer.say(format!("first {n}"));
    }
    buffer.begin_run();
    buffer.say("second");
    assert_eq!(texts(&buffer, ALL).await, ["first 1", "first 2", "first 3", "second"]);
    assert_eq!(texts(&buffer, LogOptions { previous: true, tail: Some(2), ..ALL }).await, ["first 2", "first 3"]);
    assert_eq!(texts(&buffer, LogOptions { tail: Some(1), ..ALL }).await, ["second"]);
    assert!(texts(&buffer, LogOptions { since: Some(chrono::Utc::now()), ..ALL }).await.is_empty());
}

#[tokio::test]
async fn a_slow_follower_is_told_what_it_missed_and_ends_with_the_buffer() {
    let buffer = buffer(2);
    buffer.say("old");
    let mut follower = buffer.read(LogOptions { tail: Some(0), follow: true, ..ALL });
    for n in 0..5 {
        buffer.say(format!("line {n}"));
    }
    let skipped = follower.next().await.unwrap().unwrap();
    assert_eq!((skipped.source, skipped.text.as_str()), (LogSource::Platform, "… 3 lines skipped"));
    assert_eq!(follower.next().await.unwrap().unwrap().text, "line 3");
    assert_eq!(follower.next().await.unwrap().unwrap().text, "line 4");
    buffer.close();
    assert!(follower.next().await.is_none());
}
