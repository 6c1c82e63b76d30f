//! The supervisor: a small process that starts one workload's command and ends all of its processes with the runtime.
//!
//! It talks with the runtime over its standard input, a socket. The child's own standard streams come over that socket as
//! file descriptors and are handed on, so the supervisor is never between a server and its callers.
//!
//! On Linux it is the reaper of whatever its descendants orphan, so that also processes which left the child's group and
//! session are found and ended. Elsewhere the group is ended.

use super::{
    message::{Exit, MAX_LINE, Order, Report, Start},
    procfs,
    record::Record,
};
use rustix::{
    io::Errno,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags},
    process::{Pid, Signal, WaitOptions, WaitStatus},
};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};
use tokio::time::Instant;
use zeroize::Zeroizing;

/// How long what a child left behind may take after SIGTERM, when it ended by itself.
const LEFTOVER_GRACE: Duration = Duration::from_secs(1);
/// The pause between two rounds of SIGKILL: at first, and at most.
const KILL_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
const STACK: usize = 128 * 1024;

/// Runs the supervisor until nothing of the workload is left. The embedding binary calls it for its hidden command, before it
/// starts any thread and without reading its standard input.
///
/// # Errors
/// When the standard input is not the control socket of a runtime: this command is not for people.
pub fn run() -> io::Result<ExitCode> {
    let mut control = take_control()?;
    let streams = receive_streams(&control)?;
    let mut orders = BufReader::new(control.try_clone()?);
    let line = Zeroizing::new(read_line(&mut orders)?.ok_or(io::ErrorKind::UnexpectedEof)?);
    let Ok(Order::Start(start)) = serde_json::from_slice::<Order<'_>>(&line) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the first message of a runtime says what to start"));
    };

    #[cfg(target_os = "linux")]
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;

    let orphan_grace = Duration::from_millis(start.orphan_grace_ms);
    let child = match spawn(&start, streams) {
        Ok(child) => child,
        Err(error) => {
            report(&mut control, &Report::Failed { reason: error.to_string() });
            return Ok(ExitCode::SUCCESS);
        }
    };
    let root = PathBuf::from(start.root.as_ref());
    drop(start);
    drop(line);
    report(&mut control, &Report::Started { pid: child.as_raw_nonzero().get() });

    let (sender, events) = mpsc::channel();
    thread::Builder::new().stack_size(STACK).spawn({
        let sender = sender.clone();
        move || read_orders(orders, &sender)
    })?;
    thread::Builder::new().stack_size(STACK).spawn(move || reap(child, &sender))?;
    Supervision { child, child_ended: false, stage: Stage::Running, orphan_grace }.run(&events, &mut control);
    Record::remove_own(&root);
    Ok(ExitCode::SUCCESS)
}

enum Event {
    Stop { drain: Duration, grace: Duration },
    RuntimeGone,
    Exited(Exit),
    NoneLeft,
}

#[derive(Clone, Copy)]
enum Stage {
    Running,
    /// The child has been given the end of its standard input.
    Draining {
        until: Instant,
        grace: Duration,
    },
    /// Everything has been sent SIGTERM.
    Terminating {
        until: Instant,
    },
    /// Everything is sent SIGKILL until nothing is left.
    Killing {
        until: Instant,
        pause: Duration,
    },
}

struct Supervision {
    child: Pid,
    child_ended: bool,
    stage: Stage,
    orphan_grace: Duration,
}

impl Supervision {
    fn run(mut self, events: &mpsc::Receiver<Event>, control: &mut UnixStream) {
        loop {
            let event = match self.stage {
                Stage::Running => events.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
                Stage::Draining { until, .. } | Stage::Terminating { until } | Stage::Killing { until, .. } => {
                    events.recv_timeout(until.saturating_duration_since(Instant::now()))
                }
            };
            match event {
                Ok(Event::Stop { drain, grace }) => {
                    if matches!(self.stage, Stage::Running) {
                        self.stage = Stage::Draining { until: Instant::now() + drain, grace };
                    }
                }
                Ok(Event::RuntimeGone) => {
                    if matches!(self.stage, Stage::Running | Stage::Draining { .. }) {
                        self.terminate(self.orphan_grace);
                    }
                }
                Ok(Event::Exited(exit)) => {
                    self.child_ended = true;
                    report(control, &Report::Exited(exit));
                    if matches!(self.stage, Stage::Running | Stage::Draining { .. }) {
                        self.terminate(LEFTOVER_GRACE);
                    }
                }
                Ok(Event::NoneLeft) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Err(mpsc::RecvTimeoutError::Timeout) => self.advance(),
            }
        }
    }

    fn advance(&mut self) {
        match self.stage {
            Stage::Running => {}
            Stage::Draining { grace, .. } => self.terminate(grace),
            Stage::Terminating { .. } => self.kill(KILL_PAUSE.0),
            Stage::Killing { pause, .. } => self.kill((pause * 2).min(KILL_PAUSE.1)),
        }
    }

    fn terminate(&mut self, grace: Duration) {
        self.signal(Signal::TERM);
        self.stage = Stage::Terminating { until: Instant::now() + grace };
    }

    fn kill(&mut self, pause: Duration) {
        self.signal(Signal::KILL);
        self.stage = Stage::Killing { until: Instant::now() + pause, pause };
    }

    fn signal(&self, signal: Signal) {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let processes = procfs::all();
        // The number of a group whose leader has been waited for could belong to somebody else by now. Where orphans come to
        // us the group is not needed: everything that is left is a descendant.
        if !self.child_ended || processes.is_empty() {
            let _gone_already = rustix::process::kill_process_group(self.child, signal);
        }
        let group = self.child.as_raw_nonzero().get();
        for pid in procfs::descendants(&processes, [own]) {
            let signalled = !self.child_ended && processes.iter().any(|p| p.pid == pid && p.group == group);
            if !signalled && let Some(pid) = Pid::from_raw(pid) {
                let _gone_already = rustix::process::kill_process(pid, signal);
            }
        }
    }
}

/// Takes the socket off the standard input, so that the child cannot inherit it.
fn take_control() -> io::Result<UnixStream> {
    let control = UnixStream::from(rustix::stdio::stdin().try_clone_to_owned()?);
    control.local_addr().map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidInput, "this command is started by the process runtime, not by people")
    })?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(control)
}

fn receive_streams(control: &UnixStream) -> io::Result<[OwnedFd; 3]> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0_u8];
    #[cfg(target_os = "linux")]
    let flags = RecvFlags::CMSG_CLOEXEC;
    #[cfg(not(target_os = "linux"))]
    let flags = RecvFlags::empty();
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(control, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, flags)
    })?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut streams = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            streams.extend(fds);
        }
    }
    #[cfg(not(target_os = "linux"))]
    for stream in &streams {
        rustix::io::fcntl_setfd(stream, rustix::io::FdFlags::CLOEXEC)?;
    }
    streams.try_into().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the runtime sends three streams"))
}

fn spawn(start: &Start<'_>, [stdin, stdout, stderr]: [OwnedFd; 3]) -> io::Result<Pid> {
    let child = Command::new(start.program.as_ref())
        .args(start.args.iter().map(AsRef::as_ref))
        .env_clear()
        .envs(start.env.iter().map(|(name, value)| (name.as_ref(), value.as_ref())))
        .current_dir(start.directory.as_ref())
        .process_group(0)
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::from(stdout))
        .stderr(Stdio::from(stderr))
        .spawn()?;
    Pid::from_raw(child.id().cast_signed()).ok_or_else(|| io::ErrorKind::Other.into())
}

fn read_orders(mut orders: BufReader<UnixStream>, events: &mpsc::Sender<Event>) {
    while let Ok(Some(line)) = read_line(&mut orders) {
        if let Ok(Order::Stop { drain_ms, grace_ms }) = serde_json::from_slice(&line) {
            let stop = Event::Stop { drain: Duration::from_millis(drain_ms), grace: Duration::from_millis(grace_ms) };
            if events.send(stop).is_err() {
                return;
            }
        }
    }
    let _ended_already = events.send(Event::RuntimeGone);
}

fn reap(child: Pid, events: &mpsc::Sender<Event>) {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == child => {
                if events.send(Event::Exited(exit_of(status))).is_err() {
                    return;
                }
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => {
                let _ended_already = events.send(Event::NoneLeft);
                return;
            }
        }
    }
}

fn exit_of(status: WaitStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown,
    }
}

/// One line without its end; `None` at the end of the stream.
fn read_line(from: &mut BufReader<UnixStream>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = from.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
    Ok((read > 0).then_some(line))
}

/// A runtime that is gone needs no report.
fn report(control: &mut UnixStream, report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let _runtime_gone = control.write_all(&line);
    }
}
