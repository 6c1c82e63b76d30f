//! The stores on SQLite: the conformance suites on a file and in memory, and what is particular to this backend.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking; clippy does not see that helpers of tests are tests"
)]

#[path = "sqlite/backup.rs"]
mod backup;
#[path = "sqlite/conformance.rs"]
mod conformance;
#[path = "sqlite/connect.rs"]
mod connect;
#[path = "sqlite/feed.rs"]
mod feed;
#[path = "shared/hammer.rs"]
mod hammer;
#[path = "sqlite/instance.rs"]
mod instance;
#[path = "sqlite/load.rs"]
mod load;
#[path = "sqlite/records.rs"]
mod records;
#[path = "sqlite/secrets.rs"]
mod secrets;
#[path = "sqlite/state.rs"]
mod state;
#[path = "sqlite/support.rs"]
mod support;
#[path = "shared/unreadable.rs"]
mod unreadable;
