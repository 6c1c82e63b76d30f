//! What is measured and recorded of calls: metrics, and audit records on their way to the sink.

mod audit;
mod call;
mod metrics;
mod requests;

pub(crate) use audit::Slot;
pub use audit::{AuditWriter, Overflow};
pub(crate) use call::CallNote;
pub use metrics::{CallStatus, Meters, ToolMeters};
