//! Self-hosted servers: image, command, arguments, transport, environment and where it comes from, pull secrets and deployment
//! overrides.

use super::{
    EnvVar, FixedValue,
    value::{Secrecy, WireValue},
};
use serde::{Deserialize, Serialize};

/// How a self-hosted server is talked to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// Over the process's standard input and output.
    #[default]
    Stdio,
    /// Over HTTP, at `port` and `path`.
    StreamableHttp,
}

/// What a runtime runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SelfHosted {
    /// The container image; absent: the platform's base image, and then `command` is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The command, one element or several; absent: what the image starts by itself. Never passed through a shell.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    pub command: Vec<String>,
    /// Its arguments. `${user_config.NAME}` stands for a plain value of the installation, `${archestra.http_port}` for the port.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// How it is talked to.
    pub transport: Transport,
    /// Where it listens, for `streamable-http`; on Kubernetes 8080 if absent, locally a free port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The path of its endpoint, for `streamable-http`; `/mcp` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Its environment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Secrets and ConfigMaps of the cluster whose entries become variables too, as far as an operator opted them in. What `env`
    /// says wins over them, and later ones over earlier ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env_from: Vec<EnvFrom>,
    /// Secrets for pulling the image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<PullSecret>,
    /// The Kubernetes service account of its pods, where policy allows one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// The user id of its process in a container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_as_user: Option<i64>,
    /// A Kubernetes Deployment, or a strategic merge patch for the generated one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment_yaml: Option<String>,
}

/// What kind of object variables come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum EnvFromKind {
    /// A Secret.
    Secret,
    /// A ConfigMap.
    ConfigMap,
}

impl EnvFromKind {
    /// Kubernetes' own word.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
        }
    }
}

/// An object of the cluster, in the namespace of the workload, whose entries become variables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvFrom {
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: EnvFromKind,
    /// Its name.
    pub name: String,
    /// What the names of its variables begin with, before the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// A secret for pulling images: one that is in the cluster, or credentials from which one is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged, from = "WirePullSecret")]
pub enum PullSecret {
    /// A `kubernetes.io/dockerconfigjson` secret of this name in the platform's namespace.
    Existing {
        /// The secret's name.
        existing: String,
    },
    /// Credentials of a registry. The password is kept in the secret store.
    Credentials {
        /// The registry's host, and port if it has one.
        server: String,
        /// The user.
        username: String,
        /// The password.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        password: Option<FixedValue>,
        /// The address some registries want.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        email: Option<String>,
    },
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected `existing` alone, or `server`, `username`, `password` and perhaps `email`")]
enum WirePullSecret {
    Existing(WireExisting),
    Credentials(WireCredentials),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireExisting {
    existing: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireCredentials {
    server: String,
    username: String,
    password: Option<WireValue>,
    email: Option<String>,
}

impl From<WirePullSecret> for PullSecret {
    fn from(wire: WirePullSecret) -> Self {
        match wire {
            WirePullSecret::Existing(WireExisting { existing }) => Self::Existing { existing },
            WirePullSecret::Credentials(WireCredentials { server, username, password, email }) => Self::Credentials {
                server,
                username,
                password: password.map(|value| value.into_fixed(Secrecy::Secret)),
                email,
            },
        }
    }
}

impl PullSecret {
    /// The key its password is stored under, if it has one: `pull.<server>.<user>`, without dots in the user, so that no two
    /// are stored under the same key. It does not depend on the order of pull secrets.
    #[must_use]
    pub fn password_key(&self) -> Option<String> {
        match self {
            Self::Existing { .. } => None,
            Self::Credentials { server, username, .. } => {
                let user = username.replace('%', "%25").replace('.', "%2E");
                Some(format!("pull.{server}.{user}"))
            }
        }
    }
}

impl SelfHosted {
    /// The path of a streamable-http endpoint.
    #[must_use]
    pub fn http_path(&self) -> &str {
        self.path.as_deref().unwrap_or("/mcp")
    }
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a program, or a list that begins with one")]
    enum Wire {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Wire::deserialize(deserializer)? {
        Wire::One(command) => vec![command],
        Wire::Many(command) => command,
    })
}

/// The names in `${<prefix>NAME}` within a text.
pub(super) fn placeholders<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    text.split("${")
        .skip(1)
        .filter_map(move |rest| rest.split_once('}').and_then(|(name, _)| name.strip_prefix(prefix)))
}
