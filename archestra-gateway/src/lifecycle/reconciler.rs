//! The reconciler: keeps what runs the same as what is stored, resumes what was interrupted, and lists tools that changed.

mod known;
mod reassign;

use super::{Lifecycle, jobs::Ending};
use crate::upstream::QUIET;
use archestra_core::{
    Result,
    catalog::RecordKey,
    feed::FeedEvent,
    id::InstallationId,
    installation::InstallationState,
    runtime::{Phase, RevisionNumber, WorkloadEvent, WorkloadId, WorkloadSummary},
};
use futures::{StreamExt as _, stream, stream::BoxStream};
use known::{Known, Progress};
use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

const RETRY: Duration = Duration::from_secs(2);
/// Where more has changed than this, everything is read.
const MANY: usize = 5000;

/// What the reconciler has yet to look at.
#[derive(Debug, Default)]
struct Pending {
    /// What runs is compared with what is stored.
    workloads: bool,
    /// The catalog is read whole for that, and the assignments of all consumers are looked at: otherwise what changed is.
    everything: bool,
    /// What was written or removed.
    changed: BTreeSet<RecordKey>,
    relist: BTreeSet<WorkloadId>,
    due: Option<Instant>,
}

impl Pending {
    /// Sees to it that there is a pass at this time at the latest.
    fn by(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }
}

/// What the reconciler remembers between two passes.
#[derive(Debug, Default)]
struct Memory {
    /// What is stored, once it was read.
    known: Option<Known>,
    /// When what runs was started, to tell a new start from an old one.
    running: HashMap<WorkloadId, Option<chrono::DateTime<chrono::Utc>>>,
    /// When what somebody else had changed was put back last, by what that was.
    mended: HashMap<(WorkloadId, String), Instant>,
    /// Until when workloads whose tools were listed, because they said that those changed, are not listed for that again.
    quiet: HashMap<WorkloadId, Instant>,
    /// What was done that is done once after the start.
    started: Started,
}

/// Whether what runs, or is to, can be different because of this record.
const fn is_of_workloads(key: RecordKey) -> bool {
    matches!(key, RecordKey::Installation(_) | RecordKey::Revision(_))
}

/// Whether a consumer can have other tools because of this record.
const fn is_of_assignments(key: RecordKey) -> bool {
    matches!(key, RecordKey::Entry(_) | RecordKey::Consumer(_) | RecordKey::Tool(_))
}

impl Memory {
    fn wants(&self, workload: &WorkloadId) -> bool {
        self.known.as_ref().is_some_and(|known| known.wants(workload))
    }

    fn users(&self, workload: &WorkloadId) -> impl Iterator<Item = InstallationId> {
        self.known.iter().flat_map(|known| known.users(workload))
    }
}

/// How far the start has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Started {
    #[default]
    NotYet,
    /// What needs no runtime is done.
    Remote,
    /// All of it.
    Whole,
}

impl Lifecycle {
    /// Reconciles until `shutdown`, then ends what is under way in the background.
    ///
    /// At the start, on every change of the catalog and of workloads, and from time to time it applies what is stored and
    /// does not run or was changed by somebody else, removes what runs and is not wanted, goes on with installations that were
    /// interrupted, lists tools again where a server said that they changed, until that succeeds, and removes secrets that no row names.
    pub async fn run(&self, shutdown: CancellationToken) {
        let (sweeping, listing) = (self.sweeping(), self.listing_owed());
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.inner.stop.cancelled() => {}
            () = self.reconcile_forever() => {}
        }
        self.shutdown().await;
        drop((sweeping.await, listing.await));
    }

    async fn reconcile_forever(&self) {
        let mut feed = self.inner.catalog.changes(None);
        let mut watch = self.watch();
        let mut tick = interval(self.options().resync);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut memory = Memory::default();
        let mut pending = Pending::default();
        loop {
            let due = pending.due;
            tokio::select! {
                event = feed.next() => match event {
                    Some(Ok(event)) => self.note_change(&event, &mut pending),
                    Some(Err(error)) => tracing::debug!(%error, "the catalog's changes cannot be followed at the moment"),
                    None => {
                        sleep(RETRY).await;
                        feed = self.inner.catalog.changes(None);
                    }
                },
                event = watch.next() => match event {
                    Some(Ok(event)) => self.note_event(event, &mut memory, &mut pending),
                    Some(Err(error)) => tracing::debug!(%error, "workloads cannot be watched at the moment"),
                    None => {
                        sleep(RETRY).await;
                        watch = self.watch();
                    }
                },
                _ = tick.tick() => {
                    pending.everything = true;
                    self.ask(&mut pending);
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    let work = std::mem::take(&mut pending);
                    match self.pass(&work, &mut memory).await {
                        Ok(left) => pending = left,
                        Err(error) => {
                            tracing::warn!(%error, "reconciling failed; it is tried again");
                            pending = Pending { due: Some(Instant::now() + RETRY), ..work };
                        }
                    }
                }
            }
        }
    }

    fn watch(&self) -> BoxStream<'static, Result<WorkloadEvent>> {
        self.runtime().map_or_else(|| stream::pending().boxed(), |runtime| runtime.watch())
    }

    fn ask(&self, pending: &mut Pending) {
        pending.workloads = true;
        pending.by(Instant::now() + self.options().debounce);
    }

    fn note_change(&self, event: &FeedEvent<RecordKey>, pending: &mut Pending) {
        match event {
            FeedEvent::Resync { .. } => {
                pending.everything = true;
                self.ask(pending);
            }
            FeedEvent::Changed { keys, .. } => {
                let followed = |key: &&RecordKey| is_of_workloads(**key) || is_of_assignments(**key);
                let before = pending.changed.len();
                pending.changed.extend(keys.iter().filter(followed));
                if pending.changed.len() > before {
                    self.ask(pending);
                }
                if pending.changed.len() > MANY {
                    pending.changed.clear();
                    pending.everything = true;
                }
            }
            FeedEvent::Confirmed { .. } => {}
        }
    }

    fn note_event(&self, event: WorkloadEvent, memory: &mut Memory, pending: &mut Pending) {
        match event {
            WorkloadEvent::Snapshot(all) => {
                for summary in all {
                    self.note_status(&summary, memory);
                }
                self.ask(pending);
            }
            WorkloadEvent::Changed(summary) => {
                if summary.drift.is_some() {
                    self.ask(pending);
                }
                self.note_status(&summary, memory);
            }
            WorkloadEvent::Removed(id) => {
                memory.running.remove(&id);
                self.ask(pending);
            }
            WorkloadEvent::ToolsChanged(id) => {
                let soon = Instant::now() + self.options().debounce;
                pending.by(memory.quiet.get(&id).map_or(soon, |quiet| soon.max(*quiet)));
                pending.relist.insert(id);
            }
        }
    }

    /// A workload that has just come to run may be what an installation was waiting for.
    fn note_status(&self, summary: &WorkloadSummary, memory: &mut Memory) {
        if summary.status.phase != Phase::Running {
            memory.running.remove(&summary.id);
            return;
        }
        let started = summary.status.started_at;
        if memory.running.insert(summary.id.clone(), started) == Some(started) {
            return;
        }
        for id in memory.users(&summary.id) {
            let this = self.clone();
            self.inner.tasks.spawn(async move {
                let waiting =
                    this.installation(id).await.is_ok_and(|found| found.value.state != InstallationState::Ready);
                if waiting && !this.inner.jobs.busy(id) {
                    this.bring_up(id);
                }
            });
        }
    }

    /// Does what is pending; what is to be done later because of it comes back.
    async fn pass(&self, work: &Pending, memory: &mut Memory) -> Result<Pending> {
        let mut left = Pending::default();
        if work.workloads {
            self.pass_workloads(work, memory, &mut left).await?;
        }
        if work.everything {
            self.reassign_all().await?;
        } else if work.changed.iter().any(|key| is_of_assignments(*key)) {
            self.reassign_around(&work.changed).await?;
        }
        self.relist(&work.relist, memory, &mut left);
        Ok(left)
    }

    /// Lists again what said that its tools changed; what did so a moment ago is left for later.
    fn relist(&self, announced: &BTreeSet<WorkloadId>, memory: &mut Memory, left: &mut Pending) {
        let now = Instant::now();
        memory.quiet.retain(|_, until| *until > now);
        for workload in announced {
            if let Some(until) = memory.quiet.get(workload) {
                left.relist.insert(workload.clone());
                left.by(*until);
                continue;
            }
            memory.quiet.insert(workload.clone(), now + QUIET);
            for id in memory.users(workload) {
                self.bring_up(id);
            }
        }
    }

    async fn pass_workloads(&self, work: &Pending, memory: &mut Memory, left: &mut Pending) -> Result<()> {
        // What runs is read before what is wanted: whatever is applied has been stored before.
        let observed = match self.runtime() {
            Some(runtime) => match self.within("listing workloads", runtime.list()).await {
                Ok(observed) => Some(observed),
                Err(error) => {
                    // All that needs no runtime goes on without.
                    tracing::warn!(%error, "what runs cannot be listed; it is tried again");
                    left.workloads = true;
                    left.by(Instant::now() + RETRY);
                    None
                }
            },
            None => None,
        };
        let answers = observed.is_some() || self.runtime().is_none();
        match &mut memory.known {
            Some(known) if !work.everything => known.follow(self.catalog(), &work.changed).await?,
            known => *known = Some(Known::read(self.catalog()).await?),
        }
        let started = memory.started;
        let mut resumed = BTreeSet::new();
        let mut ready = Vec::new();
        for (id, seen) in memory.known.iter().flat_map(Known::installations) {
            let hosted = seen.workload.is_some();
            let possible = answers || !hosted;
            let interrupted = match seen.progress {
                Progress::Unfinished => true,
                Progress::Failed => started < Started::Whole && hosted,
                Progress::Ready => false,
            };
            if possible && interrupted && !self.inner.jobs.busy(id) {
                self.bring_up(id);
                resumed.extend(seen.workload.clone());
            }
            let waits = if hosted { started < Started::Whole } else { started < Started::Remote };
            if possible && waits && seen.progress == Progress::Ready {
                ready.push(id);
            }
        }
        if let Some(observed) = observed {
            self.apply_missing(&observed, memory, &resumed, left).await;
            self.remove_unwanted(&observed, memory);
        }
        memory.started = started.max(if answers { Started::Whole } else { Started::Remote });
        if !ready.is_empty() {
            self.catch_up(ready);
        }
        Ok(())
    }

    async fn apply_missing(
        &self,
        observed: &[WorkloadSummary],
        memory: &mut Memory,
        resumed: &BTreeSet<WorkloadId>,
        left: &mut Pending,
    ) {
        let drifted = self.drifted(observed, memory, left);
        let Some(known) = &memory.known else { return };
        let running: HashMap<&WorkloadId, Option<RevisionNumber>> =
            observed.iter().map(|one| (&one.id, one.status.revision)).collect();
        let differs = |workload: &&WorkloadId| match (running.get(workload), known.newest(workload)) {
            (_, None) => false,
            (None, Some(_)) => true,
            // A runtime that does not tell which revision it runs is asked to run the right one once.
            (Some(running), Some(desired)) => {
                running.map_or(memory.started < Started::Whole, |running| running != desired)
            }
        };
        let idle = |workload: &&WorkloadId| {
            !resumed.contains(*workload) && !known.users(workload).any(|id| self.inner.jobs.busy(id))
        };
        let missing = known.wanted().filter(idle);
        let missing: Vec<WorkloadId> = missing
            .filter(|id| differs(id) || (drifted.contains_key(*id) && known.newest(id).is_some()))
            .cloned()
            .collect();
        let apply = |workload: WorkloadId| async move {
            match self.apply_newest(&workload).await {
                Ok(_) => Some(workload),
                Err(error) => {
                    tracing::warn!(%workload, %error, "a workload could not be applied; it is tried again");
                    None
                }
            }
        };
        let applied: Vec<WorkloadId> = stream::iter(missing)
            .map(apply)
            .buffer_unordered(self.options().parallel.max(1))
            .filter_map(std::future::ready)
            .collect()
            .await;
        let now = Instant::now();
        for workload in applied {
            if let Some(drift) = drifted.get(&workload) {
                memory.mended.insert((workload, drift.clone()), now);
            }
        }
    }

    /// What somebody else has changed. Who keeps changing the same thing is answered once in a while, and not at once each
    /// time.
    fn drifted(
        &self,
        observed: &[WorkloadSummary],
        memory: &mut Memory,
        left: &mut Pending,
    ) -> HashMap<WorkloadId, String> {
        let pause = self.options().resync;
        memory.mended.retain(|_, mended| mended.elapsed() < pause);
        let mut drifted = HashMap::new();
        for summary in observed.iter().filter(|summary| memory.wants(&summary.id)) {
            let Some(drift) = &summary.drift else { continue };
            let change = (summary.id.clone(), drift.clone());
            if let Some(mended) = memory.mended.get(&change) {
                left.workloads = true;
                left.by(*mended + pause);
                continue;
            }
            tracing::info!(workload = %summary.id, drift, "a workload is put back as it was applied");
            drifted.insert(change.0, change.1);
        }
        drifted
    }

    /// Removes what nobody wants, in a task of its own: a runtime may take its time for each.
    fn remove_unwanted(&self, observed: &[WorkloadSummary], memory: &Memory) {
        let unwanted = observed.iter().map(|one| &one.id).filter(|id| !memory.wants(id));
        let unwanted: Vec<Ending> =
            unwanted.filter(|id| !self.inner.jobs.is_ending(id)).map(|id| self.inner.jobs.begin_ending(id)).collect();
        if unwanted.is_empty() {
            return;
        }
        let this = self.clone();
        self.inner.tasks.spawn(async move {
            let remove = |ending: Ending| {
                let this = this.clone();
                async move { this.remove_if_unwanted(&ending).await }
            };
            let all = stream::iter(unwanted).for_each_concurrent(this.options().parallel, remove);
            tokio::select! {
                () = this.inner.stop.cancelled() => {}
                () = all => {}
            }
        });
    }

    /// Others may have waited for their turn so long that somebody wants it again.
    async fn remove_if_unwanted(&self, ending: &Ending) {
        let workload = ending.workload();
        match self.is_wanted(workload).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::info!(%workload, "a workload that nobody wants is removed");
                self.end_workload(workload).await;
            }
            Err(error) => {
                tracing::warn!(%workload, %error, "a workload that nobody seems to want is left until that is known");
            }
        }
    }

    async fn is_wanted(&self, workload: &WorkloadId) -> Result<bool> {
        let Some(newest) = self.history(workload).await?.pop() else { return Ok(false) };
        let users = self.installations_of(newest.value.entry).await?;
        Ok(users.iter().any(|user| user.value.workload.as_ref() == Some(workload)))
    }
}
