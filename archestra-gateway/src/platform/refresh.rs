//! Lists the tools of servers again that say theirs have changed: each once at a time, a few servers at once.

use archestra_core::{Result, id::InstallationId};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use std::{
    collections::{BTreeSet, HashSet},
    num::NonZeroUsize,
    time::Duration,
};
use tokio::sync::broadcast::{self, error::RecvError};

const RETRY: Duration = Duration::from_secs(2);

/// How what is to be listed is found out and listed.
pub(super) struct Refresh<R, L> {
    /// Every installation that is ready.
    pub(super) ready: R,
    /// Lists the tools of one, and sees to it that it is listed later where that fails.
    pub(super) list: L,
    /// How many are listed at once.
    pub(super) parallel: NonZeroUsize,
}

/// What has been done.
enum Done {
    Listed(InstallationId),
    FoundReady(Vec<InstallationId>),
}

impl<R, L> Refresh<R, L>
where
    R: Fn() -> BoxFuture<'static, Result<Vec<InstallationId>>> + Clone + Send + 'static,
    L: Fn(InstallationId) -> BoxFuture<'static, Result<()>>,
{
    /// Lists what `changed` names, until nobody can name anything any more.
    pub(super) async fn run(self, mut changed: broadcast::Receiver<InstallationId>) {
        let mut pending = BTreeSet::new();
        let mut busy = HashSet::new();
        let mut finding = false;
        let mut work: FuturesUnordered<BoxFuture<'static, Done>> = FuturesUnordered::new();
        loop {
            while busy.len() < self.parallel.get()
                // One that is being listed has its turn again afterwards: what it lists now may be older than its word.
                && let Some(id) = pending.iter().find(|id| !busy.contains(*id)).copied()
            {
                pending.remove(&id);
                busy.insert(id);
                work.push(self.list_one(id));
            }
            tokio::select! {
                announced = changed.recv() => match announced {
                    Ok(installation) => drop(pending.insert(installation)),
                    // Nobody knows whose announcements were missed: it may be anybody's.
                    Err(RecvError::Lagged(missed)) => {
                        tracing::info!(missed, "changes of tools were missed; all servers are asked for theirs");
                        if !std::mem::replace(&mut finding, true) {
                            work.push(find_ready(self.ready.clone()).boxed());
                        }
                    }
                    Err(RecvError::Closed) => return,
                },
                Some(done) = work.next() => match done {
                    Done::Listed(id) => drop(busy.remove(&id)),
                    Done::FoundReady(all) => {
                        finding = false;
                        pending.extend(all);
                    }
                },
            }
        }
    }

    fn list_one(&self, id: InstallationId) -> BoxFuture<'static, Done> {
        let listing = (self.list)(id);
        async move {
            if let Err(error) = listing.await {
                tracing::warn!(installation = %id, %error, "tools could not be listed again; it is tried again");
            }
            Done::Listed(id)
        }
        .boxed()
    }
}

async fn find_ready(ready: impl Fn() -> BoxFuture<'static, Result<Vec<InstallationId>>> + Send) -> Done {
    loop {
        match ready().await {
            Ok(all) => return Done::FoundReady(all),
            Err(error) => tracing::warn!(%error, "what is installed could not be read; trying again"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tokio::sync::{Notify, mpsc};

    type Ready = BoxFuture<'static, Result<Vec<InstallationId>>>;

    fn nobody() -> Ready {
        async { Ok(Vec::new()) }.boxed()
    }

    fn two() -> NonZeroUsize {
        NonZeroUsize::new(2).unwrap()
    }

    #[tokio::test]
    async fn a_slow_server_does_not_hold_the_others_up_and_is_listed_again_afterwards() {
        let (slow, quick) = (InstallationId::new(), InstallationId::new());
        let (hold, (began, mut begun)) = (Arc::new(Notify::new()), mpsc::unbounded_channel());
        let held = Arc::clone(&hold);
        let list = move |id| {
            let (held, began) = (Arc::clone(&held), began.clone());
            async move {
                began.send(id).unwrap();
                if id == slow {
                    held.notified().await;
                }
                Ok(())
            }
            .boxed()
        };
        let (changes, changed) = broadcast::channel(16);
        let task = tokio::spawn(Refresh { ready: nobody, list, parallel: two() }.run(changed));
        changes.send(slow).unwrap();
        assert_eq!(begun.recv().await, Some(slow));
        for announced in [slow, slow, quick] {
            changes.send(announced).unwrap();
        }
        assert_eq!(begun.recv().await, Some(quick));
        hold.notify_one();
        assert_eq!(begun.recv().await, Some(slow), "it said so while it was being listed");
        hold.notify_one();
        drop(changes);
        task.await.unwrap();
        assert_eq!(begun.recv().await, None, "what was said twice is done once");
    }

    #[tokio::test]
    async fn whatever_was_missed_everybody_ready_is_listed() {
        let all: Vec<InstallationId> = (0..5).map(|_| InstallationId::new()).collect();
        let (known, failures) = (all.clone(), Arc::new(Mutex::new(1)));
        let ready = move || -> Ready {
            let known = known.clone();
            let fails = std::mem::take(&mut *failures.lock().unwrap()) > 0;
            async move { if fails { Err(archestra_core::Error::unavailable("the store", "away")) } else { Ok(known) } }
                .boxed()
        };
        let (began, mut begun) = mpsc::unbounded_channel();
        let list = move |id| {
            began.send(id).unwrap();
            async { Ok(()) }.boxed()
        };
        let (changes, changed) = broadcast::channel(2);
        let other = InstallationId::new();
        for _ in 0..5 {
            changes.send(other).unwrap();
        }
        tokio::time::pause();
        let task = tokio::spawn(Refresh { ready, list, parallel: two() }.run(changed));
        let mut listed = BTreeSet::new();
        while !all.iter().all(|id| listed.contains(id)) {
            listed.insert(begun.recv().await.unwrap());
        }
        drop(changes);
        task.await.unwrap();
    }
}
