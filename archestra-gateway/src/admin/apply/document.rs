//! What a document may hold, decoded with every problem at its place.

use super::{
    super::{
        Problem,
        body::{self, Format},
    },
    source::unresolved,
};
use archestra_core::Finding;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::HashSet;

pub use super::super::{
    consumers::{ConsumerWrite as ConsumerItem, SelectorWrite as SelectorItem},
    entries::EntryWrite as EntryItem,
    installations::InstallWrite as InstallationItem,
    policies::PolicyWrite as PolicyItem,
    refs::{CallerRef, CredentialRef, InstallationRef, ScopeRef},
};

/// The one `apiVersion` that is understood.
pub const API_VERSION: &str = "archestra.dev/v1";

/// What is to be. What it does not name stays as it is.
#[derive(Debug, utoipa::ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct ApplyDocument {
    /// `archestra.dev/v1`.
    pub api_version: String,
    /// Users, known by address.
    #[schema(required = false)]
    pub users: Vec<UserItem>,
    /// Teams, known by name.
    #[schema(required = false)]
    pub teams: Vec<TeamItem>,
    /// Entries, known by name.
    #[schema(required = false)]
    pub entries: Vec<EntryItem>,
    /// Installations, known by entry and scope.
    #[schema(required = false)]
    pub installations: Vec<InstallationItem>,
    /// Gateways, known by slug.
    #[schema(required = false)]
    pub gateways: Vec<ConsumerItem>,
    /// Agents, known by slug.
    #[schema(required = false)]
    pub agents: Vec<ConsumerItem>,
    /// Policies, known by name.
    #[schema(required = false)]
    pub policies: Vec<PolicyItem>,
}

/// A user. What is absent stays as it is.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UserItem {
    /// Unique.
    pub email: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `member` for a new user, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// A team. What is absent stays as it is.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TeamItem {
    /// Unique.
    pub name: String,
    /// Higher wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// All its members, by address or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<String>>,
}

const KEYS: &[&str] = &["apiVersion", "users", "teams", "entries", "installations", "gateways", "agents", "policies"];

impl ApplyDocument {
    /// Reads and understands a document.
    ///
    /// # Errors
    /// Where it is not JSON or YAML, or has a key twice, by line and column; else everything that is wrong with it in itself.
    pub fn parse(bytes: &[u8], format: Format) -> Result<Self, Problem> {
        Self::from_value(body::parse(bytes, format)?)
    }

    /// Understands a document.
    ///
    /// # Errors
    /// Everything that is wrong with it in itself, each by its place.
    pub(crate) fn from_value(mut value: Value) -> Result<Self, Problem> {
        let mut findings = unresolved(&mut value);
        if !findings.is_empty() {
            return Err(Problem::invalid(findings));
        }
        let mut object = body::Document(value).into_object()?;
        match object.remove("apiVersion") {
            Some(Value::String(version)) if version == API_VERSION => {}
            Some(_) => findings.push(Finding::new(
                "apiVersion",
                "this version is not understood",
                format!("use `apiVersion: {API_VERSION}`"),
            )),
            None => findings.push(Finding::new(
                "apiVersion",
                "the version is missing",
                format!("add `apiVersion: {API_VERSION}`"),
            )),
        }
        let document = Self {
            api_version: API_VERSION.to_owned(),
            users: items(&mut object, "users", body::decode, &mut findings),
            teams: items(&mut object, "teams", body::decode, &mut findings),
            entries: items(&mut object, "entries", entry, &mut findings),
            installations: items(&mut object, "installations", body::decode, &mut findings),
            gateways: items(&mut object, "gateways", body::decode, &mut findings),
            agents: items(&mut object, "agents", body::decode, &mut findings),
            policies: items(&mut object, "policies", body::decode, &mut findings),
        };
        for key in object.keys() {
            findings.push(Finding::new(key, "this key is not known", format!("use {}", KEYS.join(", "))));
        }
        if findings.is_empty() {
            document.duplicates(&mut findings);
        }
        if findings.is_empty() { Ok(document) } else { Err(Problem::invalid(findings)) }
    }

    fn duplicates(&self, findings: &mut Vec<Finding>) {
        unique("users", self.users.iter().map(|user| user.email.to_lowercase()), &mut HashSet::new(), findings);
        unique("teams", self.teams.iter().map(|team| team.name.clone()), &mut HashSet::new(), findings);
        unique("entries", self.entries.iter().map(|entry| entry.spec.name.clone()), &mut HashSet::new(), findings);
        unique("policies", self.policies.iter().map(|policy| policy.name.clone()), &mut HashSet::new(), findings);
        let mut slugs = HashSet::new();
        unique("gateways", self.gateways.iter().map(|gateway| gateway.slug.clone()), &mut slugs, findings);
        unique("agents", self.agents.iter().map(|agent| agent.slug.clone()), &mut slugs, findings);
    }
}

fn entry(value: Value) -> Result<EntryItem, Finding> {
    EntryItem::decode(value).map(|(entry, _)| entry).map_err(|problem| match problem.findings() {
        [first, ..] => first.clone(),
        [] => Finding::new("", problem.detail(), ""),
    })
}

fn items<T>(
    object: &mut Map<String, Value>,
    key: &str,
    decode: fn(Value) -> Result<T, Finding>,
    findings: &mut Vec<Finding>,
) -> Vec<T> {
    let list = match object.remove(key) {
        None | Some(Value::Null) => return Vec::new(),
        Some(Value::Array(list)) => list,
        Some(_) => {
            findings.push(Finding::new(key, "this is not a list", "write a list"));
            return Vec::new();
        }
    };
    let mut items = Vec::new();
    for (n, value) in list.into_iter().enumerate() {
        match decode(value) {
            Ok(item) => items.push(item),
            Err(finding) => findings.push(finding.under(&format!("{key}[{n}]"))),
        }
    }
    items
}

fn unique(list: &str, keys: impl Iterator<Item = String>, seen: &mut HashSet<String>, findings: &mut Vec<Finding>) {
    for (n, key) in keys.enumerate() {
        if seen.contains(&key) {
            findings.push(Finding::new(format!("{list}[{n}]"), format!("{key} is in the document twice"), "keep one"));
        } else {
            seen.insert(key);
        }
    }
}
