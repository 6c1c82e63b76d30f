//! Places to run in, workloads, calls, and a look at what lives.

use archestra_core::{
    id::InstallationId,
    runtime::{
        Connection, LogOptions, Phase, RevisionNumber, Runtime, Workload, WorkloadId, WorkloadSpec, WorkloadStatus,
        WorkloadTransport,
        process::{ProcessConfig, ProcessRuntime, SupervisorCommand},
        stdio::Channel,
    },
};
use futures::StreamExt;
use rustix::process::{Pid, Signal};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    future::Future,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

const PATIENCE: Duration = Duration::from_secs(30);
/// Under which name the tests' binary finds the function that becomes a fixture.
const FIXTURE: [&str; 3] = ["fixture_process", "--exact", "--nocapture"];

/// A state directory, and a workload id that no other test uses.
pub(crate) struct Place {
    state: PathBuf,
    id: WorkloadId,
}

impl Place {
    pub(crate) fn new(name: &str) -> Self {
        let own = format!("process-{name}-{}", std::process::id());
        // A name as the platform gives them, so that it is taken over at a second start.
        let id = WorkloadId::of_installation(InstallationId::new());
        let place = Self::at(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(&own), id);
        let _absent = fs::remove_dir_all(&place.state);
        place
    }

    pub(crate) fn at(state: PathBuf, id: WorkloadId) -> Self {
        Self { state, id }
    }

    pub(crate) fn config(&self) -> ProcessConfig {
        let supervisor =
            SupervisorCommand { program: env!("CARGO_BIN_EXE_archestra-supervisor").into(), args: Vec::new() };
        let mut config = ProcessConfig::new(&self.state, supervisor);
        config.inherit.insert("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned());
        config
    }

    pub(crate) async fn runtime(&self) -> ProcessRuntime {
        ProcessRuntime::start(self.config()).await.unwrap()
    }

    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    pub(crate) fn directory(&self, id: &WorkloadId) -> PathBuf {
        self.state.join(id.as_str())
    }

    /// The living processes of this place: id, parent and command line.
    fn processes(&self) -> Vec<(i32, i32, String)> {
        let mark = format!("ARCHESTRA_WORKLOAD={}", self.state.join(self.id.as_str()).display());
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            let mut fields = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace();
            let (state, parent) = (fields.next().unwrap(), fields.next().unwrap().parse().unwrap());
            if state == "Z" || state == "X" {
                continue;
            }
            let text = |file: &str| {
                String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default()).replace('\0', " ")
            };
            let command = text("cmdline");
            let supervisor = command.contains("archestra-supervisor") && command.contains(self.id.as_str());
            if supervisor || text("environ").split(' ').any(|variable| variable == mark) {
                found.push((pid, parent, command));
            }
        }
        found
    }

    /// The command lines of what lives.
    pub(crate) fn alive(&self) -> Vec<String> {
        self.processes().into_iter().map(|(_, _, command)| command).collect()
    }

    pub(crate) fn pids(&self) -> BTreeSet<i32> {
        self.processes().into_iter().map(|(pid, _, _)| pid).collect()
    }

    fn supervisor(&self) -> i32 {
        self.processes().into_iter().find(|(_, _, command)| command.contains("archestra-supervisor")).unwrap().0
    }

    pub(crate) fn kill_supervisor(&self) {
        kill(self.supervisor());
    }

    /// Kills what the supervisor started, and nothing of what that started.
    pub(crate) fn kill_child(&self) {
        let supervisor = self.supervisor();
        kill(self.processes().into_iter().find(|(_, parent, _)| *parent == supervisor).unwrap().0);
    }

    pub(crate) async fn log_texts(
        &self,
        runtime: &ProcessRuntime,
        id: &WorkloadId,
        options: LogOptions,
    ) -> Vec<String> {
        runtime.logs(id, options).await.unwrap().map(|line| line.unwrap().text).collect().await
    }

    /// Another process with a runtime of its own that runs `mode=tree` here.
    pub(crate) async fn spawn_parent(&self) -> Child {
        let mut parent = Command::new(std::env::current_exe().unwrap())
            .args(FIXTURE)
            .args(["mode=parent", &format!("state={}", self.state.display()), &format!("id={}", self.id)])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(parent.stdout.take().unwrap()).lines();
        while timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap() != "the tree is up" {}
        parent
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _absent = fs::remove_dir_all(&self.state);
    }
}

fn kill(pid: i32) {
    rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

/// A workload that is this binary in one of the modes of the fixture.
pub(crate) fn workload(place: &Place, mode: &str) -> Workload {
    let spec = WorkloadSpec {
        name: "fixture".to_owned(),
        image: None,
        command: vec![std::env::current_exe().unwrap().to_str().unwrap().to_owned()],
        args: FIXTURE.into_iter().chain([mode]).map(str::to_owned).collect(),
        env: Vec::new(),
        env_from: Vec::new(),
        transport: WorkloadTransport::Stdio,
        exclusive: false,
        pull_secrets: Vec::new(),
        service_account: None,
        run_as_user: None,
        deployment_yaml: None,
        platform: BTreeMap::new(),
        team: None,
        namespace: None,
    };
    Workload { id: place.id.clone(), revision: RevisionNumber(1), spec, secrets: BTreeMap::new() }
}

pub(crate) async fn channel(runtime: &ProcessRuntime, id: &WorkloadId) -> Channel {
    match runtime.connect(id).await.unwrap() {
        Connection::Stdio(channel) => channel,
        Connection::Http(endpoint) => panic!("{endpoint:?}"),
    }
}

/// Calls a tool; the whole answer.
pub(crate) async fn call(channel: &mut Channel, id: impl serde::Serialize, tool: &str, text: &str) -> String {
    let id = serde_json::to_value(id).unwrap();
    let params = serde_json::json!({"name": tool, "arguments": {"text": text}});
    let request = serde_json::json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
    channel.send(request.to_string().into()).await.unwrap();
    loop {
        let frame =
            timeout(PATIENCE, channel.recv()).await.expect("an answer in time").expect("an answer before the end");
        let answer: serde_json::Value = serde_json::from_slice(&frame).unwrap();
        if answer["id"] == id {
            return answer.to_string();
        }
    }
}

/// Waits until the server has begun with so many calls of `sleep`.
pub(crate) async fn until_begun(channel: &mut Channel, count: u32) {
    let deadline = Instant::now() + PATIENCE;
    while !call(channel, "begun", "begun", "").await.contains(&format!("begun: {count}")) {
        assert!(Instant::now() < deadline, "the server never began with call {count}");
        sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn phase(runtime: &ProcessRuntime, id: &WorkloadId, phase: Phase) -> WorkloadStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = runtime.status(id).await.unwrap();
        if status.phase == phase {
            return status;
        }
        assert!(Instant::now() < deadline, "never {phase:?}: {status:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn ready(runtime: &ProcessRuntime, id: &WorkloadId) -> WorkloadStatus {
    phase(runtime, id, Phase::Running).await
}

pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !check().await {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
