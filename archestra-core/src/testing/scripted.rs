//! MCP servers that answer by script, in this process, and a runtime whose workloads they are.
//!
//! ```
//! use archestra_core::{
//!     runtime::{Connection, Phase, Runtime, stdio::Channel},
//!     testing::{Answer, ScriptedRuntime, ScriptedServer, fixtures},
//! };
//! use serde_json::json;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let server = ScriptedServer::new("echo").tool("echo", |arguments| Answer::text(arguments["text"].as_str().unwrap_or_default()));
//! let runtime = ScriptedRuntime::new(server);
//!
//! let workload = fixtures::workload(fixtures::workload_spec("echo", &["echo-server"]));
//! runtime.apply(&workload).await.unwrap();
//! runtime.until(&workload.id, Phase::Running).await;
//!
//! let Connection::Stdio(mut channel) = runtime.connect(&workload.id).await.unwrap() else { unreachable!("the workload speaks stdio") };
//! let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo", "arguments": {"text": "hi"}}});
//! channel.send(call.to_string().into()).await.unwrap();
//! let answer: serde_json::Value = serde_json::from_slice(&channel.recv().await.unwrap()).unwrap();
//! assert_eq!(answer["result"]["content"][0]["text"], "hi");
//!
//! runtime.shutdown().await;
//! # });
//! ```

mod answer;
mod log;
mod runtime;
mod server;
mod session;
mod workload;

pub use answer::Answer;
pub use runtime::{RecordedCall, Script, ScriptedRuntime};
pub use server::{Eras, ScriptedServer};
