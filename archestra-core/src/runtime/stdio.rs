//! The one stdio multiplexer: many private channels over one process's newline-delimited JSON.
//!
//! A [`Multiplexer`] owns the stream of one server process, whatever carries it (pipes, an attach stream, a socket). It finds
//! out the server's [`Era`] once, initializes the server once, and hands out [`Channel`]s. Each channel behaves as if the
//! process were its own: it uses whatever ids and progress tokens it likes and sees nothing that belongs to another one.
//!
//! What passes is spliced, not translated: ids and progress tokens are replaced by byte range, everything else arrives as it
//! was sent, unknown fields included. Translation between eras is the business of whoever holds the channel; it learns the
//! era by asking the channel `server/discover`, which the multiplexer answers itself, as it answers `initialize` and `ping`.
//!
//! [`LineSplitter`] and [`wire`] are the two pure halves, for others that speak newline JSON.

mod channel;
mod dispatch;
mod exclusive;
mod line;
mod mailbox;
mod multiplexer;
mod negotiate;
mod options;
mod outbox;
mod pending;
mod raw_id;
mod session;
mod shared;
pub mod wire;

#[cfg(test)]
mod tests;

pub use channel::{Channel, ChannelClosed, ChannelReceiver, ChannelSender};
pub use line::{Line, LineSplitter};
pub use multiplexer::{ChannelError, Multiplexer, Stats};
pub use negotiate::{Era, Negotiated, NegotiationError};
pub use options::{Mode, MultiplexerOptions, Output, OutputSink};
pub use shared::Closed;
