//! What a runtime runs: workloads, their stored revisions, and what applying one came to.

use crate::{
    Error, Result,
    catalog::EnvFrom,
    id::{EntryId, InstallationId, RevisionId, UserId},
    secret::{SecretRef, SecretValue},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// Names a workload for ever: made from the id of its installation, or of its entry when the deployment is shared. A DNS label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(try_from = "String", into = "String")]
pub struct WorkloadId(String);

impl WorkloadId {
    /// The workload of an installation.
    #[must_use]
    pub fn of_installation(id: InstallationId) -> Self {
        Self(format!("mcp-{}", id.as_uuid().simple()))
    }

    /// The workload that all installations of an entry share.
    #[must_use]
    pub fn of_entry(id: EntryId) -> Self {
        Self(format!("mcp-shared-{}", id.as_uuid().simple()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for WorkloadId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fits = (1..=63).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-');
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::invalid(
                "workload",
                format!("{text:?} is not a workload id"),
                "use the id that the API returned",
            ))
        }
    }
}

impl TryFrom<String> for WorkloadId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<WorkloadId> for String {
    fn from(id: WorkloadId) -> Self {
        id.0
    }
}

/// How a workload's server is talked to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case", tag = "type")]
pub enum WorkloadTransport {
    /// Over standard input and output.
    Stdio,
    /// Over HTTP.
    StreamableHttp {
        /// Where it listens; absent: the runtime chooses.
        port: Option<u16>,
        /// Its endpoint's path.
        path: String,
    },
}

/// A variable of a workload's environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct WorkloadEnv {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: EnvValue,
}

/// Where the value of a variable comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum EnvValue {
    /// Here.
    Plain(String),
    /// From the workload's secrets, under this key; in the environment.
    Secret(String),
    /// From the workload's secrets, under this key; as the read-only file `/secrets/<name>` and not in the environment.
    Mounted(String),
}

/// Credentials or the name of a pull secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum WorkloadPullSecret {
    /// A secret in the cluster.
    Existing {
        /// Its name.
        name: String,
    },
    /// Credentials to make one from.
    Credentials {
        /// The registry.
        server: String,
        /// The user.
        username: String,
        /// The key of the password among the workload's secrets.
        password_key: String,
        /// The address some registries want.
        email: Option<String>,
    },
}

/// What is stored of a workload: everything but secret values, with all that the platform adds resolved into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct WorkloadSpec {
    /// A readable name: the entry's slug.
    pub name: String,
    /// The image; absent: the runtime's base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The program and what always follows it; empty: what the image starts by itself.
    #[serde(default)]
    pub command: Vec<String>,
    /// Its arguments, with placeholders of plain values filled in.
    #[serde(default)]
    pub args: Vec<String>,
    /// Its environment, in order.
    #[serde(default)]
    pub env: Vec<WorkloadEnv>,
    /// Objects of the cluster whose entries become variables too, in order. What `env` says wins over them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_from: Vec<EnvFrom>,
    /// How it is talked to.
    pub transport: WorkloadTransport,
    /// Whether one session at a time has the process.
    #[serde(default)]
    pub exclusive: bool,
    /// Pull secrets.
    #[serde(default)]
    pub pull_secrets: Vec<WorkloadPullSecret>,
    /// The service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// The user id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as_user: Option<i64>,
    /// The override document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment_yaml: Option<String>,
    /// What the platform added when a user action made this revision: base image, bridge image, default limits, scheduling.
    #[serde(default)]
    pub platform: BTreeMap<String, String>,
    /// The team it is for, for labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team: Option<crate::id::TeamId>,
    /// The namespace it is in, once a runtime has chosen one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// What a runtime is asked to run: a stored specification with its secret values.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Its name for ever.
    pub id: WorkloadId,
    /// Its revision.
    pub revision: RevisionNumber,
    /// What to run.
    pub spec: WorkloadSpec,
    /// The values of its secret variables and pull secrets, by key.
    pub secrets: BTreeMap<String, SecretValue>,
}

/// Counts the revisions of one workload, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct RevisionNumber(pub u32);

impl fmt::Display for RevisionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A stored revision of a workload. The newest is the desired one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// The identifier.
    pub id: RevisionId,
    /// Whose revision. (workload, number) is unique.
    pub workload: WorkloadId,
    /// Which one.
    pub number: RevisionNumber,
    /// The entry it was made from.
    pub entry: EntryId,
    /// What to run.
    pub spec: WorkloadSpec,
    /// Where its secrets are: the entry's, then the installation's, whose values win.
    #[serde(default)]
    pub secrets: Vec<SecretRef>,
    /// Why it was made: `install`, `update`, `reinstall`, `rollback`.
    pub cause: String,
    /// By whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<UserId>,
    /// When.
    pub created_at: DateTime<Utc>,
}

/// What applying came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The revision that is desired now.
    pub revision: RevisionNumber,
    /// Whether anything had to be changed.
    pub changed: bool,
    /// Where it runs, if the runtime has namespaces.
    pub namespace: Option<String>,
}

/// What a runtime would do, for people to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Documents in YAML, or whatever the runtime's own form is.
    pub documents: Vec<String>,
}

#[cfg(test)]
mod tests;
