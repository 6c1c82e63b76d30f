//! What the whole-system suites share: the real binary in a folder of its own, its API, MCP requests, and other programs.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    clippy::disallowed_methods,
    reason = "this is test code: what fails here fails the test, and the environment says where real parts are"
)]

pub mod api;
pub mod binary;
pub mod canaries;
pub mod cluster;
pub mod hosted;
pub mod load;
pub mod mcp;
pub mod names;
pub mod openbao;
pub mod parts;
pub mod pod;
pub mod postgres;
pub mod processes;
pub mod remote;
pub mod steady;
pub mod upstream;

pub use api::{Answer, Api};
pub use binary::{Home, Running, Start};
pub use mcp::{Mcp, Session};
