//! Tool schemas with header annotations: whatever compiles, the headers that we make pass the check that we do.
//!
//! The input is a schema and the arguments of a call, with a line feed between them.
#![no_main]

use archestra_gateway::mcp::{headers::HeaderParams, json::Raw};
use http::HeaderMap;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (schema, arguments) = text.split_once('\n').unwrap_or((text, "{}"));
    let Ok(Some(params)) = HeaderParams::compile(schema) else { return };
    assert!(params.header_names().all(|name| name.starts_with("mcp-param-")));
    let Ok(arguments) = Raw::parse(arguments) else { return };
    let mut headers = HeaderMap::new();
    if params.emit(&mut headers, Some(arguments)).is_ok() {
        params.validate(&headers, Some(arguments)).expect("headers made from arguments match them");
    }
});
