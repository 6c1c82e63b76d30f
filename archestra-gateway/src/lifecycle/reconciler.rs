//! The reconciler: keeps what runs the same as what is stored, resumes what was interrupted, and lists tools that changed.

use super::{Lifecycle, jobs::Ending};
use archestra_core::{
    Result,
    catalog::{CatalogStoreExt, Kind, Query, RecordKey},
    feed::FeedEvent,
    id::InstallationId,
    installation::{Installation, InstallationState},
    runtime::{Phase, Revision, RevisionNumber, WorkloadEvent, WorkloadId, WorkloadSummary},
};
use futures::{StreamExt as _, stream, stream::BoxStream};
use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

const RETRY: Duration = Duration::from_secs(2);
const SWEEP_EVERY: Duration = Duration::from_secs(3600);

/// What the reconciler has yet to look at.
#[derive(Debug, Default)]
struct Pending {
    everything: bool,
    consumers: bool,
    /// Revisions were made or went: what is known of them is read anew.
    revisions: bool,
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
    /// Who uses which workload.
    users: HashMap<WorkloadId, Vec<InstallationId>>,
    /// When what runs was started, to tell a new start from an old one.
    running: HashMap<WorkloadId, Option<chrono::DateTime<chrono::Utc>>>,
    swept: Option<Instant>,
    /// When what somebody else had changed was put back last, by what that was.
    mended: HashMap<(WorkloadId, String), Instant>,
    /// The newest revision of each workload, once it was read.
    newest: Option<HashMap<WorkloadId, RevisionNumber>>,
    /// What was done that is done once after the start.
    started: Started,
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
    /// interrupted, lists tools again where a server said that they changed, and removes secrets that no row names.
    pub async fn run(&self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.inner.stop.cancelled() => {}
            () = self.reconcile_forever() => {}
        }
        self.shutdown().await;
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
                    pending.consumers = true;
                    pending.revisions = true;
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
        pending.everything = true;
        pending.by(Instant::now() + self.options().debounce);
    }

    fn note_change(&self, event: &FeedEvent<RecordKey>, pending: &mut Pending) {
        match event {
            FeedEvent::Resync { .. } => {
                pending.consumers = true;
                pending.revisions = true;
                self.ask(pending);
            }
            FeedEvent::Changed { keys, .. } => {
                pending.consumers |=
                    keys.iter().any(|key| matches!(key.kind(), Kind::Entry | Kind::Consumer | Kind::Tool));
                pending.revisions |= keys.iter().any(|key| key.kind() == Kind::Revision);
                if pending.consumers || keys.iter().any(|key| matches!(key.kind(), Kind::Installation | Kind::Revision))
                {
                    self.ask(pending);
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
                pending.relist.insert(id);
                pending.by(Instant::now() + self.options().debounce);
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
        for id in memory.users.get(&summary.id).into_iter().flatten().copied() {
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
        if work.everything {
            self.pass_workloads(work.revisions, memory, &mut left).await?;
        }
        if work.consumers {
            self.reassign_all().await?;
        }
        for workload in &work.relist {
            for id in memory.users.get(workload).into_iter().flatten() {
                self.bring_up(*id);
            }
        }
        if memory.swept.is_none_or(|swept| swept.elapsed() >= SWEEP_EVERY) {
            match self.sweep().await {
                Ok(0) => {}
                Ok(removed) => tracing::info!(removed, "secrets that no row names were removed"),
                Err(error) => tracing::warn!(%error, "secrets could not be swept; it is tried again later"),
            }
            memory.swept = Some(Instant::now());
        }
        Ok(left)
    }

    async fn pass_workloads(&self, revised: bool, memory: &mut Memory, left: &mut Pending) -> Result<()> {
        // What runs is read before what is wanted: whatever is applied has been stored before.
        let observed = match self.runtime() {
            Some(runtime) => match self.within("listing workloads", runtime.list()).await {
                Ok(observed) => Some(observed),
                Err(error) => {
                    // All that needs no runtime goes on without.
                    tracing::warn!(%error, "what runs cannot be listed; it is tried again");
                    left.everything = true;
                    left.by(Instant::now() + RETRY);
                    None
                }
            },
            None => None,
        };
        let answers = observed.is_some() || self.runtime().is_none();
        let installations = self.catalog().list_all::<Installation>(Query::all(Kind::Installation)).await?;
        if revised || memory.newest.is_none() {
            // Read anew also after a failure between here and there.
            memory.newest = None;
            memory.newest = Some(self.newest_revisions().await?);
        }
        let started = memory.started;
        memory.users.clear();
        let mut resumed = BTreeSet::new();
        let mut ready = Vec::new();
        for installation in installations {
            let installation = installation.value;
            let hosted = installation.workload.is_some();
            let possible = answers || !hosted;
            let interrupted = match installation.state {
                InstallationState::Pending | InstallationState::Discovering => true,
                InstallationState::Error { .. } => started < Started::Whole && hosted,
                InstallationState::Ready => false,
            };
            if possible && interrupted && !self.inner.jobs.busy(installation.id) {
                self.bring_up(installation.id);
                resumed.extend(installation.workload.clone());
            }
            let waits = if hosted { started < Started::Whole } else { started < Started::Remote };
            if possible && waits && installation.state == InstallationState::Ready {
                ready.push(installation.id);
            }
            if let Some(workload) = installation.workload {
                memory.users.entry(workload).or_default().push(installation.id);
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
        let none = HashMap::new();
        let newest = memory.newest.as_ref().unwrap_or(&none);
        let running: HashMap<&WorkloadId, Option<RevisionNumber>> =
            observed.iter().map(|one| (&one.id, one.status.revision)).collect();
        let differs = |workload: &&WorkloadId| match (running.get(workload), newest.get(*workload)) {
            (_, None) => false,
            (None, Some(_)) => true,
            // A runtime that does not tell which revision it runs is asked to run the right one once.
            (Some(running), Some(desired)) => {
                running.map_or(memory.started < Started::Whole, |running| running != *desired)
            }
        };
        let idle = |workload: &&WorkloadId| {
            let users = memory.users.get(*workload).map(Vec::as_slice).unwrap_or_default();
            !resumed.contains(*workload) && !users.iter().any(|id| self.inner.jobs.busy(*id))
        };
        let missing = memory.users.keys().filter(idle);
        let missing: Vec<WorkloadId> = missing
            .filter(|id| differs(id) || (drifted.contains_key(*id) && newest.contains_key(*id)))
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
        for summary in observed.iter().filter(|summary| memory.users.contains_key(&summary.id)) {
            let Some(drift) = &summary.drift else { continue };
            let change = (summary.id.clone(), drift.clone());
            if let Some(mended) = memory.mended.get(&change) {
                left.everything = true;
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
        let unwanted = observed.iter().map(|one| &one.id).filter(|id| !memory.users.contains_key(*id));
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

    async fn newest_revisions(&self) -> Result<HashMap<WorkloadId, RevisionNumber>> {
        let mut newest = HashMap::new();
        for revision in self.catalog().list_all::<Revision>(Query::all(Kind::Revision)).await? {
            let Revision { workload, number, .. } = revision.value;
            let known = newest.entry(workload).or_insert(number);
            *known = number.max(*known);
        }
        Ok(newest)
    }
}
