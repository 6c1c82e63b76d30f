//! `ScriptedServer`: the definition of an MCP server that answers by script.

use super::answer::Answer;
use serde_json::{Value, json};
use std::{fmt, sync::Arc, time::Duration};

/// Which eras of the protocol a scripted server speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Eras {
    /// 2026-07-28 and what came before.
    #[default]
    Both,
    /// 2026-07-28 only: `initialize` is refused.
    Modern,
    /// 2025-11-25 and older only: `server/discover` is an unknown method.
    Legacy,
}

/// The newest modern protocol version that a scripted server speaks.
pub(super) const MODERN: &str = "2026-07-28";
/// The legacy protocol versions that a scripted server speaks, newest first.
pub(super) const LEGACY: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

type Respond = Arc<dyn Fn(&Value) -> Answer + Send + Sync>;

#[derive(Clone)]
pub(super) struct ScriptedTool {
    pub(super) name: String,
    pub(super) definition: Value,
    pub(super) respond: Respond,
}

impl fmt::Debug for ScriptedTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ScriptedTool").field(&self.name).finish()
    }
}

/// An MCP server that answers by script.
///
/// It answers `server/discover`, `initialize`, `ping`, `tools/list` and `tools/call`, honours `notifications/cancelled` and
/// sends progress. As behind the multiplexer of a real runtime, a connection needs no handshake of its own.
#[derive(Debug, Clone)]
pub struct ScriptedServer {
    pub(super) name: String,
    pub(super) tools: Vec<ScriptedTool>,
    pub(super) eras: Eras,
    pub(super) latency: Duration,
    pub(super) page_size: usize,
    pub(super) start_log: Vec<String>,
}

impl ScriptedServer {
    /// A server of this name without tools, that speaks both eras and answers at once.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            tools: Vec::new(),
            eras: Eras::Both,
            latency: Duration::ZERO,
            page_size: usize::MAX,
            start_log: Vec::new(),
        }
    }

    /// With a tool that takes any object. The script is given the arguments of a call.
    #[must_use]
    pub fn tool<A: Into<Answer>>(
        self,
        name: impl Into<String>,
        respond: impl Fn(&Value) -> A + Send + Sync + 'static,
    ) -> Self {
        let name = name.into();
        let definition = json!({"name": name, "description": format!("The scripted tool {name}."), "inputSchema": {"type": "object"}});
        self.tool_with(definition, respond)
    }

    /// With a tool that is listed with this definition.
    #[must_use]
    pub fn tool_with<A: Into<Answer>>(
        mut self,
        definition: Value,
        respond: impl Fn(&Value) -> A + Send + Sync + 'static,
    ) -> Self {
        let name = definition["name"].as_str().unwrap_or_default().to_owned();
        self.tools.push(ScriptedTool {
            name,
            definition,
            respond: Arc::new(move |arguments| respond(arguments).into()),
        });
        self
    }

    /// That speaks these eras.
    #[must_use]
    pub fn eras(mut self, eras: Eras) -> Self {
        self.eras = eras;
        self
    }

    /// That takes this long for every answer.
    #[must_use]
    pub fn latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// That lists so many tools on a page.
    #[must_use]
    pub fn page_size(mut self, tools: usize) -> Self {
        self.page_size = tools.max(1);
        self
    }

    /// That writes this line to its log whenever it starts.
    #[must_use]
    pub fn start_log(mut self, line: impl Into<String>) -> Self {
        self.start_log.push(line.into());
        self
    }
}
