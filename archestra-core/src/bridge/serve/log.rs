//! Lines for the container's log, written by a thread, so that a log that is not read stops nobody.

use std::{
    fmt::Display,
    io::{self, Write},
    sync::mpsc::{self, Receiver, SyncSender},
    thread,
    time::Duration,
};

/// How many lines wait before more are dropped.
const QUEUE: usize = 256;
/// How much of a line is written.
const MAX_LINE: usize = 8 * 1024;
/// How long the last lines may take.
const FLUSH: Duration = Duration::from_millis(500);
const STACK: usize = 64 * 1024;

enum Entry {
    Line(Vec<u8>),
    End,
}

/// Takes lines for the log. Never waits.
#[derive(Clone)]
pub(super) struct Log(SyncSender<Entry>);

pub(super) struct LogThread {
    log: Log,
    done: Receiver<()>,
}

impl Log {
    /// A line of the bridge itself.
    pub(super) fn say(&self, text: &impl Display) {
        self.push(format!("archestra-bridge: {text}\n").into_bytes());
    }

    /// A line of the server.
    pub(super) fn line(&self, line: &[u8]) {
        let mut line = line.get(..MAX_LINE).unwrap_or(line).to_vec();
        line.push(b'\n');
        self.push(line);
    }

    fn push(&self, line: Vec<u8>) {
        // A log that is not read loses lines.
        let _full = self.0.try_send(Entry::Line(line));
    }
}

impl LogThread {
    pub(super) fn start() -> io::Result<Self> {
        let (sender, entries) = mpsc::sync_channel(QUEUE);
        let (ended, done) = mpsc::sync_channel(1);
        thread::Builder::new().name("log".to_owned()).stack_size(STACK).spawn(move || {
            while let Ok(Entry::Line(line)) = entries.recv() {
                // There is nobody to tell that the log cannot be written.
                let _lost = io::stderr().lock().write_all(&line);
            }
            let _nobody_waits = ended.send(());
        })?;
        Ok(Self { log: Log(sender), done })
    }

    pub(super) fn log(&self) -> Log {
        self.log.clone()
    }

    /// Waits a little for what has been said.
    pub(super) fn finish(self) {
        if self.log.0.try_send(Entry::End).is_ok() {
            let _stuck = self.done.recv_timeout(FLUSH);
        }
    }
}
