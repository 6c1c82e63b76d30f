//! A server on its process's standard input and output: the multiplexer, and what is remembered of the negotiation.

use super::{Happening, NotReady};
use crate::runtime::{
    process::logs::LogBuffer,
    stdio::{Channel, Era, Mode, Multiplexer, MultiplexerOptions, NegotiationError, Output, OutputSink},
};
use std::{sync::Arc, time::Duration};
use tokio::{net::unix::pipe, sync::watch, time::timeout};

/// How long what a process wrote last may take to be read.
const SETTLE: Duration = Duration::from_millis(200);
/// How much of the deadline `server/discover` is given before `initialize` is tried beside it.
const PROBE_SHARE: u32 = 6;

/// What earlier processes of the same plan told.
#[derive(Debug, Default)]
pub(in crate::runtime::process) struct Hints {
    era: Option<Era>,
}

impl Hints {
    /// The last process died of `server/discover`, as it seems. Whether that is news.
    pub(in crate::runtime::process) fn try_legacy(&mut self) -> bool {
        let news = self.era.is_none();
        self.era = self.era.or(Some(Era::Legacy));
        news
    }
}

/// The multiplexer of one process.
#[derive(Debug)]
pub(in crate::runtime::process) struct StdioServer {
    multiplexer: Arc<Multiplexer>,
    tools_changed: watch::Receiver<u64>,
}

impl StdioServer {
    pub(in crate::runtime::process) fn start(
        stdin: pipe::Sender,
        stdout: pipe::Receiver,
        mode: Mode,
        hints: &Hints,
        deadline: Duration,
        logs: &Arc<LogBuffer>,
    ) -> Self {
        let logs = Arc::clone(logs);
        let options = MultiplexerOptions {
            mode,
            era: hints.era,
            probe_timeout: deadline / PROBE_SHARE,
            deadline,
            output: Some(OutputSink::new(move |output| note(&logs, output))),
            ..MultiplexerOptions::default()
        };
        let multiplexer = Arc::new(Multiplexer::start(stdout, stdin, options));
        let tools_changed = multiplexer.tools_changed();
        Self { multiplexer, tools_changed }
    }

    pub(super) async fn ready(&self) -> Result<Arc<Multiplexer>, NotReady> {
        match self.multiplexer.ready().await {
            Ok(_) => Ok(Arc::clone(&self.multiplexer)),
            Err(NegotiationError::DiedWhileProbing | NegotiationError::Ended(_)) => Err(NotReady::Closed),
            Err(error) => Err(NotReady::Refused(error.to_string())),
        }
    }

    pub(super) fn teach(&self, hints: &mut Hints) {
        if let Some(negotiated) = self.multiplexer.negotiated() {
            hints.era = Some(negotiated.era);
        }
    }

    /// Whether a process that has ended did so when it was asked for its era.
    pub(super) async fn died_of_probe(&self) -> bool {
        matches!(timeout(SETTLE, self.multiplexer.ready()).await, Ok(Err(NegotiationError::DiedWhileProbing)))
    }

    pub(super) async fn next(&mut self) -> Happening {
        tokio::select! {
            biased;
            _ = self.multiplexer.closed() => Happening::Closed,
            Ok(()) = self.tools_changed.changed() => Happening::ToolsChanged,
        }
    }

    /// Lets what a process wrote before its end be read.
    pub(super) async fn settle(&self) {
        // A descendant may hold the stream open.
        let _still_open = timeout(SETTLE, self.multiplexer.closed()).await;
    }

    pub(super) async fn end(self) {
        self.multiplexer.shutdown().await;
    }
}

/// A new private channel; why there is none, if there is none.
pub(super) fn channel(multiplexer: &Multiplexer) -> Result<Channel, String> {
    multiplexer.channel().map_err(|error| error.to_string())
}

/// What a server writes to its standard output and is no message for a caller belongs to its log.
fn note(logs: &LogBuffer, output: Output<'_>) {
    match output {
        Output::Text(line) => logs.line(line),
        Output::Notification { method: "notifications/message", message } => logs.line(message),
        Output::TooLong { length } => {
            logs.say(format!("a line of {length} bytes on its standard output was discarded: it is too long"))
        }
        Output::Notification { .. } => {}
    }
}
