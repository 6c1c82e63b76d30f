//! One conformance suite per trait: the executable form of its contract.
//!
//! Each module holds the cases of one suite, a function `all` that runs them one after the other, and a macro at the root of
//! this crate that makes one `#[test]` of each:
//!
//! ```
//! use archestra_core::{secret::SecretStore, testing::{MemorySecrets, conformance}};
//! use std::sync::Arc;
//!
//! # let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
//! # runtime.block_on(async {
//! // An empty store for each case.
//! conformance::secret_store::all(|| async { Arc::new(MemorySecrets::new()) as Arc<dyn SecretStore> }).await;
//! # });
//! ```
//!
//! In a test file of its own:
//!
//! ```
//! # use archestra_core::testing::MemorySecrets;
//! # use std::sync::Arc;
//! archestra_core::secret_store_conformance!(memory, async { Arc::new(MemorySecrets::new()) });
//! archestra_core::secret_store_conformance!(#[ignore = "needs a server"] remote, async { Arc::new(MemorySecrets::new()) });
//! # fn main() {}
//! ```
//!
//! The factory is an expression that is evaluated once for each case, inside a multi-threaded runtime, and yields an `Arc` of
//! a store that holds nothing. Suites that take a *pair* get two handles on the same, empty store, as two replicas have them.
//! A case panics with the sentence of the contract that does not hold. What has to arrive may take [`LIMIT`].

#![expect(
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "cases are assertions: a case that fails panics and says what does not hold"
)]

pub mod audit_sink;
pub mod catalog_store;
pub mod credential_resolver;
pub mod identity_store;
mod records;
pub mod runtime;
pub mod secret_store;
pub mod state_store;
mod suite;

use suite::{fixture_suite, pair_suite, shared_cases, suite};

use crate::{Error, ErrorKind};
use std::{fmt, future::Future, time::Duration};
use tokio::time::{Instant, sleep, timeout};

/// How long anything may take that a contract promises without a time, and the feed.
pub const LIMIT: Duration = Duration::from_secs(30);

/// How long one case may take.
const CASE_LIMIT: Duration = Duration::from_secs(120);

/// How many racers run for one atomic promise.
const RACERS: usize = 16;

/// Runs one case on a multi-threaded runtime of its own.
#[doc(hidden)]
pub fn run(case: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
    runtime.expect("a runtime can be made").block_on(limited("the case", case));
}

/// Runs a case that must end.
#[doc(hidden)]
pub async fn limited(name: &str, case: impl Future<Output = ()>) {
    assert!(timeout(CASE_LIMIT, case).await.is_ok(), "{name} did not end within {CASE_LIMIT:?}");
}

/// Waits until something holds.
async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let end = Instant::now() + LIMIT;
    while !holds().await {
        assert!(Instant::now() < end, "not within {LIMIT:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// What a call that must succeed returned.
#[track_caller]
fn works<T>(result: Result<T, Error>, promise: &str) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{promise}: failed with {error:?}"),
    }
}

/// The error of a call that must fail with this kind.
#[track_caller]
fn fails<T: fmt::Debug>(result: Result<T, Error>, kind: ErrorKind, promise: &str) -> Error {
    match result {
        Err(error) if error.kind() == kind => error,
        Err(error) => panic!("{promise}: expected {kind:?}, got the error {error:?}"),
        Ok(value) => panic!("{promise}: expected {kind:?}, but it returned {value:?}"),
    }
}

/// Runs racers in parallel and returns what each came to.
async fn race<T, F>(racers: impl IntoIterator<Item = F>) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let barrier = std::sync::Arc::new(tokio::sync::Barrier::new(RACERS));
    let mut tasks = Vec::new();
    for racer in racers {
        let barrier = std::sync::Arc::clone(&barrier);
        tasks.push(tokio::spawn(async move {
            barrier.wait().await;
            racer.await
        }));
    }
    assert_eq!(tasks.len(), RACERS, "a race has {RACERS} racers");
    let mut outcomes = Vec::new();
    for task in tasks {
        match task.await {
            Ok(outcome) => outcomes.push(outcome),
            Err(error) => panic!("a racer did not end: {error}"),
        }
    }
    outcomes
}
