//! Observing workloads: `mcp_server_deployment_status`, and connections to what is no longer there, which are forgotten.

use crate::{observe::Meters, route::Names, upstream::Upstreams};
use archestra_core::runtime::{Phase, Runtime, WorkloadEvent, WorkloadId, WorkloadSummary};
use futures::StreamExt as _;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

const RETRY: Duration = Duration::from_secs(1);

/// What observes the workloads of one runtime. Nothing that an event brings with it waits for a store.
pub(super) struct Observer {
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) upstreams: Upstreams,
    pub(super) meters: Meters,
    pub(super) names: Arc<Names>,
}

/// What was observed last.
#[derive(Debug, Default)]
struct Seen {
    phases: HashMap<WorkloadId, Phase>,
    /// Those whose names are not known yet.
    nameless: HashSet<WorkloadId>,
}

impl Observer {
    /// Observes until it is dropped.
    pub(super) async fn run(self) {
        let mut seen = Seen::default();
        let mut changes = self.names.changes();
        loop {
            let mut events = self.runtime.watch();
            loop {
                let before = *changes.borrow_and_update();
                tokio::select! {
                    event = events.next() => match event {
                        Some(Ok(event)) => self.take(event, &mut seen),
                        Some(Err(error)) => tracing::warn!(%error, "the runtime cannot be observed"),
                        None => break,
                    },
                    Ok(()) = changes.changed() => {
                        let renamed = changes.borrow().renamed != before.renamed;
                        self.rename(renamed, &mut seen);
                    }
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn take(&self, event: WorkloadEvent, seen: &mut Seen) {
        match event {
            WorkloadEvent::Snapshot(all) => {
                // What changed before a snapshot was not told one by one, so that every connection is in doubt.
                for summary in &all {
                    self.upstreams.forget_workload(&summary.id);
                }
                let present: HashSet<&WorkloadId> = all.iter().map(|summary| &summary.id).collect();
                let gone: Vec<_> = seen.phases.keys().filter(|id| !present.contains(id)).cloned().collect();
                for id in &gone {
                    self.forget(id, seen);
                }
                for summary in &all {
                    self.note(summary, seen);
                }
            }
            WorkloadEvent::Changed(summary) => {
                // Whatever answers next is another process, maybe at another place.
                self.upstreams.forget_workload(&summary.id);
                self.note(&summary, seen);
            }
            WorkloadEvent::Removed(id) => self.forget(&id, seen),
            WorkloadEvent::ToolsChanged(_) => {}
        }
    }

    fn forget(&self, id: &WorkloadId, seen: &mut Seen) {
        self.upstreams.forget_workload(id);
        self.meters.workload_gone(id);
        seen.phases.remove(id);
        seen.nameless.remove(id);
    }

    fn note(&self, summary: &WorkloadSummary, seen: &mut Seen) {
        seen.phases.insert(summary.id.clone(), summary.status.phase);
        self.show(&summary.id, summary.status.phase, &mut seen.nameless);
    }

    /// Until its name is known a workload goes by its id.
    fn show(&self, id: &WorkloadId, phase: Phase, nameless: &mut HashSet<WorkloadId>) {
        if let Some(name) = self.names.of(id) {
            nameless.remove(id);
            self.meters.workload(id, &name, phase);
        } else {
            nameless.insert(id.clone());
            self.meters.workload(id, id.as_str(), phase);
        }
    }

    /// Newcomers can only be those without a name; a changed name may be anybody's.
    fn rename(&self, everybody: bool, seen: &mut Seen) {
        let ids: Vec<_> =
            if everybody { seen.phases.keys().cloned().collect() } else { seen.nameless.iter().cloned().collect() };
        for id in ids {
            if let Some(phase) = seen.phases.get(&id) {
                self.show(&id, *phase, &mut seen.nameless);
            }
        }
    }
}
