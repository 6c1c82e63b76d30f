//! What workloads write to their logs.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Which log lines to return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// The last so many lines, or all that are kept.
    pub tail: Option<usize>,
    /// Whether to go on with new lines as they come, over restarts, until the stream is dropped or the workload removed.
    pub follow: bool,
    /// Not before.
    pub since: Option<DateTime<Utc>>,
    /// Those of the run before the present one.
    pub previous: bool,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { tail: Some(100), follow: false, since: None, previous: false }
    }
}

/// Where a line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum LogSource {
    /// The server itself.
    Server,
    /// The platform, about the server: started, ended, and why.
    Platform,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct LogLine {
    /// When it was written.
    pub at: DateTime<Utc>,
    /// By whom.
    pub source: LogSource,
    /// The line without its end. At most 16 KiB; what is longer is cut.
    pub text: String,
}
