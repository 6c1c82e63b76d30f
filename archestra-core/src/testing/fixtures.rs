//! Valid values of every domain type, to begin a test with.
//!
//! Each function returns a plain value that validates and can be stored; change what the test is about with struct update
//! syntax or in place. Times have whole milliseconds, so that they come back equal from every store.
//!
//! ```
//! use archestra_core::{Validate, catalog::{Entry, Scope}, testing::fixtures};
//!
//! let alice = fixtures::user("alice@example.com");
//! let entry = Entry { scope: Scope::User(alice.id), ..fixtures::remote_entry("tracker") };
//! assert!(entry.spec.validate().is_ok());
//! ```

mod identity;

pub use identity::{
    access_token, client, client_principal, consent, grant, identity_provider, linked_identity, machine_client,
    machine_grant, organization_principal, role, team, team_principal, token, user, user_principal,
};

use crate::{
    catalog::{CredentialModel, Entry, EntrySpec, Labels, RemoteServer, Scope, SelfHosted, ToolConcurrency, Transport},
    consumer::{
        Assignment, Consumer, ConsumerKind, ConsumerSpec, CredentialChoice, ToolAssignment, ToolExposure, ToolNames,
    },
    event::{Actor, AuditRecord, CallRecord, Outcome},
    id::{AssignmentId, AuditId, ConsumerId, EntryId, InstallationId, LimitId, PolicyId, RevisionId, ToolId},
    installation::{Installation, InstallationState, Owner},
    policy::{Limit, LimitPer, LimitSpec, Policy, PolicyAction, PolicySpec},
    runtime::{Revision, RevisionNumber, Workload, WorkloadId, WorkloadSpec, WorkloadTransport},
    secret::{SecretBundle, SecretRef},
    tool::{DefinitionHash, Tool, expose},
};
use chrono::{DateTime, SubsecRound as _, Utc};
use std::collections::{BTreeMap, BTreeSet};

/// The present time in whole milliseconds.
#[must_use]
pub fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(3)
}

/// What a person fills in for a remote server `https://<slug>.example.com/mcp` without credentials.
#[must_use]
pub fn entry_spec(name: &str) -> EntrySpec {
    let host = crate::tool::slug(name).replace('_', "-");
    EntrySpec {
        name: name.to_owned(),
        description: None,
        instructions: None,
        docs_url: None,
        repository: None,
        icon: None,
        version: None,
        remote: Some(RemoteServer { url: format!("https://{host}.example.com/mcp") }),
        self_hosted: None,
        credential: CredentialModel::None,
        additional_headers: Vec::new(),
        labels: Labels::new(),
        shared_deployment: false,
        tool_concurrency: ToolConcurrency::Shared,
        call_timeout: None,
    }
}

/// A remote server that everybody sees, saved by an admin.
#[must_use]
pub fn remote_entry(name: &str) -> Entry {
    let at = now();
    Entry {
        id: EntryId::new(),
        spec: entry_spec(name),
        scope: Scope::Organization,
        author: None,
        secrets: None,
        apply_set: None,
        given_yaml: None,
        saved_by_admin: true,
        created_at: at,
        updated_at: at,
    }
}

/// A self-hosted stdio server that runs `command`.
#[must_use]
pub fn self_hosted_entry(name: &str, command: &[&str]) -> Entry {
    let command = command.iter().map(|&part| part.to_owned()).collect();
    let hosted = SelfHosted { command, transport: Transport::Stdio, ..SelfHosted::default() };
    let mut entry = remote_entry(name);
    entry.spec.remote = None;
    entry.spec.self_hosted = Some(hosted);
    entry
}

/// An installation of an entry that is ready and has listed no tool yet.
#[must_use]
pub fn installation(entry: &Entry, owner: Owner) -> Installation {
    let (id, at) = (InstallationId::new(), now());
    Installation {
        id,
        entry: entry.id,
        owner,
        values: BTreeMap::new(),
        secret_fields: BTreeSet::new(),
        secrets: None,
        state: InstallationState::Ready,
        reinstall_required: None,
        credential: None,
        workload: entry.spec.self_hosted.as_ref().map(|_| WorkloadId::of_installation(id)),
        tools: BTreeMap::new(),
        author: None,
        apply_set: None,
        created_at: at,
        updated_at: at,
    }
}

/// A tool of an entry that takes an object.
#[must_use]
pub fn tool(entry: &Entry, name: &str) -> Tool {
    let definition =
        serde_json::json!({"name": name, "description": format!("does {name}"), "inputSchema": {"type": "object"}});
    let at = now();
    Tool {
        id: ToolId::new(),
        entry: entry.id,
        name: name.to_owned(),
        hash: DefinitionHash::of(&definition),
        definition: definition.to_string(),
        changed: None,
        created_at: at,
        updated_at: at,
    }
}

/// A gateway that everybody may use and that is given its tools by hand.
#[must_use]
pub fn gateway(slug: &str) -> Consumer {
    consumer(ConsumerKind::Gateway, slug)
}

/// An agent that everybody may use and that is given its tools by hand.
#[must_use]
pub fn agent(slug: &str) -> Consumer {
    consumer(ConsumerKind::Agent, slug)
}

fn consumer(kind: ConsumerKind, slug: &str) -> Consumer {
    let at = now();
    Consumer {
        id: ConsumerId::new(),
        kind,
        spec: ConsumerSpec {
            slug: slug.to_owned(),
            name: None,
            description: None,
            labels: Labels::new(),
            tool_assignment: ToolAssignment::Manual,
            tool_names: ToolNames::Prefixed,
            tool_exposure: ToolExposure::Full,
            call_timeout: None,
            passthrough_headers: Vec::new(),
        },
        scope: Scope::Organization,
        tools: Vec::new(),
        identity_provider: None,
        author: None,
        apply_set: None,
        created_at: at,
        updated_at: at,
    }
}

/// Gives a consumer a tool under its prefixed name, resolved at call time.
#[must_use]
pub fn assignment(consumer: &Consumer, entry: &Entry, tool: &Tool) -> Assignment {
    Assignment {
        id: AssignmentId::new(),
        consumer: consumer.id,
        entry: entry.id,
        tool: tool.id,
        exposed_name: expose(Some(&entry.spec.name), &tool.name, &BTreeSet::new()),
        credential: CredentialChoice::ResolveAtCallTime,
    }
}

/// What a runtime runs: a stdio server started by `command`.
#[must_use]
pub fn workload_spec(name: &str, command: &[&str]) -> WorkloadSpec {
    WorkloadSpec {
        name: name.to_owned(),
        image: None,
        command: command.iter().map(|&part| part.to_owned()).collect(),
        args: Vec::new(),
        env: Vec::new(),
        env_from: Vec::new(),
        transport: WorkloadTransport::Stdio,
        exclusive: false,
        pull_secrets: Vec::new(),
        service_account: None,
        run_as_user: None,
        deployment_yaml: None,
        platform: BTreeMap::new(),
        team: None,
        namespace: None,
    }
}

/// The first revision of a new workload with this specification and no secrets.
#[must_use]
pub fn workload(spec: WorkloadSpec) -> Workload {
    Workload {
        id: WorkloadId::of_installation(InstallationId::new()),
        revision: RevisionNumber(1),
        spec,
        secrets: BTreeMap::new(),
    }
}

/// A stored revision of an installation's workload.
#[must_use]
pub fn revision(installation: &Installation, number: u32) -> Revision {
    Revision {
        id: RevisionId::new(),
        workload: WorkloadId::of_installation(installation.id),
        number: RevisionNumber(number),
        entry: installation.entry,
        spec: workload_spec("server", &["server"]),
        secrets: Vec::new(),
        cause: "install".to_owned(),
        author: None,
        created_at: now(),
    }
}

/// A rule that allows every call.
#[must_use]
pub fn policy(name: &str) -> Policy {
    let spec = PolicySpec {
        name: name.to_owned(),
        priority: 0,
        entry: None,
        tool: None,
        consumer: None,
        callers: Vec::new(),
        conditions: Vec::new(),
        action: PolicyAction::Allow,
        message: None,
    };
    Policy { id: PolicyId::new(), spec, apply_set: None, created_at: now() }
}

/// A limit of so many calls a minute for all calls together.
#[must_use]
pub fn limit(name: &str, calls: u64) -> Limit {
    let spec = LimitSpec {
        name: name.to_owned(),
        entry: None,
        tool: None,
        consumer: None,
        callers: Vec::new(),
        per: LimitPer::Organization,
        calls,
        window: 60,
    };
    Limit { id: LimitId::new(), spec, apply_set: None, created_at: now() }
}

/// A record of something that was done at this time; its id is of this time too.
#[must_use]
pub fn audit_record(action: &str, at: DateTime<Utc>) -> AuditRecord {
    let seconds = u64::try_from(at.timestamp()).unwrap_or_default();
    let id = uuid::Uuid::new_v7(uuid::Timestamp::from_unix_time(seconds, at.timestamp_subsec_nanos(), 0, 0));
    AuditRecord {
        id: AuditId::from_uuid(id),
        at,
        action: action.to_owned(),
        actor: Actor {
            kind: "system".to_owned(),
            id: None,
            name: "system".to_owned(),
            method: "embedded".to_owned(),
            address: None,
        },
        outcome: Outcome::Success,
        error: None,
        duration_us: 1_500,
        call: None,
        subject: None,
        details: BTreeMap::new(),
    }
}

/// A record of a tool call through a consumer.
#[must_use]
pub fn call_record(consumer: &str, tool: &str, at: DateTime<Utc>) -> AuditRecord {
    let call = CallRecord {
        consumer: consumer.to_owned(),
        entry: Some("tracker".to_owned()),
        tool: tool.to_owned(),
        installation: None,
        owner: Some("organization".to_owned()),
        resolution: Some("organization".to_owned()),
        policy: None,
        request_bytes: 120,
        response_bytes: 4_096,
    };
    AuditRecord { call: Some(call), ..audit_record("tools/call", at) }
}

/// A secret reference.
///
/// # Panics
/// When this is not one.
#[must_use]
pub fn secret_ref(path: &str) -> SecretRef {
    path.parse().expect("a fixture is given a valid reference")
}

/// A bundle of these keys and values.
#[must_use]
pub fn bundle(values: &[(&str, &str)]) -> SecretBundle {
    values.iter().copied().collect()
}
