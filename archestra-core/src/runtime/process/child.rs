//! A running command under its supervisor, from the runtime's side.

use super::{
    config::SupervisorCommand,
    message::{Exit, Order, Report, Start},
    plan::{Directories, Launch, text_of},
    record::Record,
};
use crate::runtime::WorkloadId;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use std::{
    borrow::Cow,
    fs::File,
    io::{self, IoSlice, PipeReader},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream as StdUnixStream,
    },
    path::PathBuf,
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf, pipe},
    },
    process::{Child as SupervisorProcess, Command},
    time::timeout,
};
use zeroize::Zeroizing;

/// How long a supervisor may take to start its child.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// How long a supervisor may take for SIGKILL to do its work, after all graces.
const KILL_DEADLINE: Duration = Duration::from_secs(5);

/// Where a child's standard input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    Pipe,
    Nothing,
}

/// Our ends of a child's standard streams.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) stdin: Option<pipe::Sender>,
    pub(super) stdout: pipe::Receiver,
    pub(super) stderr: pipe::Receiver,
}

/// A command under its supervisor. Dropping it ends all of its processes: the supervisor sees its control socket close.
#[derive(Debug)]
pub(super) struct Child {
    supervisor: SupervisorProcess,
    orders: OwnedWriteHalf,
    reports: Lines<BufReader<OwnedReadHalf>>,
    record: Record,
    directories: Directories,
    exit: Option<Exit>,
}

impl Child {
    /// Starts a supervisor and, by it, the command. The record is written before there is anything that could outlive us.
    pub(super) async fn spawn(
        command: &SupervisorCommand,
        id: &WorkloadId,
        launch: &Launch,
        directories: &Directories,
        input: Input,
        orphan_grace: Duration,
    ) -> io::Result<(Self, Streams)> {
        end_left(directories.root.clone()).await?;
        let (ours, theirs) = StdUnixStream::pair()?;
        let (streams, child_ends) = streams(input)?;
        let supervisor = Command::new(&command.program)
            .args(&command.args)
            .arg(id.as_str())
            .env_clear()
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("the supervisor {} cannot be started: {error}", command.program.display()),
                )
            })?;
        let supervisor_pid = supervisor.id().map(u32::cast_signed);
        Record::of(supervisor_pid, None).write(&directories.root)?;

        send_streams(&ours, &child_ends)?;
        drop(child_ends);
        ours.set_nonblocking(true)?;
        let (reports, orders) = UnixStream::from_std(ours)?.into_split();
        let mut child = Self {
            supervisor,
            orders,
            reports: BufReader::new(reports).lines(),
            record: Record::of(supervisor_pid, None),
            directories: directories.clone(),
            exit: None,
        };
        let start = Start {
            program: Cow::Borrowed(&launch.program),
            args: launch.args.iter().map(|arg| Cow::Borrowed(arg.as_str())).collect(),
            env: launch
                .env
                .iter()
                .map(|(name, value)| (Cow::Borrowed(name.as_str()), Cow::Borrowed(value.expose())))
                .collect(),
            directory: Cow::Borrowed(text_of(&launch.directory)),
            root: Cow::Borrowed(text_of(&directories.root)),
            orphan_grace_ms: milliseconds(orphan_grace),
        };
        let pid = timeout(START_DEADLINE, child.start(&Order::Start(start))).await.map_err(|_| {
            io::Error::new(io::ErrorKind::TimedOut, format!("the supervisor did not answer within {START_DEADLINE:?}"))
        })??;
        child.record = Record::of(supervisor_pid, Some(pid));
        child.record.write(&directories.root)?;
        Ok((child, streams))
    }

    async fn start(&mut self, order: &Order<'_>) -> io::Result<i32> {
        self.send(order).await?;
        match self.report().await? {
            Some(Report::Started { pid }) => Ok(pid),
            Some(Report::Failed { reason }) => Err(io::Error::other(reason)),
            Some(Report::Exited(_)) | None => {
                Err(io::Error::other("the supervisor ended before it had started the command; is it one?"))
            }
        }
    }

    /// The supervisor: all processes of the command descend from it.
    pub(super) fn supervisor(&self) -> Option<i32> {
        self.supervisor.id().map(u32::cast_signed)
    }

    /// Waits until the command has ended. Dropping the future loses nothing.
    pub(super) async fn exited(&mut self) -> Exit {
        loop {
            if let Some(exit) = self.exit {
                return exit;
            }
            match self.report().await {
                Ok(Some(Report::Exited(exit))) => self.exit = Some(exit),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => self.exit = Some(Exit::Unknown),
            }
        }
    }

    /// Ends the command and all of its processes, and returns when none is left: after `drain` without SIGTERM, then `grace`
    /// without SIGKILL.
    pub(super) async fn end(mut self, drain: Duration, grace: Duration) -> Exit {
        if self.exit.is_none() {
            // A supervisor that cannot be told is gone; what it left is killed below.
            let _gone = self.send(&Order::Stop { drain_ms: milliseconds(drain), grace_ms: milliseconds(grace) }).await;
        }
        let ended = timeout(drain + grace + KILL_DEADLINE, async {
            let exit = self.exited().await;
            self.supervisor.wait().await.map(|_| exit)
        });
        let exit = match ended.await {
            Ok(Ok(exit)) => exit,
            Ok(Err(_)) | Err(_) => Exit::Unknown,
        };
        if exit == Exit::Unknown {
            let _gone = self.supervisor.kill().await;
            if !self.sweep().await {
                // The record is what the next run, or the next start of ours, finds them by.
                return exit;
            }
        }
        Record::remove(&self.directories.root);
        exit
    }

    /// Without a supervisor whatever it left must be looked for. Whether nothing of it lives any more.
    async fn sweep(&self) -> bool {
        let (record, root) = (self.record.clone(), self.directories.root.clone());
        let ended = matches!(tokio::task::spawn_blocking(move || record.end_all(&root)).await, Ok(true));
        if !ended {
            tracing::error!(directory = %self.directories.root.display(), "processes of a workload could not be ended");
        }
        ended
    }

    async fn send(&mut self, order: &Order<'_>) -> io::Result<()> {
        let mut line = Zeroizing::new(serde_json::to_vec(order)?);
        line.push(b'\n');
        self.orders.write_all(&line).await
    }

    async fn report(&mut self) -> io::Result<Option<Report>> {
        match self.reports.next_line().await? {
            Some(line) => Ok(Some(serde_json::from_str(&line)?)),
            None => Ok(None),
        }
    }
}

/// What an earlier run left is ended before its record is replaced by that of the next.
async fn end_left(root: PathBuf) -> io::Result<()> {
    let ended = tokio::task::spawn_blocking(move || Record::end_left(&root)).await;
    if !ended.map_err(io::Error::other)? {
        return Err(io::Error::other("processes of its last run are still there and cannot be ended"));
    }
    Ok(())
}

fn streams(input: Input) -> io::Result<(Streams, [OwnedFd; 3])> {
    let (stdin, child_stdin) = match input {
        Input::Pipe => {
            let (theirs, ours) = io::pipe()?;
            (Some(pipe::Sender::from_owned_fd(OwnedFd::from(ours))?), OwnedFd::from(theirs))
        }
        Input::Nothing => (None, OwnedFd::from(File::open("/dev/null")?)),
    };
    let receiver = |ours: PipeReader| pipe::Receiver::from_owned_fd(OwnedFd::from(ours));
    let (stdout, child_stdout) = io::pipe()?;
    let (stderr, child_stderr) = io::pipe()?;
    let streams = Streams { stdin, stdout: receiver(stdout)?, stderr: receiver(stderr)? };
    Ok((streams, [child_stdin, OwnedFd::from(child_stdout), OwnedFd::from(child_stderr)]))
}

fn send_streams(to: &StdUnixStream, streams: &[OwnedFd; 3]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let borrowed = [streams[0].as_fd(), streams[1].as_fd(), streams[2].as_fd()];
    if !ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(io::Error::other("three file descriptors do not fit their message"));
    }
    rustix::net::sendmsg(to, &[IoSlice::new(b"\n")], &mut ancillary, SendFlags::empty())?;
    Ok(())
}

fn milliseconds(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
