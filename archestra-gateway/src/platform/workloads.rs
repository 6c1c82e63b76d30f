//! Observing workloads: `mcp_server_deployment_status`, and connections to what is no longer there, which are forgotten.

use crate::{observe::Meters, route::Names, upstream::Upstreams};
use archestra_core::runtime::{
    Phase, RevisionNumber, Runtime, WorkloadEvent, WorkloadId, WorkloadStatus, WorkloadSummary,
};
use chrono::{DateTime, Utc};
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
    last: HashMap<WorkloadId, Process>,
    /// Those whose names are not known yet.
    nameless: HashSet<WorkloadId>,
}

/// By what a process is told from the one that answered before.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    phase: Phase,
    revision: Option<RevisionNumber>,
    started_at: Option<DateTime<Utc>>,
}

impl Process {
    fn of(summary: &WorkloadSummary) -> Self {
        let WorkloadStatus { phase, revision, started_at, .. } = summary.status;
        Self { phase, revision, started_at }
    }
}

impl Seen {
    /// Takes in how a workload is; whether what answers now may be another process than the one before.
    fn is_another(&mut self, summary: &WorkloadSummary) -> bool {
        let process = Process::of(summary);
        self.last.insert(summary.id.clone(), process.clone()).as_ref() != Some(&process)
    }
}

impl Observer {
    /// Observes until it is dropped.
    pub(super) async fn run(self) {
        let mut seen = Seen::default();
        let mut changes = self.names.changes();
        // Only what was looked at is taken as seen: a change that comes together with an event is not lost.
        let mut before = *changes.borrow_and_update();
        loop {
            let mut events = self.runtime.watch();
            loop {
                tokio::select! {
                    event = events.next() => match event {
                        Some(Ok(event)) => self.take(event, &mut seen),
                        Some(Err(error)) => tracing::warn!(%error, "the runtime cannot be observed"),
                        None => break,
                    },
                    Ok(()) = changes.changed() => {
                        let now = *changes.borrow_and_update();
                        self.rename(now.renamed != before.renamed, &mut seen);
                        before = now;
                    }
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn take(&self, event: WorkloadEvent, seen: &mut Seen) {
        match event {
            WorkloadEvent::Snapshot(all) => {
                let present: HashSet<&WorkloadId> = all.iter().map(|summary| &summary.id).collect();
                let gone: Vec<_> = seen.last.keys().filter(|id| !present.contains(id)).cloned().collect();
                for id in &gone {
                    self.forget(id, seen);
                }
                for summary in &all {
                    self.note(summary, seen);
                }
            }
            WorkloadEvent::Changed(summary) => self.note(&summary, seen),
            WorkloadEvent::Removed(id) => self.forget(&id, seen),
            WorkloadEvent::ToolsChanged(_) => {}
        }
    }

    fn forget(&self, id: &WorkloadId, seen: &mut Seen) {
        self.upstreams.forget_workload(id);
        self.meters.workload_gone(id);
        seen.last.remove(id);
        seen.nameless.remove(id);
    }

    fn note(&self, summary: &WorkloadSummary, seen: &mut Seen) {
        if seen.is_another(summary) {
            // Whatever answers next is another process, maybe at another place. One that goes on keeps its connections.
            self.upstreams.forget_workload(&summary.id);
        }
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
            if everybody { seen.last.keys().cloned().collect() } else { seen.nameless.iter().cloned().collect() };
        for id in ids {
            if let Some(phase) = seen.last.get(&id).map(|last| last.phase) {
                self.show(&id, phase, &mut seen.nameless);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{
        UpstreamOptions, UpstreamParts,
        client::{HttpClient, PoolOptions},
        dial::{ClientTls, DialOptions, DialPolicy, Dialer},
    };
    use archestra_core::{
        catalog::Record,
        installation::Owner,
        runtime::Workload,
        testing::{MemorySecrets, ScriptedRuntime, ScriptedServer, fixtures},
    };
    use rustls::crypto::aws_lc_rs;

    fn upstreams() -> Upstreams {
        drop(aws_lc_rs::default_provider().install_default());
        let tls = ClientTls::new(std::iter::empty::<&[u8]>()).unwrap();
        let dialer = Dialer::new(DialOptions::new(DialPolicy::loopback(), tls));
        Upstreams::new(UpstreamParts {
            client: HttpClient::new(dialer, PoolOptions::default()),
            runtime: None,
            secrets: Arc::new(MemorySecrets::new()),
            options: UpstreamOptions::default(),
        })
    }

    #[test]
    fn only_another_process_is_taken_for_one() {
        let mut seen = Seen::default();
        let mut summary = WorkloadSummary {
            id: WorkloadId::of_installation(archestra_core::id::InstallationId::new()),
            namespace: None,
            status: WorkloadStatus::new(Phase::Running),
            drift: None,
        };
        assert!(seen.is_another(&summary));
        summary.drift = Some("its replicas were changed".to_owned());
        summary.status.reason = Some("a probe was late".to_owned());
        assert!(!seen.is_another(&summary), "the same process goes on");
        summary.status.started_at = Some(Utc::now());
        assert!(seen.is_another(&summary) && !seen.is_another(&summary));
        summary.status.revision = Some(RevisionNumber(2));
        assert!(seen.is_another(&summary) && !seen.is_another(&summary));
        summary.status.phase = Phase::Restarting;
        assert!(seen.is_another(&summary) && !seen.is_another(&summary));
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_comes_together_with_an_event_is_not_lost() {
        let (runtime, meters) = (ScriptedRuntime::new(ScriptedServer::new("any")), Meters::new());
        let names = Arc::new(Names::default());
        let observed: Arc<dyn Runtime> = Arc::new(runtime.clone());
        let (shown, called) = (meters.clone(), Arc::clone(&names));
        let task = tokio::spawn(Observer { runtime: observed, upstreams: upstreams(), meters, names }.run());
        let mut entry = fixtures::self_hosted_entry("tracker", &["x"]);
        let workload = fixtures::workload(fixtures::workload_spec("any", &["x"]));
        runtime.apply(&Workload { id: WorkloadId::of_entry(entry.id), ..workload.clone() }).await.unwrap();
        runtime.apply(&workload).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        for n in 0..32 {
            entry.spec.name = format!("name-{n}");
            called.apply(entry.id.into(), Some(&Record::Entry(entry.clone())));
            runtime.restart(&workload.id).await.unwrap();
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert!(shown.render().contains(&format!("server_name=\"name-{n}\"")), "{}", shown.render());
        }
        task.abort();
        runtime.shutdown().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_workload_is_shown_under_its_servers_name_as_soon_as_that_is_known() {
        let (runtime, meters) = (ScriptedRuntime::new(ScriptedServer::new("any")), Meters::new());
        let names = Arc::new(Names::default());
        let observed: Arc<dyn Runtime> = Arc::new(runtime.clone());
        let (shown, called) = (meters.clone(), Arc::clone(&names));
        let observer = Observer { runtime: observed, upstreams: upstreams(), meters, names };
        let task = tokio::spawn(observer.run());
        let shows = async |name: &str, phase: &str| {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let series = format!("mcp_server_deployment_status{{server_name=\"{name}\",state=\"{phase}\"}} 1");
            let shown = shown.render();
            assert!(shown.contains(&series), "{series} in {shown}");
            assert_eq!(shown.matches("server_name=").count(), Phase::ALL.len(), "{shown}");
        };

        let mut entry = fixtures::self_hosted_entry("tracker", &["x"]);
        let installation = fixtures::installation(&entry, Owner::Organization);
        let id = WorkloadId::of_installation(installation.id);
        let workload = fixtures::workload(fixtures::workload_spec("any", &["x"]));
        runtime.apply(&Workload { id: id.clone(), ..workload }).await.unwrap();
        shows(id.as_str(), "running").await;
        called.apply(entry.id.into(), Some(&Record::Entry(entry.clone())));
        called.apply(installation.id.into(), Some(&Record::Installation(installation)));
        shows("tracker", "running").await;
        entry.spec.name = "renamed".to_owned();
        called.apply(entry.id.into(), Some(&Record::Entry(entry)));
        shows("renamed", "running").await;
        runtime.remove(&id).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!shown.render().contains("server_name="), "{}", shown.render());
        task.abort();
        runtime.shutdown().await;
    }
}
