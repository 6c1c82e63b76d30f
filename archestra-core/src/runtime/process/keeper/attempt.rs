//! One attempt to run a workload, from its directories to the end of its last process.

use super::{Failure, Keeper, Order};
use crate::{
    runtime::{
        Phase, WorkloadStatus, WorkloadTransport,
        process::{
            child::{Child, Input, Streams},
            marker,
            message::Exit,
            plan::{Directories, Plan},
            ports::{NoPort, TAKEN_HINT},
            server::{Happening, HttpServer, NotReady, Reach, Server, StdioServer},
        },
        stdio::Mode,
    },
    secret::redact,
};
use chrono::Utc;
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    sync::Arc,
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

/// How long a process may go on after its standard input has ended.
const DRAIN: Duration = Duration::from_millis(500);
/// How long what a process wrote last may take to arrive.
const LAST_WORDS: Duration = Duration::from_millis(500);
const SHOWN_LINES: usize = 3;
const SHOWN_BYTES: usize = 600;

/// Why a running server has to be ended.
enum Event {
    Order(Order),
    Exited(Exit),
    Closed,
    NotReady(String),
    PortTaken(u16),
}

impl Keeper {
    /// Starts the plan and stays with it until it has ended; nothing of it is left then.
    pub(super) async fn attempt(&mut self, plan: &Plan) -> Result<Order, Failure> {
        let logs = Arc::clone(&self.slot.logs);
        logs.begin_run();
        let started_at = Utc::now();
        let (mut child, streams, port) = self.spawn(plan).await?;
        logs.say("started");

        let mut readers = JoinSet::new();
        readers.spawn(Arc::clone(&logs).capture(streams.stderr));
        let mut server = match (&plan.transport, streams.stdin) {
            (WorkloadTransport::Stdio, Some(stdin)) => {
                let mode = if plan.exclusive { Mode::Exclusive } else { Mode::Shared };
                let deadline = self.shared.config.ready_timeout;
                Server::Stdio(StdioServer::start(stdin, streams.stdout, mode, &self.hints, deadline, &logs))
            }
            (WorkloadTransport::Stdio, None) => return Err(failed("its standard input was not connected".to_owned())),
            (WorkloadTransport::StreamableHttp { path, .. }, _) => {
                readers.spawn(Arc::clone(&logs).capture(streams.stdout));
                let generation = self.shared.next_generation();
                Server::Http(HttpServer::new(port.unwrap_or_default(), path, generation, child.supervisor()))
            }
        };

        let mut ready_at = None;
        let event = match self.until_ready(&mut child, &server).await {
            Ok(reach) => {
                server.teach(&mut self.hints);
                ready_at = Some(Instant::now());
                logs.say("its server answers");
                self.publish_running(reach, started_at);
                self.until_over(&mut child, &mut server).await
            }
            Err(event) => event,
        };
        let died_of_probe = matches!(event, Event::Exited(_)) && ready_at.is_none() && server.died_of_probe().await;
        let failure = match event {
            Event::Order(_) => None,
            Event::Exited(exit) => Some(failed(exit.describe())),
            Event::Closed => Some(failed("closed its standard output while it went on running".to_owned())),
            Event::PortTaken(port) => Some(failed(format!("port {port} is taken by another program"))),
            Event::NotReady(ref reason) => Some(Failure { hopeless: true, ..failed(reason.clone()) }),
        };
        match (&event, &failure) {
            (Event::Order(Order::Roll), _) => {
                self.publish(WorkloadStatus::new(Phase::Pending).because("its process is being replaced", None));
            }
            (Event::Order(_), _) => {
                self.publish(WorkloadStatus::new(Phase::Stopped).because("it is being ended", None))
            }
            (_, Some(failure)) if ready_at.is_some() => {
                self.publish(WorkloadStatus::new(Phase::Restarting).because(failure.reason.clone(), None));
            }
            // It was not up: what is said about the last time holds until there is more to say.
            _ => {}
        }

        // The end of its standard input comes first: it is how a stdio server is asked to end.
        server.end().await;
        let exit = child.end(DRAIN, self.shared.config.stop_grace).await;
        if timeout(LAST_WORDS, async { while readers.join_next().await.is_some() {} }).await.is_err() {
            readers.shutdown().await;
        }

        let Some(mut failure) = failure else {
            logs.say(format!("stopped; it {}", exit.describe()));
            let Event::Order(order) = event else { return Ok(Order::Stop) };
            return Ok(order);
        };
        failure.healthy_for = ready_at.map_or(Duration::ZERO, |at| at.elapsed());
        failure.learned = died_of_probe && self.hints.try_legacy();
        failure.hint = self.hint(&event, plan);
        if failure.learned {
            logs.say(format!(
                "{} when it was asked for its protocol era; it is started again as a legacy server",
                failure.reason
            ));
        }
        Err(failure)
    }

    async fn spawn(&mut self, plan: &Plan) -> Result<(Child, Streams, Option<u16>), Failure> {
        prepare(self.directories.clone()).await.map_err(|error| {
            failed(format!("its directory {} cannot be used: {error}", self.directories.root.display()))
        })?;
        let (input, port) = match &plan.transport {
            WorkloadTransport::Stdio => {
                self.lease = None;
                (Input::Pipe, None)
            }
            WorkloadTransport::StreamableHttp { port, .. } => {
                let port = self
                    .port(*port)
                    .map_err(|NoPort { reason, hint }| Failure { hint: Some(hint.to_owned()), ..failed(reason) })?;
                (Input::Nothing, Some(port))
            }
        };
        let config = &self.shared.config;
        let launch = plan.launch(config, &self.directories, port);
        match Child::spawn(&config.supervisor, &self.slot.id, &launch, &self.directories, input, config.orphan_grace)
            .await
        {
            Ok((child, streams)) => Ok((child, streams, port)),
            Err(error) => Err(Failure {
                hint: Some("check that the command is a program this machine can execute".to_owned()),
                hopeless: true,
                ..failed(format!("its process cannot be started: {error}"))
            }),
        }
    }

    /// The port for this attempt: the one that is wanted, or the one that it had before. Between two attempts it is given to
    /// nobody else, for whoever was calling the server may still send it what is meant for no other.
    fn port(&mut self, wanted: Option<u16>) -> Result<u16, NoPort> {
        let ports = &self.shared.ports;
        let held = self.lease.take_if(|lease| match wanted {
            Some(port) => lease.port() == port,
            // Another program was quicker: there are other ports.
            None => lease.available().is_ok(),
        });
        let lease = match (held, wanted) {
            (Some(lease), _) => lease,
            (None, Some(port)) => {
                self.lease = None;
                ports.fixed(port)?
            }
            (None, None) => ports.free()?,
        };
        let lease = self.lease.insert(lease);
        lease.available().map(|()| lease.port())
    }

    async fn until_ready(&mut self, child: &mut Child, server: &Server) -> Result<Reach, Event> {
        let deadline = self.shared.config.ready_timeout;
        tokio::select! {
            biased;
            order = self.order() => Err(Event::Order(order)),
            exit = child.exited() => Err(match server.given_up() {
                // It ended because it was given up, and not the other way round.
                Some(reason) => Event::NotReady(reason),
                None => Event::Exited(exit),
            }),
            ready = server.ready(deadline) => match ready {
                Ok(reach) => Ok(reach),
                Err(NotReady::Closed) => Err(closed(child).await),
                Err(NotReady::Refused(reason)) => Err(Event::NotReady(reason)),
                Err(NotReady::Taken(port)) => Err(Event::PortTaken(port)),
            },
        }
    }

    async fn until_over(&mut self, child: &mut Child, server: &mut Server) -> Event {
        loop {
            tokio::select! {
                biased;
                order = self.order() => return Event::Order(order),
                exit = child.exited() => {
                    server.settle().await;
                    return Event::Exited(exit);
                }
                happening = server.next() => match happening {
                    Happening::Closed => return closed(child).await,
                    Happening::ToolsChanged => self.shared.hub.tools_changed(&self.slot.id),
                },
            }
        }
    }

    /// What a person can do: what the ending itself says, and the server's last words.
    fn hint(&self, event: &Event, plan: &Plan) -> Option<String> {
        let own = match event {
            Event::Exited(exit) => exit.hint(),
            Event::Closed | Event::Order(_) => None,
            Event::PortTaken(_) => Some(TAKEN_HINT),
            Event::NotReady(_) => {
                Some("check that the command starts an MCP server for this transport, and see its log")
            }
        };
        // Half a secret would not be found any more, so the text is cut afterwards.
        let mut words = redact(self.slot.logs.last_words(SHOWN_LINES).join(" ⏎ "), plan.secrets());
        words.truncate(words.floor_char_boundary(SHOWN_BYTES));
        match (own, words.is_empty()) {
            (None, true) => None,
            (Some(own), true) => Some(own.to_owned()),
            (None, false) => Some(format!("its last words: {words}")),
            (Some(own), false) => Some(format!("{own}; its last words: {words}")),
        }
    }
}

/// A process that ends closes its streams first; then how it ended says more.
async fn closed(child: &mut Child) -> Event {
    match timeout(LAST_WORDS, child.exited()).await {
        Ok(exit) => Event::Exited(exit),
        Err(_) => Event::Closed,
    }
}

fn failed(reason: String) -> Failure {
    Failure { reason, hint: None, healthy_for: Duration::ZERO, learned: false, hopeless: false }
}

/// Makes the directories ready, on a thread that may wait: what a server left may be a large tree.
async fn prepare(directories: Directories) -> io::Result<()> {
    let prepared = tokio::task::spawn_blocking(move || prepare_now(&directories));
    prepared.await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// HOME stays from run to run, for caches; what is temporary does not.
fn prepare_now(directories: &Directories) -> io::Result<()> {
    marker::claim(&directories.root)?;
    match fs::remove_dir_all(&directories.tmp) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    for directory in [&directories.root, &directories.home, &directories.tmp] {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}
