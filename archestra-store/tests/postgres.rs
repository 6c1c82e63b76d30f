//! The stores on PostgreSQL: the conformance suites, and what is particular to a server that others share and that comes and goes.
//!
//! `eval "$(.ci/postgres)"` starts a server for them, and `eval "$(.ci/pgbouncer)"` a pooler in front of it, too.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking; clippy does not see that helpers of tests are tests"
)]

#[path = "postgres/backup.rs"]
mod backup;
#[path = "postgres/conformance.rs"]
mod conformance;
#[path = "postgres/connect.rs"]
mod connect;
#[path = "postgres/feed.rs"]
mod feed;
#[path = "shared/hammer.rs"]
mod hammer;
#[path = "postgres/load.rs"]
mod load;
#[path = "postgres/pgbouncer.rs"]
mod pgbouncer;
#[path = "postgres/pooler.rs"]
mod pooler;
#[path = "postgres/records.rs"]
mod records;
#[path = "postgres/restart.rs"]
mod restart;
#[path = "postgres/support.rs"]
mod support;
#[path = "shared/unreadable.rs"]
mod unreadable;
