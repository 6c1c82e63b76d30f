//! `/entries`: the templates of the private registry.

use super::{
    AdminState, Problem,
    access::{may_change, require, sees},
    body::{self, ANSWER_ONLY, Document, take_version},
    caller::{Precondition, Who, as_asked, audited},
    hosting::{may_host, may_name},
    page::{Listed, PageParams, Params, Resource, collect, cut},
    refs::{Named, ScopeRef},
    resolve::Directory,
    tools::{self, ToolView},
};
use crate::lifecycle::{Cascade, EntryDraft};
use archestra_core::{
    catalog::{CatalogStoreExt as _, Entry, EntrySpec, Labels, Query, Scope},
    feed::{Expect, Versioned},
    identity::{Action, Resource as On},
    installation::{InstallField, install_fields},
};
use axum::{
    Json,
    extract::{Path, State},
};
use chrono::{DateTime, Utc};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa_axum::{router::OpenApiRouter, routes};

/// An entry of the registry.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Entry)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EntryView {
    id: String,
    resource_version: u64,
    #[serde(flatten)]
    spec: EntrySpec,
    /// Who sees it.
    scope: ScopeRef,
    /// The same, with ids and names.
    owners: Vec<Named>,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<Named>,
    #[serde(skip_serializing_if = "Option::is_none")]
    apply_set: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

/// What a person fills in for an entry.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EntryWrite {
    /// What it is.
    #[serde(flatten)]
    pub spec: EntrySpec,
    /// Who is to see it: everybody, if absent from a new entry; as before, if absent from a change.
    pub scope: Option<ScopeRef>,
}

impl EntryWrite {
    /// Decodes an entry, every unknown field refused.
    ///
    /// # Errors
    /// A finding that names the field.
    pub(crate) fn decode(value: Value) -> Result<(Self, Option<u64>), Problem> {
        let mut object = Document(value).into_object()?;
        let version = take_version(&mut object)?;
        for key in ANSWER_ONLY.iter().chain(&["owners"]) {
            object.remove(*key);
        }
        let scope = match object.remove("scope") {
            None | Some(Value::Null) => None,
            Some(scope) => Some(body::decode(scope).map_err(|finding| Problem::invalid(vec![finding.under("scope")]))?),
        };
        Ok((Self { spec: Document(Value::Object(object)).decode()?, scope }, version))
    }
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct EntryParams {
    /// Only entries with this in their name or description.
    search: Option<String>,
    /// Only entries with this label, as `key:value`.
    label: Option<String>,
    /// At most this many items; 100 if absent, at most 1000.
    limit: Option<usize>,
    /// Where the page before ended.
    cursor: Option<String>,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DeleteParams {
    /// Whether its installations are removed too; otherwise there must be none.
    #[serde(default)]
    cascade: bool,
    /// The version that was read.
    #[expect(dead_code, reason = "the precondition reads it; it is here so that it is known")]
    resource_version: Option<u64>,
}

pub(crate) fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(read, replace, remove))
        .routes(routes!(list_tools))
        .routes(routes!(fields))
}

/// Lists the entries that the caller may see.
#[utoipa::path(get, path = "/entries", tag = "entries", params(EntryParams), responses((status = 200, body = Listed<EntryView>)))]
async fn list(
    State(state): State<AdminState>,
    who: Who,
    Params(params): Params<EntryParams>,
) -> Result<Json<Listed<EntryView>>, Problem> {
    let labels = match params.label.as_deref().map(|label| label.split_once(':')) {
        None => None,
        Some(Some((key, value))) => Some(Labels::from_iter([(key, value)])),
        Some(None) => return Err(Problem::malformed("the label is not understood; write `key:value`")),
    };
    let query = Query::Entries { search: params.search, labels };
    let keep = |entry: &Versioned<Entry>| sees(&who, On::Entry, &entry.value.scope);
    let page = collect(params.limit, params.cursor, keep, |page| state.catalog.list_page::<Entry>(query.clone(), page))
        .await?;
    let mut directory = Directory::new(&state);
    let mut items = Vec::new();
    for entry in page.items {
        items.push(view(&mut directory, entry).await?);
    }
    Ok(Json(Listed { items, next_cursor: page.next.map(|cursor| cursor.0) }))
}

/// Creates an entry.
#[utoipa::path(post, path = "/entries", tag = "entries", request_body = EntryWrite, responses((status = 201, body = EntryView)))]
async fn create(State(state): State<AdminState>, who: Who, body: Document) -> Result<Resource<EntryView>, Problem> {
    require(&who, On::Entry, Action::Create, "creating an entry")?;
    let (write, _) = EntryWrite::decode(body.0)?;
    let mut directory = Directory::new(&state);
    let scope = match &write.scope {
        Some(scope) => directory.scope(&who, "scope", scope).await?,
        None => Scope::Organization,
    };
    may_change(&who, On::Entry, Action::Create, &scope, "creating this entry")?;
    may_host(&state, &who, &write.spec)?;
    may_name(&state, &who, &write.spec, None).await?;
    let subject = format!("entry {}", write.spec.name);
    let draft = draft(&who, write.spec, scope);
    let lifecycle = state.lifecycle.clone();
    let change = async move { Ok(lifecycle.save_entry(None, draft, Expect::Absent).await?) };
    let found = |entry: &Versioned<Entry>| Some(format!("entry {}", entry.value.id));
    let entry = audited(&state, &who, "entry.create", subject, found, change).await?;
    let location = format!("/api/v1/entries/{}", entry.value.id);
    Ok(Resource::new(entry.version.0, view(&mut directory, entry).await?).created(location))
}

/// Reads an entry, by id or name.
#[utoipa::path(get, path = "/entries/{entry}", tag = "entries", params(("entry" = String, Path)), responses((status = 200, body = EntryView)))]
async fn read(
    State(state): State<AdminState>,
    who: Who,
    Path(key): Path<String>,
) -> Result<Resource<EntryView>, Problem> {
    let mut directory = Directory::new(&state);
    let entry = directory.entry(&who, &key).await?;
    Ok(Resource::new(entry.version.0, view(&mut directory, entry).await?))
}

/// Replaces an entry. Its installations follow, or are marked with what they need.
#[utoipa::path(put, path = "/entries/{entry}", tag = "entries", params(("entry" = String, Path)), request_body = EntryWrite, responses((status = 200, body = EntryView)))]
async fn replace(
    State(state): State<AdminState>,
    who: Who,
    Path(key): Path<String>,
    precondition: Precondition,
    body: Document,
) -> Result<Resource<EntryView>, Problem> {
    let mut directory = Directory::new(&state);
    let before = directory.entry(&who, &key).await?;
    may_change(&who, On::Entry, Action::Update, &before.value.scope, "changing this entry")?;
    let (write, version) = EntryWrite::decode(body.0)?;
    precondition.or_body(version)?.check("entry", &key, before.version)?;
    let scope = match &write.scope {
        Some(scope) => directory.scope(&who, "scope", scope).await?,
        None => before.value.scope.clone(),
    };
    may_change(&who, On::Entry, Action::Update, &scope, "giving an entry this scope")?;
    may_host(&state, &who, &write.spec)?;
    may_name(&state, &who, &write.spec, Some(&before.value.spec)).await?;
    let (id, expect) = (before.value.id, before.expect());
    let draft = draft(&who, write.spec, scope);
    let lifecycle = state.lifecycle.clone();
    let change = async move { Ok(lifecycle.save_entry(Some(id), draft, expect).await?) };
    let entry = audited(&state, &who, "entry.update", format!("entry {id}"), as_asked, change).await?;
    Ok(Resource::new(entry.version.0, view(&mut directory, entry).await?))
}

/// Deletes an entry with its tools; with `cascade=true` its installations too.
#[utoipa::path(delete, path = "/entries/{entry}", tag = "entries", params(("entry" = String, Path), DeleteParams), responses((status = 204)))]
async fn remove(
    State(state): State<AdminState>,
    who: Who,
    Path(key): Path<String>,
    precondition: Precondition,
    Params(params): Params<DeleteParams>,
) -> Result<StatusCode, Problem> {
    let entry = Directory::new(&state).entry(&who, &key).await?;
    may_change(&who, On::Entry, Action::Delete, &entry.value.scope, "deleting this entry")?;
    if params.cascade {
        require(&who, On::Installation, Action::Admin, "removing everybody's installations of an entry")?;
    }
    precondition.check("entry", &key, entry.version)?;
    let cascade = if params.cascade { Cascade::Installations } else { Cascade::Refuse };
    let (id, expect) = (entry.value.id, entry.expect());
    let lifecycle = state.lifecycle.clone();
    let change = async move { Ok(lifecycle.delete_entry(id, expect, cascade).await?) };
    audited(&state, &who, "entry.delete", format!("entry {id}"), as_asked, change).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists the tools of an entry.
#[utoipa::path(get, path = "/entries/{entry}/tools", tag = "entries", params(("entry" = String, Path), PageParams), responses((status = 200, body = Listed<ToolView>)))]
async fn list_tools(
    State(state): State<AdminState>,
    who: Who,
    Path(key): Path<String>,
    Params(params): Params<PageParams>,
) -> Result<Json<Listed<ToolView>>, Problem> {
    let entry = Directory::new(&state).entry(&who, &key).await?;
    tools::list_of(&state, &who, Some(entry.value.id), params.limit, params.cursor).await
}

/// Lists what an installation of an entry is asked for.
#[utoipa::path(get, path = "/entries/{entry}/fields", tag = "entries", params(("entry" = String, Path), PageParams), responses((status = 200, body = Listed<InstallField>)))]
async fn fields(
    State(state): State<AdminState>,
    who: Who,
    Path(key): Path<String>,
    Params(params): Params<PageParams>,
) -> Result<Json<Listed<InstallField>>, Problem> {
    let entry = Directory::new(&state).entry(&who, &key).await?;
    // By their place: they are asked for in the order that the entry names them in.
    let page = cut(params, install_fields(&entry.value.spec).into_iter().enumerate())?;
    Ok(Json(Listed { items: page.items, next_cursor: page.next.map(|cursor| cursor.0) }))
}

/// The entry that a caller wants.
pub(crate) fn draft(who: &Who, spec: EntrySpec, scope: Scope) -> EntryDraft {
    let saved_by_admin = who.permissions.allow(On::Entry, Action::Admin);
    EntryDraft { spec, scope, author: who.author(), apply_set: None, saved_by_admin }
}

async fn view(
    directory: &mut Directory,
    Versioned { version, value: entry }: Versioned<Entry>,
) -> Result<EntryView, Problem> {
    let (scope, owners) = directory.scope_view(&entry.scope).await?;
    Ok(EntryView {
        id: entry.id.to_string(),
        resource_version: version.0,
        spec: entry.spec,
        scope,
        owners,
        author: directory.author(entry.author).await?,
        apply_set: entry.apply_set,
        created_at: entry.created_at,
        updated_at: entry.updated_at,
    })
}
