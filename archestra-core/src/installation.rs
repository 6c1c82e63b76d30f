//! Installations: the connections that users and teams make from entries, with their own values and credentials.

use crate::{
    Finding,
    catalog::{ClientCredentialsConfig, CredentialModel, EntrySpec, FieldType, ReinstallReason, header_text_finding},
    id::{EntryId, InstallationId, TeamId, UserId},
    runtime::WorkloadId,
    secret::{SecretBundle, SecretRef, SecretValue},
    tool::DefinitionHash,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Whose installation it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Owner {
    /// Personal.
    User(UserId),
    /// A team's.
    Team(TeamId),
    /// Everybody's.
    Organization,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => write!(f, "user {id}"),
            Self::Team(id) => write!(f, "team {id}"),
            Self::Organization => f.write_str("organization"),
        }
    }
}

/// The connection somebody made from an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Installation {
    /// Its identifier.
    pub id: InstallationId,
    /// What it was made from. (entry, owner) is unique.
    pub entry: EntryId,
    /// Whose it is.
    pub owner: Owner,
    /// Plain values by field name.
    #[serde(default)]
    pub values: BTreeMap<String, String>,
    /// The names of the secret fields that have a value.
    #[serde(default)]
    pub secret_fields: BTreeSet<String>,
    /// Where those are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<SecretRef>,
    /// How far it has come.
    pub state: InstallationState,
    /// Set when a change of the entry needs new input; what runs stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reinstall_required: Option<ReinstallReason>,
    /// How its credential is, where the platform renews it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialHealth>,
    /// What runs for it, if the platform runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<WorkloadId>,
    /// What it listed last: raw tool name and the hash of its definition. Calls are routed only to tools in here.
    #[serde(default)]
    pub tools: BTreeMap<String, DefinitionHash>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<UserId>,
    /// The `apply` set that made it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apply_set: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

/// How far an installation has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "phase", rename_all = "camelCase")]
pub enum InstallationState {
    /// Its workload is being started.
    Pending,
    /// Its tools are being listed.
    Discovering,
    /// Its tools can be called.
    Ready,
    /// It failed.
    Error {
        /// What happened.
        reason: String,
        /// What to do about it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    },
}

/// How a credential is that the platform renews by itself (RFC 6749 section 6).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CredentialHealth {
    /// Until when it can be used as it is; absent: nobody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
    /// The last attempt to renew it, if that failed. The next one that succeeds takes it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_failed: Option<RefreshFailure>,
}

/// Why a credential could not be renewed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct RefreshFailure {
    /// What the authorization server said, in words that hold no secret.
    pub reason: String,
    /// When.
    pub at: DateTime<Utc>,
}

/// A field that an installation is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct InstallField {
    /// Its name among the values.
    pub name: String,
    /// What a value looks like.
    #[serde(rename = "type")]
    pub field_type: FieldType,
    /// Whether it is secret.
    pub secret: bool,
    /// Whether it must be given.
    pub required: bool,
    /// What holds when it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// What to enter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// What an installation of this entry is asked for, in the order of the entry.
#[must_use]
pub fn install_fields(spec: &EntrySpec) -> Vec<InstallField> {
    let mut fields = Vec::new();
    if let Some(hosted) = &spec.self_hosted {
        fields.extend(hosted.env.iter().filter(|var| var.prompt).map(|var| InstallField {
            name: var.name.clone(),
            field_type: var.field_type,
            secret: var.secret,
            required: var.required && var.default.is_none(),
            default: var.default.clone(),
            description: var.description.clone(),
        }));
    }
    let text = |name: &str, secret, required, description: &Option<String>| InstallField {
        name: name.to_owned(),
        field_type: FieldType::String,
        secret,
        required,
        default: None,
        description: description.clone(),
    };
    match &spec.credential {
        CredentialModel::Static(statics) => {
            fields.extend(
                statics
                    .iter()
                    .filter(|field| field.prompt)
                    .map(|field| text(&field.name, field.secret, field.required, &field.description)),
            );
        }
        CredentialModel::ClientCredentials(config) => {
            fields.extend(
                config.asked().map(|name| text(name, name == ClientCredentialsConfig::CLIENT_SECRET, true, &None)),
            );
        }
        CredentialModel::None
        | CredentialModel::OAuth(_)
        | CredentialModel::Enterprise(_)
        | CredentialModel::JwtPassthrough => {}
    }
    fields.extend(
        spec.additional_headers
            .iter()
            .filter(|header| header.prompt)
            .map(|header| text(&header.name, false, header.required, &header.description)),
    );
    fields
}

/// Values that were given for an installation, sorted into plain and secret ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InstallValues {
    /// By field name.
    pub plain: BTreeMap<String, String>,
    /// By field name.
    pub secret: SecretBundle,
}

/// Checks what was given against what the entry asks for. `kept` names secret fields whose stored value stays.
///
/// A blank value counts as none, but for a text that is neither required nor secret: there it is the value.
///
/// # Errors
/// Every missing, unknown or ill-typed value, under `values.<name>`.
pub fn check_values(
    spec: &EntrySpec,
    given: impl IntoIterator<Item = (String, SecretValue)>,
    kept: &BTreeSet<String>,
) -> Result<InstallValues, Vec<Finding>> {
    let fields = install_fields(spec);
    let headers = header_field_names(spec);
    let mut values = InstallValues::default();
    let mut findings = Vec::new();
    let mut refused = BTreeSet::new();
    for (name, value) in given {
        let Some(field) = fields.iter().find(|field| field.name == name) else {
            findings.push(unknown_field(&name, &fields));
            continue;
        };
        if value.is_blank() && (field.required || field.secret || field.field_type != FieldType::String) {
            continue;
        }
        let finding = match (value.external(), field.secret) {
            (None, _) => value_finding(field, &value, headers.contains(name.as_str())),
            // What it will be is seen when it is used.
            (Some(_), true) => None,
            (Some(_), false) => {
                Some(Finding::new(place(&name), format!("{name} is no secret"), "give the value itself"))
            }
        };
        if let Some(finding) = finding {
            findings.push(finding);
            refused.insert(name);
        } else if field.secret {
            values.secret.insert(name, value);
        } else {
            values.plain.insert(name, value.expose().to_owned());
        }
    }
    for field in fields.iter().filter(|field| field.required && !refused.contains(&field.name)) {
        let present = values.plain.contains_key(&field.name)
            || values.secret.get(&field.name).is_some()
            || (field.secret && kept.contains(&field.name));
        if !present {
            let described = field.description.clone().filter(|text| !text.trim().is_empty());
            let remedy = described.unwrap_or_else(|| format!("give it {}", field.field_type.label()));
            findings.push(Finding::new(place(&field.name), format!("{} is required", field.name), remedy));
        }
    }
    if findings.is_empty() { Ok(values) } else { Err(findings) }
}

fn place(name: &str) -> String {
    format!("values.{name}")
}

fn unknown_field(name: &str, fields: &[InstallField]) -> Finding {
    let known: Vec<_> = fields.iter().map(|field| field.name.as_str()).collect();
    let remedy = match known.as_slice() {
        [] => "remove it: this entry asks for none".to_owned(),
        known => format!("it asks for {}", known.join(", ")),
    };
    Finding::new(place(name), format!("the entry asks for no field {name}"), remedy)
}

fn value_finding(field: &InstallField, value: &SecretValue, in_header: bool) -> Option<Finding> {
    let text = value.expose();
    if !field.field_type.accepts(text) {
        let label = field.field_type.label();
        return Some(Finding::new(place(&field.name), format!("the value is not {label}"), format!("give {label}")));
    }
    if in_header && let Some(finding) = header_text_finding(&place(&field.name), text) {
        return Some(finding);
    }
    text.contains('\0').then(|| Finding::new(place(&field.name), "the value holds a NUL byte", "remove it"))
}

fn header_field_names(spec: &EntrySpec) -> BTreeSet<&str> {
    let statics = match &spec.credential {
        CredentialModel::Static(fields) => fields.as_slice(),
        _ => &[],
    };
    statics
        .iter()
        .map(|field| field.name.as_str())
        .chain(spec.additional_headers.iter().map(|header| header.name.as_str()))
        .collect()
}

#[cfg(test)]
mod tests;
