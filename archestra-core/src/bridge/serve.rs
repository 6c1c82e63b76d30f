//! The bridge's own half: the life of the server's process, and of everything around it.

mod args;
mod child;
mod connection;
mod health;
mod listen;
mod log;

use self::{
    args::{Command, Options},
    child::{Exit, Processes},
    listen::Doors,
    log::{Log, LogThread},
};
use crate::{
    runtime::stdio::{Era, Multiplexer, MultiplexerOptions, NegotiationError, Output, OutputSink},
    secret::SecretValue,
};
use std::{
    ffi::OsString,
    fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::{Instant, sleep, timeout},
};
use zeroize::Zeroizing;

/// The exit code for what is wrong with how the bridge was started.
const USAGE: u8 = 64;
/// The exit code for a server that cannot be talked to.
const NO_PROTOCOL: u8 = 76;
/// How long `server/discover` may stay unanswered before `initialize` is tried beside it.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long what a process wrote last may take to be read.
const SETTLE: Duration = Duration::from_millis(200);
/// How long the last frames may take to leave.
const FLUSH: Duration = Duration::from_secs(2);
/// How long a process may take to end by itself once its streams are closed, then after SIGTERM, then after SIGKILL.
const END: (Duration, Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(3), Duration::from_secs(1));
/// How many notifications wait for a connection, and how many requests of one may be under way: many callers may share it.
const QUEUE: usize = 1024;
const MAX_IN_FLIGHT: usize = 8192;
/// How often it is looked whether calls are still under way.
const LOOK: Duration = Duration::from_millis(20);

/// What the connections are given.
#[derive(Debug, Clone)]
enum State {
    /// Not yet, or not any more; with the reason.
    NotReady(String),
    Ready(Arc<Multiplexer>),
    /// Nobody is to come any more, and whoever comes is served.
    Leaving(Arc<Multiplexer>),
}

/// Runs the bridge with the arguments of its command line, without the program's name, until its server has ended. The
/// program calls it before it starts any thread.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let options = match args::parse(args) {
        Ok(Command::Serve(options)) => options,
        Ok(Command::Install(directory)) => return done(install(&directory)),
        Ok(Command::Print(text)) => return done(io::stdout().lock().write_all(text.as_bytes())),
        Err(reason) => return fail(&format!("{reason}; `archestra-bridge --help` tells more"), USAGE),
    };
    let token = match read_token(&options.token_file) {
        Ok(token) => token,
        Err(reason) => return fail(&reason, USAGE),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (runtime, logs) = match runtime.and_then(|runtime| Ok((runtime, LogThread::start()?))) {
        Ok(started) => started,
        Err(error) => return fail(&format!("the bridge cannot start: {error}"), USAGE),
    };
    let log = logs.log();
    let code = runtime.block_on(async {
        match Bridge::start(options, token, log.clone()).await {
            Ok(bridge) => bridge.run().await,
            Err(error) => {
                log.say(&error);
                USAGE
            }
        }
    });
    logs.finish();
    ExitCode::from(code)
}

fn done(result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string(), 1),
    }
}

fn fail(reason: &str, code: u8) -> ExitCode {
    // There is nobody else to tell.
    let _told = writeln!(io::stderr().lock(), "archestra-bridge: {reason}");
    ExitCode::from(code)
}

/// Copies this program into a directory: an image without anything else in it has no other means.
fn install(directory: &Path) -> io::Result<()> {
    let target = directory.join("archestra-bridge");
    let new = directory.join(".archestra-bridge.new");
    let explain = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", target.display()));
    fs::copy("/proc/self/exe", &new).map_err(explain)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o555)).map_err(explain)?;
    fs::rename(&new, &target).map_err(explain)
}

fn read_token(path: &Path) -> Result<SecretValue, String> {
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(|error| format!("the token file {shown} cannot be read: {error}"))?;
    let text = Zeroizing::new(text);
    let token = text.trim();
    if super::protocol::is_token(token) {
        Ok(SecretValue::new(token))
    } else {
        Err(format!("the token file {shown} must hold one word of 1 to 512 printable characters"))
    }
}

struct Bridge {
    options: Options,
    log: Log,
    processes: Processes,
    terminate: Signal,
    interrupt: Signal,
    state: watch::Sender<State>,
    doors: Doors,
}

/// Why a process's time is over.
enum Over {
    /// It ended by itself.
    Exited(Exit),
    /// It does not talk to us any more.
    Silent(String),
    /// It ended when it was asked for its era.
    DiedWhileProbing(Exit),
    /// We are told to end.
    Told,
}

impl Bridge {
    async fn start(options: Options, token: SecretValue, log: Log) -> io::Result<Self> {
        let processes = Processes::new()?;
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let state = watch::Sender::new(State::NotReady("the server is starting".to_owned()));
        let doors = Doors::open(&options, token, &state, &log).await?;
        Ok(Self { options, log, processes, terminate, interrupt, state, doors })
    }

    async fn run(mut self) -> u8 {
        let mut era = None;
        loop {
            let (stdin, stdout) = match self.processes.spawn(&self.options.command) {
                Ok(streams) => streams,
                Err(error) => {
                    let program = self.options.command[0].display();
                    self.log.say(&format!("the command {program} cannot be started: {error}"));
                    return if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
                }
            };
            listen::raise_limit(self.options.max_connections);
            let multiplexer = Arc::new(Multiplexer::start(stdout, stdin, self.multiplexing(era)));
            let code = match self.watch(&multiplexer).await {
                Over::DiedWhileProbing(_) if era.is_none() => {
                    self.log.say(&"the server ended when it was asked for its protocol version; it is started again as a legacy one");
                    era = Some(Era::Legacy);
                    multiplexer.shutdown().await;
                    continue;
                }
                Over::Exited(exit) | Over::DiedWhileProbing(exit) => {
                    self.log.say(&format!("the server {exit}"));
                    // What it wrote last may still be on its way; a descendant may hold the stream open.
                    let _still_open = timeout(SETTLE, multiplexer.closed()).await;
                    self.close(&multiplexer, "the server has ended").await;
                    exit.code()
                }
                Over::Silent(reason) => {
                    self.log.say(&reason);
                    self.close(&multiplexer, &reason).await;
                    self.end().await;
                    NO_PROTOCOL
                }
                Over::Told => {
                    self.drain(&multiplexer).await;
                    self.close(&multiplexer, "the server is being stopped").await;
                    self.end().await;
                    0
                }
            };
            return code;
        }
    }

    fn multiplexing(&self, era: Option<Era>) -> MultiplexerOptions {
        let log = self.log.clone();
        MultiplexerOptions {
            mode: self.options.mode,
            era,
            probe_timeout: PROBE_TIMEOUT.min(self.options.init_timeout / 2),
            deadline: self.options.init_timeout,
            max_line: super::protocol::MAX_LINE,
            queue: QUEUE,
            max_in_flight: MAX_IN_FLIGHT,
            max_waiting: self.options.max_connections,
            output: Some(OutputSink::new(move |output| match output {
                Output::Text(line) => log.line(line),
                Output::TooLong { length } => {
                    log.say(&format!(
                        "a line of {length} bytes on the server's standard output was discarded: it is too long"
                    ));
                }
                // The protocol's own lines are no log.
                Output::Notification { .. } => {}
            })),
            ..MultiplexerOptions::default()
        }
    }

    /// Watches one process until its time is over.
    async fn watch(&mut self, multiplexer: &Arc<Multiplexer>) -> Over {
        let ready = {
            let negotiating = multiplexer.ready();
            tokio::pin!(negotiating);
            tokio::select! {
                exit = self.processes.ended() => Err(Some(exit)),
                ready = &mut negotiating => ready.map_err(|error| { drop(error); None }),
                _ = self.terminate.recv() => return Over::Told,
                _ = self.interrupt.recv() => return Over::Told,
            }
        };
        match ready {
            Ok(_) => {}
            Err(exited) => return self.not_ready(multiplexer, exited).await,
        }
        self.state.send_replace(State::Ready(Arc::clone(multiplexer)));
        tokio::select! {
            exit = self.processes.ended() => Over::Exited(exit),
            closed = multiplexer.closed() => match timeout(END.0, self.processes.ended()).await {
                Ok(exit) => Over::Exited(exit),
                Err(_) => Over::Silent(format!("the server closed its streams and did not end: {closed}")),
            },
            _ = self.terminate.recv() => Over::Told,
            _ = self.interrupt.recv() => Over::Told,
        }
    }

    /// Finds out why a process could not be initialized.
    async fn not_ready(&mut self, multiplexer: &Multiplexer, exited: Option<Exit>) -> Over {
        let told = timeout(SETTLE, multiplexer.ready()).await;
        let died_of_it = matches!(told, Ok(Err(NegotiationError::DiedWhileProbing)));
        let exit = match exited {
            Some(exit) => Some(exit),
            None => match told {
                Ok(Err(NegotiationError::DiedWhileProbing | NegotiationError::Ended(_))) => {
                    timeout(END.0, self.processes.ended()).await.ok()
                }
                _ => None,
            },
        };
        match (exit, told) {
            (Some(exit), _) if died_of_it => Over::DiedWhileProbing(exit),
            (Some(exit), _) => Over::Exited(exit),
            (None, Ok(Err(error))) => Over::Silent(error.to_string()),
            (None, _) => Over::Silent("the server could not be initialized".to_owned()),
        }
    }

    /// Takes no more connections soon, and lets what is under way finish.
    async fn drain(&mut self, multiplexer: &Arc<Multiplexer>) {
        let deadline = Instant::now() + self.options.drain;
        if multiplexer.negotiated().is_some() {
            self.state.send_replace(State::Leaving(Arc::clone(multiplexer)));
            if timeout(self.options.linger.min(self.options.drain), self.processes.ended()).await.is_ok() {
                return;
            }
        }
        self.state.send_replace(State::NotReady("the server is being stopped".to_owned()));
        self.doors.close();
        if multiplexer.negotiated().is_none() {
            return;
        }
        while multiplexer.is_busy() && Instant::now() < deadline {
            tokio::select! {
                _ = self.processes.ended() => return,
                () = sleep(LOOK) => {}
            }
        }
        if multiplexer.is_busy() {
            self.log.say(&format!("calls were still under way after {:?}", self.options.drain));
        }
    }

    /// Ends the channels; what is under way is answered with an error.
    async fn close(&mut self, multiplexer: &Multiplexer, reason: &str) {
        self.state.send_replace(State::NotReady(reason.to_owned()));
        self.doors.close();
        multiplexer.shutdown().await;
        // A client that does not read is not waited for.
        let _slow = timeout(FLUSH, self.doors.left()).await;
    }

    /// Ends the server's process group.
    async fn end(&mut self) {
        let (by_itself, terminated, killed) = END;
        if timeout(by_itself, self.processes.ended()).await.is_ok() {
            return;
        }
        self.processes.signal(rustix::process::Signal::TERM);
        if timeout(terminated, self.processes.ended()).await.is_ok() {
            return;
        }
        self.processes.signal(rustix::process::Signal::KILL);
        if timeout(killed, self.processes.ended()).await.is_err() {
            self.log.say(&"the server did not end");
        }
    }
}
