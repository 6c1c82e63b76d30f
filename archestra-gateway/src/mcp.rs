//! The wire pieces of the gateway's hot path: parsing, editing and judging MCP messages as bytes, without any I/O.

pub mod envelope;
pub mod error;
pub mod front;
pub mod headers;
pub mod json;
pub mod outcome;
pub mod response;
pub mod splice;
pub mod sse;
pub mod tool_result;
pub mod version;
