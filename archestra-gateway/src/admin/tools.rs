//! `/tools`: what the servers of the registry offer.

use super::{
    AdminState, Problem,
    access::sees,
    caller::Who,
    page::{Listed, Params, collect},
    resolve::{Directory, optional},
};
use archestra_core::{
    catalog::{CatalogStoreExt as _, Entry, Query},
    feed::{Page, Versioned},
    id::{EntryId, ToolId},
    identity::Resource as On,
    tool::{Tool, ToolChange},
};
use axum::{
    Json,
    extract::{Path, State},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::HashMap;
use utoipa_axum::{router::OpenApiRouter, routes};

/// A tool of an entry.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Tool)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ToolView {
    id: String,
    resource_version: u64,
    /// The entry's name.
    entry: String,
    entry_id: String,
    /// What the server calls it.
    name: String,
    /// The definition, as the server listed it.
    #[schema(value_type = Object)]
    definition: Box<RawValue>,
    /// The SHA-256 of the definition.
    hash: String,
    /// The latest change of the definition.
    #[serde(skip_serializing_if = "Option::is_none")]
    changed: Option<ToolChange>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ToolParams {
    /// Only tools of this entry, by name or id.
    entry: Option<String>,
    /// At most this many items; 100 if absent, at most 1000.
    limit: Option<usize>,
    /// Where the page before ended.
    cursor: Option<String>,
}

pub(crate) fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(read))
}

/// Lists the tools of all entries that the caller may see.
#[utoipa::path(get, path = "/tools", tag = "tools", params(ToolParams), responses((status = 200, body = Listed<ToolView>)))]
async fn list(
    State(state): State<AdminState>,
    who: Who,
    Params(params): Params<ToolParams>,
) -> Result<Json<Listed<ToolView>>, Problem> {
    let entry = match &params.entry {
        Some(entry) => Some(Directory::new(&state).entry(&who, entry).await?.value.id),
        None => None,
    };
    list_of(&state, &who, entry, params.limit, params.cursor).await
}

/// Reads a tool.
#[utoipa::path(get, path = "/tools/{tool}", tag = "tools", params(("tool" = String, Path)), responses((status = 200, body = ToolView)))]
async fn read(State(state): State<AdminState>, who: Who, Path(key): Path<String>) -> Result<Json<ToolView>, Problem> {
    let missing = || Problem::not_found("tool", &key);
    let id: ToolId = key.parse().map_err(|_| missing())?;
    let tool = optional(state.catalog.get_one::<Tool>(id).await)?.ok_or_else(missing)?;
    let mut directory = Directory::new(&state);
    directory.entry(&who, &tool.value.entry.to_string()).await.map_err(|_| missing())?;
    Ok(Json(view(&mut directory, tool).await?))
}

/// Lists tools of one entry, or of all that the caller may see.
pub(crate) async fn list_of(
    state: &AdminState,
    who: &Who,
    entry: Option<EntryId>,
    limit: Option<usize>,
    cursor: Option<String>,
) -> Result<Json<Listed<ToolView>>, Problem> {
    let page: Page<Versioned<Tool>> =
        collect(limit, cursor, |_| true, |page| state.catalog.list_page::<Tool>(Query::Tools { entry }, page)).await?;
    let mut directory = Directory::new(state);
    let mut visible: HashMap<EntryId, bool> = HashMap::new();
    let mut items = Vec::new();
    for tool in page.items {
        let id = tool.value.entry;
        let seen = match visible.get(&id) {
            Some(seen) => *seen,
            None => {
                let entry = optional(state.catalog.get_one::<Entry>(id).await)?;
                let seen = entry.is_some_and(|entry| sees(who, On::Entry, &entry.value.scope));
                visible.insert(id, seen);
                seen
            }
        };
        if seen {
            items.push(view(&mut directory, tool).await?);
        }
    }
    Ok(Json(Listed { items, next_cursor: page.next.map(|cursor| cursor.0) }))
}

async fn view(
    directory: &mut Directory,
    Versioned { version, value: tool }: Versioned<Tool>,
) -> Result<ToolView, Problem> {
    Ok(ToolView {
        id: tool.id.to_string(),
        resource_version: version.0,
        entry: directory.entry_name(tool.entry).await?,
        entry_id: tool.entry.to_string(),
        name: tool.name,
        definition: RawValue::from_string(tool.definition)
            .map_err(|error| Problem::internal(format!("a stored tool definition is not JSON: {error}")))?,
        hash: tool.hash.to_string(),
        changed: tool.changed,
        created_at: tool.created_at,
        updated_at: tool.updated_at,
    })
}
