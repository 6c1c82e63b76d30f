//! The way to upstream servers: guarded dialling, the pooled HTTP client on it, bodies with deadlines, and `Upstreams`, which
//! forwards requests in whichever era a server speaks.

pub mod client;
pub mod deadline_body;
pub mod dial;

mod clock;
mod connect;
mod discover;
mod era;
mod error;
mod exchange;
mod flight;
mod forward;
mod headers;
mod http;
mod listen;
mod mapping;
mod options;
mod pool;
mod relay;
mod server;
mod session;
mod stdio;
mod target;
mod tasks;

#[cfg(test)]
mod tests;

pub use error::{CredentialFault, UpstreamError};
pub use exchange::{Answer, Cancel, Exchange, MessageStream, Turn};
pub(crate) use flight::{Flights, Stopping};
pub(crate) use listen::QUIET;
pub use options::UpstreamOptions;
pub use pool::{UpstreamParts, Upstreams};
pub use target::Target;
pub(crate) use tasks::Tasks;
