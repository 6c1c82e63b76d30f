//! Small public documents: the metadata of a protected resource, and how to install an entry.

use crate::platform::Shared;
use archestra_core::id::EntryId;
use axum::{
    Json,
    extract::{Path, State},
    response::{Html, IntoResponse, Response},
};
use http::StatusCode;
use std::sync::Arc;

/// RFC 9728: what a client must know about a consumer's endpoint before it has a token. The path of the resource follows
/// the well-known part, and begins with the path of the public URL.
pub(super) async fn resource_metadata(State(shared): State<Arc<Shared>>, Path(resource): Path<String>) -> Response {
    let mounted = shared.options.public_url.as_ref().map_or("", |url| url.path().trim_matches('/'));
    let resource = resource.strip_prefix(mounted).unwrap_or(&resource).trim_start_matches('/');
    let snapshot = shared.routes.load();
    let Some(route) = resource.strip_prefix("v1/mcp/").and_then(|place| snapshot.consumer(place)) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let metadata = serde_json::json!({
        "resource": shared.resource_url(&route.consumer.spec.slug),
        "resource_name": route.consumer.display_name(),
        "bearer_methods_supported": ["header"],
    });
    ([(http::header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")], Json(metadata)).into_response()
}

/// Where a tool error sends people who lack an installation. It says how to make one and reveals nothing about the entry.
pub(super) async fn install(State(shared): State<Arc<Shared>>, Path(entry): Path<String>) -> Response {
    let Ok(entry) = entry.parse::<EntryId>() else { return StatusCode::NOT_FOUND.into_response() };
    let api = shared.install_url(entry).replace(&format!("/install/{entry}"), "/api/v1");
    Html(format!(
        "<!doctype html><meta charset=utf-8><title>Install an MCP server</title>\
         <h1>Install an MCP server</h1>\
         <p>A tool that you called has no installation that may serve you. To see what this server asks for:</p>\
         <pre>curl -H \"Authorization: Bearer $ARCHESTRA_TOKEN\" {api}/entries/{entry}/fields</pre>\
         <p>To install it for yourself, with the values that it asks for:</p>\
         <pre>curl -H \"Authorization: Bearer $ARCHESTRA_TOKEN\" -H 'Content-Type: application/json' \\\n  \
         -d '{{\"entry\": \"{entry}\", \"scope\": {{\"user\": \"YOUR EMAIL\"}}, \"values\": {{}}}}' {api}/installations</pre>\
         <p>Then call the tool again.</p>"
    ))
    .into_response()
}
