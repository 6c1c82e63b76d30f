//! `POST /apply`: a whole document at once, all or nothing, idempotent, with a dry run and pruning.
//!
//! Everything is checked before anything is written. Then users and teams are written in one commit, and entries,
//! installations, gateways, agents and policies one after the other; when one fails, what was done is undone in reverse.
//! What the document does not name stays as it is, unless pruning is asked for: then whatever an earlier apply with the same
//! set made, and the document no longer names, is deleted.

mod consumers;
mod document;
mod execute;
mod people;
mod plan;
mod prune;
mod registry;
mod source;
mod undo;
mod world;

pub use document::{
    API_VERSION, ApplyDocument, CallerRef, ConsumerItem, CredentialRef, EntryItem, InstallationItem, InstallationRef,
    PolicyItem, ScopeRef, SelectorItem, TeamItem, UserItem,
};
pub use source::{RawDocument, ValueSource};

use super::{
    AdminState, Problem,
    body::Document,
    caller::{Who, audited},
    page::Params,
    problem::Undone,
};
use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa_axum::{router::OpenApiRouter, routes};

/// What happens, or happened, to one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum ApplyAction {
    /// It is made.
    Create,
    /// It is changed.
    Update,
    /// It is as the document says.
    Unchanged,
    /// It is deleted.
    Delete,
}

impl ApplyAction {
    const fn label(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Unchanged => "unchanged",
            Self::Delete => "delete",
        }
    }
}

/// One line of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApplyChange {
    /// `user`, `team`, `entry`, `installation`, `gateway`, `agent` or `policy`.
    pub kind: String,
    /// What a person calls it.
    pub name: String,
    /// What happens to it.
    pub action: ApplyAction,
}

impl fmt::Display for ApplyChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.action.label(), self.kind, self.name)
    }
}

/// What an apply did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApplyReport {
    /// Whether nothing was written.
    pub dry_run: bool,
    /// Everything that the document names, and what pruning deletes, in the order it is done.
    pub changes: Vec<ApplyChange>,
}

impl ApplyReport {
    /// Whether everything was as the document says already.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        self.changes.iter().all(|change| change.action == ApplyAction::Unchanged)
    }
}

/// How a document is applied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ApplyParams {
    /// Whether to say only what would be done.
    #[serde(default)]
    dry_run: bool,
    /// Whether to delete what an earlier apply with the same set made and the document no longer names.
    #[serde(default)]
    prune: bool,
    /// The name of the set that new things belong to.
    set: Option<String>,
}

pub(super) fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(apply))
}

/// Applies a document, as JSON or YAML: all of it, or nothing.
#[utoipa::path(
    post,
    path = "/apply",
    tag = "apply",
    params(ApplyParams),
    request_body(content((ApplyDocument = "application/json"), (ApplyDocument = "application/yaml"))),
    responses((status = 200, body = ApplyReport))
)]
async fn apply(
    State(state): State<AdminState>,
    who: Who,
    Params(params): Params<ApplyParams>,
    body: Document,
) -> Result<Json<ApplyReport>, Problem> {
    let set = match params.set {
        Some(set) if set.trim().is_empty() || set.len() > 128 || set.chars().any(char::is_control) => {
            return Err(Problem::malformed("the name of a set has 1 to 128 printable bytes"));
        }
        None if params.prune => {
            return Err(Problem::malformed("pruning needs to know what belongs together; send `set` too"));
        }
        set => set,
    };
    let read = ApplyDocument::from_value(body.0);
    let document = read.map_err(|problem| problem.undone(Undone::Complete))?;
    let pruned = if params.prune { set.clone() } else { None };
    let planned = plan::plan(&state, &who, document, set, pruned).await;
    let plan = planned.map_err(|problem| problem.undone(Undone::Complete))?;
    let changes = plan.changes();
    if params.dry_run || !plan.writes() {
        return Ok(Json(ApplyReport { dry_run: params.dry_run, changes }));
    }
    let (owned, caller) = (state.clone(), who.clone());
    let change = async move { execute::execute(&owned, &caller, plan).await };
    audited(&state, &who, "apply", "document".to_owned(), |()| None, change).await?;
    Ok(Json(ApplyReport { dry_run: false, changes }))
}
