//! `/me`: who the caller is, and what they may do.

use super::{AdminState, Problem, caller::Who, refs::Named, resolve::Directory};
use axum::{Json, extract::State};
use serde::Serialize;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The caller.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Me {
    /// `user`, `team`, `organization` or `client`.
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    name: String,
    /// `token`, `oauth`, `idp` or `embedded`.
    method: String,
    /// The teams, the one with the highest priority first.
    teams: Vec<Named>,
    /// `resource:action`; `admin` includes every other action on its resource.
    permissions: Vec<String>,
}

pub(crate) fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(read))
}

/// Says who the caller is, and what they may do.
#[utoipa::path(get, path = "/me", tag = "me", operation_id = "readMe", responses((status = 200, body = Me)))]
async fn read(State(state): State<AdminState>, who: Who) -> Result<Json<Me>, Problem> {
    let mut directory = Directory::new(&state);
    let mut teams = Vec::new();
    for team in who.teams.iter() {
        teams.push(Named {
            kind: "team".to_owned(),
            id: Some(team.to_string()),
            name: directory.team_name(*team).await?,
        });
    }
    Ok(Json(Me {
        kind: who.caller.kind().to_owned(),
        id: who.caller.id(),
        name: who.name.to_string(),
        method: who.method.kind().to_owned(),
        teams,
        permissions: who.permissions.iter().map(ToString::to_string).collect(),
    }))
}
