//! `/policies`: the rules that allow or block tool calls.

use super::{
    AdminState, Problem,
    access::{require, sees},
    body::Document,
    caller::{Precondition, Who, as_asked, audited},
    page::{Listed, PageParams, Params, Resource, collect},
    refs::CallerRef,
    resolve::{Directory, optional},
};
use archestra_core::{
    Validate,
    catalog::{CatalogChanges, CatalogStoreExt as _, Query},
    feed::{Expect, Versioned},
    id::PolicyId,
    identity::{Action, Resource as On},
    policy::{CallerSelector, Condition, Policy, PolicyAction, PolicySpec},
};
use axum::{
    Json,
    extract::{Path, State},
};
use chrono::{DateTime, Utc};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa_axum::{router::OpenApiRouter, routes};

/// A rule about tool calls.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Policy)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PolicyView {
    id: String,
    resource_version: u64,
    #[serde(flatten)]
    spec: PolicyWrite,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    apply_set: Option<String>,
    created_at: DateTime<Utc>,
}

/// What a person fills in for a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyWrite {
    /// For people.
    pub name: String,
    /// Of several rules that match, the one with the highest priority decides; among equals, one that blocks.
    #[serde(default)]
    pub priority: i32,
    /// Only tools of this entry, by name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// Only tools with this raw name; a `*` at the end stands for any rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// Only through this gateway or agent, by slug or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<String>,
    /// Only these callers; empty: everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub callers: Vec<CallerRef>,
    /// Only calls whose arguments meet all of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// What happens.
    pub action: PolicyAction,
    /// What a blocked caller is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

pub(crate) fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(read, replace, remove))
}

/// Lists rules.
#[utoipa::path(get, path = "/policies", tag = "policies", params(PageParams), responses((status = 200, body = Listed<PolicyView>)))]
async fn list(
    State(state): State<AdminState>,
    who: Who,
    Params(params): Params<PageParams>,
) -> Result<Json<Listed<PolicyView>>, Problem> {
    require(&who, On::Policy, Action::Read, "listing policies")?;
    let page =
        collect(params.limit, params.cursor, |_| true, |page| state.catalog.list_page::<Policy>(Query::Policies, page))
            .await?;
    let mut directory = Directory::new(&state);
    let mut items = Vec::new();
    for policy in page.items {
        items.push(view(&mut directory, policy).await?);
    }
    Ok(Json(Listed { items, next_cursor: page.next.map(|cursor| cursor.0) }))
}

/// Creates a rule.
#[utoipa::path(post, path = "/policies", tag = "policies", request_body = PolicyWrite, responses((status = 201, body = PolicyView)))]
async fn create(State(state): State<AdminState>, who: Who, body: Document) -> Result<Resource<PolicyView>, Problem> {
    require(&who, On::Policy, Action::Create, "creating a policy")?;
    let (write, _) = body.decode_write::<PolicyWrite>(&[])?;
    let spec = resolve(&Directory::new(&state), &who, write).await?;
    let policy = Policy { id: PolicyId::new(), spec, apply_set: None, created_at: Utc::now() };
    let id = policy.id;
    let answer = save(&state, &who, "policy.create", policy, Expect::Absent).await?;
    Ok(answer.created(format!("/api/v1/policies/{id}")))
}

/// Reads a rule.
#[utoipa::path(get, path = "/policies/{policy}", tag = "policies", params(("policy" = String, Path)), responses((status = 200, body = PolicyView)))]
async fn read(
    State(state): State<AdminState>,
    who: Who,
    Path(key): Path<String>,
) -> Result<Resource<PolicyView>, Problem> {
    let policy = find(&state, &who, &key).await?;
    Ok(Resource::new(policy.version.0, view(&mut Directory::new(&state), policy).await?))
}

/// Replaces a rule.
#[utoipa::path(put, path = "/policies/{policy}", tag = "policies", params(("policy" = String, Path)), request_body = PolicyWrite, responses((status = 200, body = PolicyView)))]
async fn replace(
    State(state): State<AdminState>,
    who: Who,
    Path(key): Path<String>,
    precondition: Precondition,
    body: Document,
) -> Result<Resource<PolicyView>, Problem> {
    let before = find(&state, &who, &key).await?;
    require(&who, On::Policy, Action::Update, "changing a policy")?;
    let (write, version) = body.decode_write::<PolicyWrite>(&["entryId", "consumerId"])?;
    precondition.or_body(version)?.check("policy", &key, before.version)?;
    let spec = resolve(&Directory::new(&state), &who, write).await?;
    let expect = before.expect();
    save(&state, &who, "policy.update", Policy { spec, ..before.value }, expect).await
}

/// Removes a rule.
#[utoipa::path(delete, path = "/policies/{policy}", tag = "policies", params(("policy" = String, Path)), responses((status = 204)))]
async fn remove(
    State(state): State<AdminState>,
    who: Who,
    Path(key): Path<String>,
    precondition: Precondition,
) -> Result<StatusCode, Problem> {
    let policy = find(&state, &who, &key).await?;
    require(&who, On::Policy, Action::Delete, "removing a policy")?;
    precondition.check("policy", &key, policy.version)?;
    let store = state.clone();
    let (id, expect) = (policy.value.id, policy.expect());
    let change = async move { Ok(store.catalog.commit(CatalogChanges::new().delete(id, expect)).await?) };
    audited(&state, &who, "policy.delete", format!("policy {id}"), as_asked, change).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn find(state: &AdminState, who: &Who, key: &str) -> Result<Versioned<Policy>, Problem> {
    let found = match key.parse::<PolicyId>() {
        Ok(id) if who.permissions.allow(On::Policy, Action::Read) => {
            optional(state.catalog.get_one::<Policy>(id).await)?
        }
        _ => None,
    };
    found.ok_or_else(|| Problem::not_found("policy", key))
}

async fn save(
    state: &AdminState,
    who: &Who,
    action: &str,
    policy: Policy,
    expect: Expect,
) -> Result<Resource<PolicyView>, Problem> {
    let store = state.clone();
    let subject = format!("policy {}", policy.id);
    let change = async move {
        let id = policy.id;
        store.catalog.commit(CatalogChanges::new().put(policy, expect)).await?;
        Ok(store.catalog.get_one::<Policy>(id).await?)
    };
    let policy = audited(state, who, action, subject, as_asked, change).await?;
    Ok(Resource::new(policy.version.0, view(&mut Directory::new(state), policy).await?))
}

/// What a rule in a document means.
///
/// # Errors
/// Findings for what is named and not there, and for what does not validate.
pub(crate) async fn resolve(directory: &Directory, who: &Who, write: PolicyWrite) -> Result<PolicySpec, Problem> {
    let entry = match &write.entry {
        Some(entry) => Some(directory.known_entry(who, "entry", entry).await?.value.id),
        None => None,
    };
    let consumer = match &write.consumer {
        Some(text) => {
            let found = directory.find_consumer(text).await?;
            let found =
                found.filter(|found| sees(who, super::consumers::resource(found.value.kind), &found.value.scope));
            let missing = || {
                Problem::finding(
                    "consumer",
                    format!("there is no gateway or agent {text} that you may see"),
                    "use the slug of one",
                )
            };
            Some(found.ok_or_else(missing)?.value.id)
        }
        None => None,
    };
    let mut callers = Vec::new();
    for (n, caller) in write.callers.iter().enumerate() {
        callers.push(match caller {
            CallerRef::Organization => CallerSelector::Organization,
            CallerRef::Clients => CallerSelector::Clients,
            CallerRef::User(user) => {
                CallerSelector::User(directory.known_user(who, &format!("callers[{n}].user"), user).await?.value.id)
            }
            CallerRef::Team(team) => {
                CallerSelector::Team(directory.known_team(who, &format!("callers[{n}].team"), team).await?.value.id)
            }
        });
    }
    let PolicyWrite { name, priority, tool, conditions, action, message, .. } = write;
    let spec = PolicySpec { name, priority, entry, tool, consumer, callers, conditions, action, message };
    spec.validate()?;
    Ok(spec)
}

async fn view(
    directory: &mut Directory,
    Versioned { version, value: policy }: Versioned<Policy>,
) -> Result<PolicyView, Problem> {
    let Policy { id, spec, apply_set, created_at } = policy;
    let entry = match spec.entry {
        Some(entry) => Some(directory.entry_name(entry).await?),
        None => None,
    };
    let consumer = match spec.consumer {
        Some(consumer) => Some(directory.consumer_slug(consumer).await?),
        None => None,
    };
    let mut callers = Vec::new();
    for caller in spec.callers {
        callers.push(match caller {
            CallerSelector::User(user) => CallerRef::User(directory.user_name(user).await?),
            CallerSelector::Team(team) => CallerRef::Team(directory.team_name(team).await?),
            CallerSelector::Organization => CallerRef::Organization,
            CallerSelector::Clients => CallerRef::Clients,
        });
    }
    Ok(PolicyView {
        id: id.to_string(),
        resource_version: version.0,
        entry_id: spec.entry.map(|entry| entry.to_string()),
        consumer_id: spec.consumer.map(|consumer| consumer.to_string()),
        spec: PolicyWrite {
            name: spec.name,
            priority: spec.priority,
            entry,
            tool: spec.tool,
            consumer,
            callers,
            conditions: spec.conditions,
            action: spec.action,
            message: spec.message,
        },
        apply_set,
        created_at,
    })
}
