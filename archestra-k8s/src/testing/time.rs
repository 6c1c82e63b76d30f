//! The cluster's clock: with microseconds, so that what happens within one second has an order.

use chrono::{DateTime, SecondsFormat, Utc};

/// The present time as Kubernetes writes it.
pub(super) fn now() -> String {
    text(Utc::now())
}

pub(super) fn text(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}
