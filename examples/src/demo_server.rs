//! `archestra demo-server`: a small MCP server on standard input and output, for the quickstart.

use crate::failure::Failure;
use rmcp::{
    ErrorData, RoleServer, ServerHandler, ServiceExt,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation, JsonObject,
        ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool, ToolAnnotations,
    },
    service::RequestContext,
    transport::stdio,
};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Serves until the client closes standard input.
pub(crate) async fn run() -> Result<(), Failure> {
    let service = DemoServer.serve(stdio()).await.map_err(|error| Failure::because("the demo server", &error))?;
    service.waiting().await.map_err(|error| Failure::because("the demo server", &error))?;
    Ok(())
}

/// Two tools that need nothing: `echo` and `add`.
#[derive(Debug, Clone, Copy)]
struct DemoServer;

impl ServerHandler for DemoServer {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("archestra-demo", env!("CARGO_PKG_VERSION")))
            .with_instructions("Two tools to try a gateway with.")
    }

    async fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(vec![echo_tool(), add_tool()]))
    }

    async fn call_tool(
        &self,
        call: CallToolRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = call.arguments.unwrap_or_default();
        let result = match call.name.as_ref() {
            "echo" => echo(&arguments),
            "add" => add(&arguments),
            other => return Err(ErrorData::invalid_params(format!("there is no tool {other:?}"), None)),
        };
        Ok(result.unwrap_or_else(|reason| CallToolResult::error(vec![ContentBlock::text(reason)])).into())
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        [echo_tool(), add_tool()].into_iter().find(|tool| tool.name == name)
    }
}

fn echo(arguments: &JsonObject) -> Result<CallToolResult, String> {
    let message = arguments.get("message").and_then(Value::as_str).ok_or("`message` must be a string")?;
    Ok(CallToolResult::success(vec![ContentBlock::text(message)]))
}

fn add(arguments: &JsonObject) -> Result<CallToolResult, String> {
    let (a, b) = (number(arguments, "a")?, number(arguments, "b")?);
    let exact = |value: &Value| value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
    let sum = match (exact(a), exact(b)) {
        (Some(a), Some(b)) => (a + b).to_string(),
        _ => (a.as_f64().unwrap_or(f64::NAN) + b.as_f64().unwrap_or(f64::NAN)).to_string(),
    };
    Ok(CallToolResult::success(vec![ContentBlock::text(sum)]))
}

fn number<'a>(arguments: &'a JsonObject, name: &str) -> Result<&'a Value, String> {
    arguments.get(name).filter(|value| value.is_number()).ok_or_else(|| format!("`{name}` must be a number"))
}

fn echo_tool() -> Tool {
    tool(
        "echo",
        "Answers with the message it was given.",
        &[("message", json!({"type": "string", "description": "What to answer"}))],
    )
}

fn add_tool() -> Tool {
    tool("add", "Adds two numbers.", &[("a", json!({"type": "number"})), ("b", json!({"type": "number"}))])
}

fn tool(name: &'static str, description: &'static str, properties: &[(&str, Value)]) -> Tool {
    let required: Vec<&str> = properties.iter().map(|(name, _)| *name).collect();
    let properties: Map<String, Value> =
        properties.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    let mut schema = JsonObject::new();
    schema.insert("type".to_owned(), "object".into());
    schema.insert("properties".to_owned(), properties.into());
    schema.insert("required".to_owned(), required.into());
    schema.insert("additionalProperties".to_owned(), false.into());
    Tool::new(name, description, Arc::new(schema))
        .with_annotations(ToolAnnotations::new().read_only(true).open_world(false))
}

#[cfg(test)]
mod tests {
    use super::{add, echo};
    use serde_json::{Value, json};

    fn text(result: Result<rmcp::model::CallToolResult, String>) -> String {
        match result {
            Ok(result) => serde_json::to_value(&result.content[0]).unwrap()["text"].as_str().unwrap().to_owned(),
            Err(reason) => reason,
        }
    }

    fn arguments(value: &Value) -> rmcp::model::JsonObject {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn the_tools_do_what_they_say() {
        assert_eq!(text(echo(&arguments(&json!({"message": "hello"})))), "hello");
        assert_eq!(text(add(&arguments(&json!({"a": 9_007_199_254_740_993_u64, "b": 1})))), "9007199254740994");
        assert_eq!(text(add(&arguments(&json!({"a": 0.5, "b": 1})))), "1.5");
    }

    #[test]
    fn arguments_of_the_wrong_type_are_named() {
        assert_eq!(text(echo(&arguments(&json!({})))), "`message` must be a string");
        assert_eq!(text(add(&arguments(&json!({"a": 1, "b": "2"})))), "`b` must be a number");
    }
}
