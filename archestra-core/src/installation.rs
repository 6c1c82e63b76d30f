//! Installations: the connections that users and teams make from entries, with their own values and credentials.

use crate::{
    Finding,
    catalog::{CredentialModel, EntrySpec, FieldType, ReinstallReason},
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
            fields.extend(statics.iter().filter(|field| field.prompt).map(|field| text(&field.name, field.secret, field.required, &field.description)));
        }
        CredentialModel::ClientCredentials(config) => {
            if config.client_id.is_none() {
                fields.push(text("clientId", false, true, &None));
            }
            if config.client_secret.is_none() {
                fields.push(text("clientSecret", true, true, &None));
            }
        }
        CredentialModel::None | CredentialModel::OAuth(_) | CredentialModel::Enterprise(_) | CredentialModel::JwtPassthrough => {}
    }
    fields.extend(spec.additional_headers.iter().filter(|header| header.prompt).map(|header| text(&header.name, false, header.required, &header.description)));
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
/// # Errors
/// Every missing, unknown or ill-typed value, under `values.<name>`.
pub fn check_values(spec: &EntrySpec, given: impl IntoIterator<Item = (String, SecretValue)>, kept: &BTreeSet<String>) -> Result<InstallValues, Vec<Finding>> {
    let fields = install_fields(spec);
    let headers: BTreeSet<&str> = header_field_names(spec);
    let mut values = InstallValues::default();
    let mut findings = Vec::new();
    for (name, value) in given {
        let at = format!("values.{name}");
        let Some(field) = fields.iter().find(|field| field.name == name) else {
            let known: Vec<_> = fields.iter().map(|field| field.name.as_str()).collect();
            let remedy = if known.is_empty() { "this entry asks for none".to_owned() } else { format!("it asks for {}", known.join(", ")) };
            findings.push(Finding::new(at, format!("the entry asks for no field {name}"), remedy));
            continue;
        };
        if value.is_blank() && field.field_type != FieldType::String || (value.is_blank() && field.required) {
            continue;
        }
        if !field.field_type.accepts(value.expose()) {
            findings.push(Finding::new(at, format!("the value is not {}", field.field_type.label()), "correct it"));
            continue;
        }
        if headers.contains(name.as_str())
            && let Some(finding) = crate::catalog::header_value_finding(&at, value.expose())
        {
            findings.push(finding);
            continue;
        }
        if value.expose().contains('\0') {
            findings.push(Finding::new(at, "the value holds a NUL byte", "remove it"));
            continue;
        }
        if field.secret {
            values.secret.insert(name, value);
        } else {
            values.plain.insert(name, value.expose().to_owned());
        }
    }
    for field in &fields {
        let present = values.plain.contains_key(&field.name) || values.secret.get(&field.name).is_some() || (field.secret && kept.contains(&field.name));
        if field.required && !present {
            findings.push(Finding::new(format!("values.{}", field.name), format!("{} is required", field.name), field.description.clone().unwrap_or_else(|| "give it a value".to_owned())));
        }
    }
    if findings.is_empty() { Ok(values) } else { Err(findings) }
}

fn header_field_names(spec: &EntrySpec) -> BTreeSet<&str> {
    let statics = match &spec.credential {
        CredentialModel::Static(fields) => fields.as_slice(),
        _ => &[],
    };
    statics.iter().map(|field| field.name.as_str()).chain(spec.additional_headers.iter().map(|header| header.name.as_str())).collect()
}
