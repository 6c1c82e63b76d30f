//! The bridge: a stdio server's channels over TCP, from within the server's own container, and the client's half of it.
//!
//! `archestra-bridge` starts a server's command, owns its standard input and output by the
//! [`Multiplexer`](crate::runtime::stdio::Multiplexer), and gives each TCP connection a private
//! [`Channel`](crate::runtime::stdio::Channel). Nothing that is said on the channels reaches the container's log; what the
//! server writes to its standard error does.
//!
//! # Protocol
//! The client begins with one line, `ARCHESTRA-BRIDGE/1 <token>`, and is answered `ok` or `refused <code> <reason>`, after
//! which a refused connection is closed. What follows on an accepted one is newline-delimited JSON-RPC in both directions. A
//! client that closes its side gives up what it has under way.
//!
//! `ARCHESTRA-BRIDGE/1 <token> events` asks for announcements instead: the bridge sends `tools <count>` at once and again
//! whenever the server says that its list of tools has changed, where `count` counts these since the server was started. A
//! platform keeps one such connection for each server, so that an announcement is not lost while nobody calls, and is not
//! repeated for each call.
//!
//! # Health
//! `GET /live` is 200 while the bridge runs. `GET /ready` is 200 once the server has been initialized, and otherwise 503 with
//! the reason.
//!
//! # End
//! When the server ends, so does the bridge, with the server's exit code, or 128 and the signal's number: whoever restarts
//! containers then restarts this one, at once the first time and with its own back-off after that. A restart within the bridge
//! would be no sooner the first time, and would hide from everybody else what the kubelet knows only of containers that end: how
//! often, with which code, after which last words, and how long it waits before the next try.
//!
//! When the bridge is told to end by SIGTERM or SIGINT, it takes no more connections, lets what is under way finish, and ends
//! the server's process group.

mod carry;
pub mod client;
mod frames;
pub mod peer;
mod protocol;
mod serve;
mod socket;

pub use protocol::Refusal;
pub use serve::run;
pub use socket::tune;
