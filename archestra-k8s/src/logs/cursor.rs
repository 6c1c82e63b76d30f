//! How far the log of one container was read, so that nothing is told twice when it has to be read again.

use archestra_core::runtime::LogLine;
use chrono::{DateTime, Utc};
use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash, Hasher},
};

/// How many lines of the last second are remembered.
const REMEMBERED: usize = 4096;

/// How far the log of one container was read.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    /// The lines of the last second that was read: the API server reads again from a whole second only.
    recent: VecDeque<(DateTime<Utc>, u64)>,
    latest: Option<DateTime<Utc>>,
    /// Those of them that have not come again.
    again: Vec<(DateTime<Utc>, u64)>,
    /// What is older has been told, or was not asked for.
    not_before: Option<DateTime<Utc>>,
}

impl Cursor {
    /// From which second on the log has to be read again.
    pub(super) fn second(&self) -> Option<i64> {
        self.latest.map(|latest| latest.timestamp())
    }

    /// The log is about to be read again.
    pub(super) fn rewind(&mut self) {
        self.again = self.recent.iter().copied().collect();
        self.not_before = self.recent.iter().map(|(at, _)| *at).min();
    }

    /// Whether this line is new. Two streams of a container may be logged slightly out of order, so age alone says nothing.
    pub(super) fn accept(&mut self, line: &LogLine) -> bool {
        let key = (line.at, hash(&line.text));
        if self.not_before.is_some_and(|oldest| line.at < oldest) {
            return false;
        }
        if let Some(found) = self.again.iter().position(|known| *known == key) {
            self.again.swap_remove(found);
            return false;
        }
        if self.latest.is_none_or(|latest| line.at > latest) {
            self.latest = Some(line.at);
        }
        self.recent.push_back(key);
        let second = self.second().unwrap_or_default();
        while self.recent.len() > REMEMBERED || self.recent.front().is_some_and(|(at, _)| at.timestamp() < second) {
            self.recent.pop_front();
        }
        true
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
