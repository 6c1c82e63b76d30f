//! The stores on Vault: the conformance suite and every login on a real OpenBao, and every kind of trouble on a scripted server.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking; clippy does not see that helpers of tests are tests"
)]

#[path = "vault/claim.rs"]
mod claim;
#[path = "vault/conformance.rs"]
mod conformance;
#[path = "vault/ended.rs"]
mod ended;
#[path = "vault/fake.rs"]
mod fake;
#[path = "vault/listing.rs"]
mod listing;
#[path = "vault/logins.rs"]
mod logins;
#[path = "vault/methods.rs"]
mod methods;
#[path = "vault/outage.rs"]
mod outage;
#[path = "vault/read_only.rs"]
mod read_only;
#[path = "vault/support.rs"]
mod support;
#[path = "vault/transit.rs"]
mod transit;
#[path = "vault/trouble.rs"]
mod trouble;
