//! `/gateways/{id}/assignments` and `/tools`: the tools that a gateway or agent has, and giving and taking single ones.

use super::{
    super::{
        AdminState, Problem,
        access::may_change,
        body::Document,
        caller::Who,
        page::{Listed, PageParams, Params, collect},
        refs::CredentialRef,
        resolve::{Directory, optional},
    },
    SelectorWrite, label, resource, save, select, user_teams,
    view::credential_view,
};
use crate::lifecycle::ConsumerDraft;
use archestra_core::{
    catalog::{CatalogStoreExt as _, Query},
    consumer::{Assignment, Consumer, ConsumerKind, ToolAssignment, ToolSelector},
    feed::Versioned,
    id::{AssignmentId, ConsumerId},
    identity::Action,
    tool::Tool,
};
use axum::{
    Extension, Json,
    extract::{Path, State},
};
use http::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa_axum::{router::OpenApiRouter, routes};

/// A tool that a gateway or agent has.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Assignment)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AssignmentView {
    id: String,
    /// What its clients call it.
    exposed_name: String,
    /// The entry's name.
    entry: String,
    entry_id: String,
    /// What the server calls it.
    tool: String,
    tool_id: String,
    /// Whose installation serves it.
    credential: CredentialRef,
}

/// A tool under the name that clients call it by.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExposedTool {
    /// What clients call it.
    name: String,
    /// The entry's name.
    entry: String,
    /// What the server calls it.
    tool: String,
    /// The definition, as the server listed it.
    #[schema(value_type = Object)]
    definition: Box<RawValue>,
}

pub(super) fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new()
        .routes(routes!(list_assignments, assign))
        .routes(routes!(unassign))
        .routes(routes!(list_exposed_tools))
}

/// Lists the tools it has, and whose installation serves each.
#[utoipa::path(get, path = "/{consumer}/assignments", params(("consumer" = String, Path), PageParams), responses((status = 200, body = Listed<AssignmentView>)))]
async fn list_assignments(
    State(state): State<AdminState>,
    who: Who,
    Extension(kind): Extension<ConsumerKind>,
    Path(key): Path<String>,
    Params(params): Params<PageParams>,
) -> Result<Json<Listed<AssignmentView>>, Problem> {
    let mut directory = Directory::new(&state);
    let consumer = directory.consumer(&who, kind, &key).await?.value;
    let query = of(consumer.id);
    let page = collect(
        params.limit,
        params.cursor,
        |_| true,
        |page| state.catalog.list_page::<Assignment>(query.clone(), page),
    )
    .await?;
    let mut items = Vec::new();
    for assignment in page.items {
        items.extend(view(&state, &mut directory, assignment.value).await?);
    }
    Ok(Json(Listed { items, next_cursor: page.next.map(|cursor| cursor.0) }))
}

/// Gives it a tool of an entry, or all of them; answers with what that came to.
#[utoipa::path(post, path = "/{consumer}/assignments", params(("consumer" = String, Path)), request_body = SelectorWrite, responses((status = 201, body = Listed<AssignmentView>)))]
async fn assign(
    State(state): State<AdminState>,
    who: Who,
    Extension(kind): Extension<ConsumerKind>,
    Path(key): Path<String>,
    body: Document,
) -> Result<(StatusCode, Json<Listed<AssignmentView>>), Problem> {
    let mut directory = Directory::new(&state);
    let before = directory.consumer(&who, kind, &key).await?;
    may_change(&who, resource(kind), Action::Update, &before.value.scope, &format!("changing this {}", label(kind)))?;
    manual(&before.value)?;
    let write: SelectorWrite = body.decode()?;
    let selector = select(&directory, &who, &write, &before.value.tools).await?;
    check_tool(&state, &write, &selector).await?;
    let mut draft = unchanged(&state, &who, &before.value).await?;
    match draft.tools.iter_mut().find(|one| one.entry == selector.entry && one.tool == selector.tool) {
        Some(present) => present.credential = selector.credential,
        None => draft.tools.push(selector.clone()),
    }
    let id = before.value.id;
    save(&state, &who, before, draft).await?;
    let query = Query::Assignments { consumer: Some(id), entry: Some(selector.entry), installation: None };
    let mut items = Vec::new();
    for assignment in state.catalog.list_all::<Assignment>(query).await? {
        items.extend(view(&state, &mut directory, assignment.value).await?.filter(|view| selector.selects(&view.tool)));
    }
    Ok((StatusCode::CREATED, Json(Listed { items, next_cursor: None })))
}

/// Takes a tool away that was given by name.
#[utoipa::path(delete, path = "/{consumer}/assignments/{assignment}", params(("consumer" = String, Path), ("assignment" = String, Path)), responses((status = 204)))]
async fn unassign(
    State(state): State<AdminState>,
    who: Who,
    Extension(kind): Extension<ConsumerKind>,
    Path((key, assignment)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let before = Directory::new(&state).consumer(&who, kind, &key).await?;
    may_change(&who, resource(kind), Action::Update, &before.value.scope, &format!("changing this {}", label(kind)))?;
    let found = match assignment.parse::<AssignmentId>() {
        Ok(id) => optional(state.catalog.get_one::<Assignment>(id).await)?,
        Err(_) => None,
    };
    let found = found.filter(|found| found.value.consumer == before.value.id);
    let found = found.ok_or_else(|| Problem::not_found("assignment", &assignment))?.value;
    manual(&before.value)?;
    let tool = state.catalog.get_one::<Tool>(found.tool).await?.value;
    let mut draft = unchanged(&state, &who, &before.value).await?;
    draft.tools.retain(|selector| selector.entry != tool.entry || selector.tool != tool.name);
    if draft.tools.len() == before.value.tools.len() {
        let name = label(kind);
        return Err(Problem::conflict(format!(
            "this tool comes with all tools of its entry (`*`); replace that selector in the {name}'s `tools` by the tools it is to keep"
        )));
    }
    save(&state, &who, before, draft).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists its tools under the names that clients call them by.
#[utoipa::path(get, path = "/{consumer}/tools", params(("consumer" = String, Path), PageParams), responses((status = 200, body = Listed<ExposedTool>)))]
async fn list_exposed_tools(
    State(state): State<AdminState>,
    who: Who,
    Extension(kind): Extension<ConsumerKind>,
    Path(key): Path<String>,
    Params(params): Params<PageParams>,
) -> Result<Json<Listed<ExposedTool>>, Problem> {
    let mut directory = Directory::new(&state);
    let consumer = directory.consumer(&who, kind, &key).await?.value;
    let query = of(consumer.id);
    let page = collect(
        params.limit,
        params.cursor,
        |_| true,
        |page| state.catalog.list_page::<Assignment>(query.clone(), page),
    )
    .await?;
    let mut items = Vec::new();
    for Versioned { value: assignment, .. } in page.items {
        let Some(tool) = optional(state.catalog.get_one::<Tool>(assignment.tool).await)? else { continue };
        items.push(ExposedTool {
            name: assignment.exposed_name.to_string(),
            entry: directory.entry_name(assignment.entry).await?,
            tool: tool.value.name,
            definition: RawValue::from_string(tool.value.definition)
                .map_err(|error| Problem::internal(format!("a stored tool definition is not JSON: {error}")))?,
        });
    }
    Ok(Json(Listed { items, next_cursor: page.next.map(|cursor| cursor.0) }))
}

const fn of(consumer: ConsumerId) -> Query {
    Query::Assignments { consumer: Some(consumer), entry: None, installation: None }
}

fn manual(consumer: &Consumer) -> Result<(), Problem> {
    match consumer.spec.tool_assignment {
        ToolAssignment::Manual => Ok(()),
        ToolAssignment::Automatic => {
            let (kind, slug) = (label(consumer.kind), &consumer.spec.slug);
            Err(Problem::conflict(format!(
                "labels decide which tools {kind} {slug} has; set `toolAssignment: manual` first, or change its labels or those of the entry"
            )))
        }
    }
}

/// Refuses a tool that its server does not have, once it is known what the server has.
async fn check_tool(state: &AdminState, write: &SelectorWrite, selector: &ToolSelector) -> Result<(), Problem> {
    let tools = state.catalog.list_all::<Tool>(Query::Tools { entry: Some(selector.entry) }).await?;
    if tools.is_empty() || tools.iter().any(|tool| selector.selects(&tool.value.name)) {
        return Ok(());
    }
    let names: Vec<_> = tools.iter().take(20).map(|tool| tool.value.name.as_str()).collect();
    Err(Problem::finding(
        "tool",
        format!("{} has no tool {}", write.entry, write.tool),
        format!("use `*`, or one of {}", names.join(", ")),
    ))
}

/// A draft that would change nothing.
async fn unchanged(state: &AdminState, who: &Who, consumer: &Consumer) -> Result<ConsumerDraft, Problem> {
    Ok(ConsumerDraft {
        kind: consumer.kind,
        spec: consumer.spec.clone(),
        scope: consumer.scope.clone(),
        tools: consumer.tools.clone(),
        identity_provider: consumer.identity_provider,
        author: who.author(),
        apply_set: None,
        user_teams: user_teams(state, &consumer.scope).await?,
    })
}

/// An assignment as it is answered; nothing when its tool went away meanwhile.
async fn view(
    state: &AdminState,
    directory: &mut Directory,
    assignment: Assignment,
) -> Result<Option<AssignmentView>, Problem> {
    let Some(tool) = optional(state.catalog.get_one::<Tool>(assignment.tool).await)? else { return Ok(None) };
    Ok(Some(AssignmentView {
        id: assignment.id.to_string(),
        exposed_name: assignment.exposed_name.to_string(),
        entry: directory.entry_name(assignment.entry).await?,
        entry_id: assignment.entry.to_string(),
        tool: tool.value.name,
        tool_id: assignment.tool.to_string(),
        credential: credential_view(state, directory, assignment.credential).await?,
    }))
}
