//! The change feed of a table: each subscriber reads the shared log from its own position, so that a slow one costs nothing.

use super::{Key, Rules, Table};
use crate::{
    Result,
    feed::{FeedEvent, StoreRevision},
};
use futures::{StreamExt as _, stream, stream::BoxStream};
use std::time::Duration;
use tokio::{
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior, interval},
};

const CONFIRM_EVERY: Duration = Duration::from_millis(500);

struct Follower<S: Rules> {
    table: Table<S>,
    newest: watch::Receiver<StoreRevision>,
    position: Option<StoreRevision>,
    /// The newest commit there was when the first change since the last confirmation was asked for.
    goal: Option<StoreRevision>,
    confirmed: Option<Instant>,
    /// Made at the first poll, since a stream may be made outside of a runtime.
    confirm: Option<Interval>,
}

pub(super) fn follow<S: Rules>(
    table: Table<S>,
    since: Option<StoreRevision>,
) -> BoxStream<'static, Result<FeedEvent<Key<S>>>> {
    let newest = table.0.newest.subscribe();
    let follower = Follower { table, newest, position: since, goal: None, confirmed: None, confirm: None };
    stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await;
        Some((Ok(event), follower))
    })
    .boxed()
}

impl<S: Rules> Follower<S> {
    async fn next(&mut self) -> FeedEvent<Key<S>> {
        loop {
            let newest = *self.newest.borrow_and_update();
            // Somebody who writes all the time would otherwise keep everything from being confirmed.
            let reached = self.goal.is_some() && self.position >= self.goal;
            if reached && self.confirmed.is_none_or(|at| at.elapsed() >= CONFIRM_EVERY) {
                return self.confirmed();
            }
            if let Some(event) = self.advance() {
                self.position = Some(event.revision());
                if matches!(event, FeedEvent::Changed { .. }) {
                    self.goal.get_or_insert(newest);
                }
                return event;
            }
            let confirm = self.confirm.get_or_insert_with(|| {
                let mut ticks = interval(CONFIRM_EVERY);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                ticks
            });
            tokio::select! {
                biased;
                _ = confirm.tick() => return self.confirmed(),
                // The sender lives in the table that this follower holds.
                _ = self.newest.changed() => {}
            }
        }
    }

    fn confirmed(&mut self) -> FeedEvent<Key<S>> {
        self.confirmed = Some(Instant::now());
        self.goal = None;
        FeedEvent::Confirmed { revision: self.position.unwrap_or_default() }
    }

    /// The next event that is due by the log, if one is.
    fn advance(&self) -> Option<FeedEvent<Key<S>>> {
        let state = self.table.state();
        let oldest = state.log.front().map_or(state.revision.0, |(revision, _)| revision.0 - 1);
        let position = match self.position {
            Some(position) if (oldest..=state.revision.0).contains(&position.0) => position,
            _ => return Some(FeedEvent::Resync { revision: state.revision }),
        };
        let next = usize::try_from(position.0 - oldest).ok().and_then(|n| state.log.get(n));
        next.map(|(revision, keys)| FeedEvent::Changed { revision: *revision, keys: keys.to_vec() })
    }
}
