//! `/audit`: what was done, by whom, newest first.

use super::{
    AdminState, Problem,
    access::require,
    caller::Who,
    page::{Listed, Params, at_most},
};
use archestra_core::{
    event::AuditRecord,
    feed::Cursor,
    id::AuditId,
    identity::{Action, Resource as On},
    state::AuditQuery,
};
use axum::{
    Json,
    extract::{Path, State},
};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use utoipa_axum::{router::OpenApiRouter, routes};

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AuditParams {
    /// Only this action: `tools/call`, `entry.create`.
    action: Option<String>,
    /// Only by the actor with this id.
    actor: Option<String>,
    /// Only through the consumer with this slug.
    consumer: Option<String>,
    /// Not before.
    from: Option<DateTime<Utc>>,
    /// Before.
    until: Option<DateTime<Utc>>,
    /// At most this many items; 100 if absent, at most 1000.
    limit: Option<usize>,
    /// Where the page before ended.
    cursor: Option<String>,
}

pub(crate) fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(read))
}

/// Lists audit records, newest first.
#[utoipa::path(get, path = "/audit", tag = "audit", params(AuditParams), responses((status = 200, body = Listed<AuditRecord>)))]
async fn list(
    State(state): State<AdminState>,
    who: Who,
    Params(params): Params<AuditParams>,
) -> Result<Json<Listed<AuditRecord>>, Problem> {
    require(&who, On::AuditLog, Action::Read, "reading the audit log")?;
    let AuditParams { action, actor, consumer, from, until, limit, cursor } = params;
    let limit = at_most(limit)?;
    let page = state
        .audit
        .list(&AuditQuery { action, actor, consumer, from, until, limit, cursor: cursor.map(Cursor) })
        .await?;
    Ok(Json(Listed { items: page.items, next_cursor: page.next.map(|cursor| cursor.0) }))
}

/// Reads one audit record.
#[utoipa::path(get, path = "/audit/{record}", tag = "audit", params(("record" = String, Path)), responses((status = 200, body = AuditRecord)))]
async fn read(
    State(state): State<AdminState>,
    who: Who,
    Path(key): Path<String>,
) -> Result<Json<AuditRecord>, Problem> {
    require(&who, On::AuditLog, Action::Read, "reading the audit log")?;
    let id: AuditId = key.parse().map_err(|_| Problem::not_found("audit record", &key))?;
    Ok(Json(state.audit.get(id).await?))
}
