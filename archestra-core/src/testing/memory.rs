//! In-memory backends for every store trait. Complete, fast, and gone with the process.

mod audit;
mod catalog;
mod identity;
mod secrets;
mod state;

pub use audit::MemoryAudit;
pub use catalog::MemoryCatalog;
pub use identity::MemoryIdentity;
pub use secrets::MemorySecrets;
pub use state::MemoryState;

/// How many commits a feed can look back by default.
const HISTORY: usize = 1024;
