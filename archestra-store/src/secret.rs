//! Secrets in the database, and the agreement of all replicas on one key ring.

mod ring;
mod sql;

pub use ring::RingClaim;
pub use sql::SqlSecrets;
