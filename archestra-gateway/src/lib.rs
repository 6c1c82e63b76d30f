//! The MCP gateway and the control plane around it, on the traits of `archestra-core` alone.
//!
//! [`Platform`](platform::Platform) is what an embedder holds: built from a catalog, an identity store, a secret store, a
//! state store, an audit sink and, where servers are to be run, a runtime. It serves one MCP endpoint per gateway or agent
//! (`/v1/mcp/{consumer}`, modern and legacy clients alike) and the REST API under `/api/v1`. The program that embeds it
//! installs a TLS provider of rustls; without one, building a platform is a typed error.
//!
//! | module | what lives there |
//! |---|---|
//! | [`platform`] | the builder, and what it builds |
//! | [`mcp`] | messages as bytes, translation between the eras, the front door |
//! | [`upstream`] | connections to servers: the one guarded way out, eras, sessions, credentials in headers |
//! | [`lifecycle`] | from an entry to a tool: install, discover, assign, reconcile |
//! | [`admin`] | the REST API with its OpenAPI document, and `apply` |
//! | [`observe`] | metrics and the audit writer |
//! | `auth` | bearer tokens, principals, the challenge of a 401 |
//! | `route` | the snapshot that a call is routed by, and what keeps it up to date |
//! | `unambiguous` | JSON without doubled keys, for documents and for arguments that a policy judges |
//! | `server` | the accept loop and its drain, and what is served where |

pub mod admin;
mod auth;
pub mod lifecycle;
pub mod mcp;
pub mod observe;
pub mod platform;
mod route;
mod server;
mod unambiguous;
pub mod upstream;
