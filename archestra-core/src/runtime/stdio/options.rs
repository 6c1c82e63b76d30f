//! How a process is multiplexed.

use super::negotiate::Era;
use crate::catalog::ToolConcurrency;
use std::{fmt, sync::Arc, time::Duration};

/// Whether many channels use the process at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// They do. The process is offered no client capabilities, and what it asks of a client is refused.
    #[default]
    Shared,
    /// One channel at a time has the process, from its first request until it is dropped; the others wait for their turn in
    /// the order they came.
    ///
    /// A legacy process is initialized once without capabilities, which is what being ready means. The `initialize` of each
    /// session then goes to the process again, with that caller's own capabilities; where the process refuses a second one,
    /// the session is answered from the first. What the process asks of the client is relayed to the session that has it,
    /// if it declared the capability, and refused otherwise. A modern process is told the capabilities with each request.
    Exclusive,
}

impl From<ToolConcurrency> for Mode {
    fn from(concurrency: ToolConcurrency) -> Self {
        match concurrency {
            ToolConcurrency::Shared => Self::Shared,
            ToolConcurrency::Exclusive => Self::Exclusive,
        }
    }
}

/// How a process is multiplexed. The default suits a shared process of unknown era.
#[derive(Debug, Clone)]
pub struct MultiplexerOptions {
    /// Whether many channels use the process at once.
    pub mode: Mode,
    /// The era, where an earlier process of the same revision told it.
    ///
    /// [`Era::Legacy`] skips `server/discover`, which some old servers die of. It is a hint: a server that turns out to be of
    /// the other era is spoken to in that one.
    pub era: Option<Era>,
    /// How long `server/discover` may stay unanswered before `initialize` is tried beside it.
    pub probe_timeout: Duration,
    /// How long the whole negotiation may take.
    pub deadline: Duration,
    /// The longest line that the process may write.
    pub max_line: usize,
    /// How many notifications wait for a channel that does not read before more are dropped.
    pub queue: usize,
    /// How many requests of one channel may be under way, or answered and not yet read. Its next one waits.
    pub max_in_flight: usize,
    /// How many channels may wait for their turn in [`Mode::Exclusive`].
    pub max_waiting: usize,
    /// How long an exclusive process may take to finish what its last session left under way.
    pub turn_grace: Duration,
    /// Where the numbers begin that the process knows requests by. A stream to a process that was spoken to over an earlier
    /// stream needs another one than that had, so that a late answer belongs to nobody.
    pub numbers_from: u32,
    /// What the platform calls itself towards the server.
    pub client_name: String,
    /// Which version of it.
    pub client_version: String,
    /// Where what concerns no channel goes.
    pub output: Option<OutputSink>,
}

impl Default for MultiplexerOptions {
    fn default() -> Self {
        Self {
            mode: Mode::Shared,
            era: None,
            probe_timeout: Duration::from_secs(10),
            deadline: Duration::from_secs(60),
            max_line: 16 * 1024 * 1024,
            queue: 64,
            max_in_flight: 1024,
            max_waiting: 64,
            turn_grace: Duration::from_secs(5),
            numbers_from: 1,
            client_name: "archestra".to_owned(),
            client_version: env!("CARGO_PKG_VERSION").to_owned(),
            output: None,
        }
    }
}

/// What a process wrote that concerns no channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output<'a> {
    /// A line that is no JSON, such as a banner.
    Text(&'a [u8]),
    /// A notification to nobody in particular, such as `notifications/message`.
    Notification {
        /// Its method.
        method: &'a str,
        /// All of it.
        message: &'a [u8],
    },
    /// A line beyond the limit was discarded.
    TooLong {
        /// How long it was.
        length: u64,
    },
}

/// Takes what a process wrote that concerns no channel. It is called by the reader, so it must be quick and never wait.
#[derive(Clone)]
pub struct OutputSink(Arc<dyn Fn(Output<'_>) + Send + Sync>);

impl OutputSink {
    /// A sink that calls `take`.
    #[must_use]
    pub fn new(take: impl Fn(Output<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    pub(super) fn emit(&self, output: Output<'_>) {
        (self.0)(output);
    }
}

impl fmt::Debug for OutputSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OutputSink")
    }
}
