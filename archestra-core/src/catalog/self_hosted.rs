//! Self-hosted servers: image, command, arguments, transport, environment, pull secrets and deployment overrides.

use super::{EnvVar, FixedValue, value::{Secrecy, WireValue}};
use crate::{Finding, Validate};
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
#[serde(untagged)]
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
            WirePullSecret::Credentials(WireCredentials { server, username, password, email }) => {
                Self::Credentials { server, username, password: password.map(|value| value.into_fixed(Secrecy::Secret)), email }
            }
        }
    }
}

impl PullSecret {
    /// The key its password is stored under, if it has one. It does not depend on the order of pull secrets.
    #[must_use]
    pub fn password_key(&self) -> Option<String> {
        match self {
            Self::Existing { .. } => None,
            Self::Credentials { server, username, .. } => Some(format!("pull.{server}.{username}")),
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
    #[serde(untagged)]
    enum Wire {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Wire::deserialize(deserializer)? {
        Wire::One(command) => vec![command],
        Wire::Many(command) => command,
    })
}

impl Validate for SelfHosted {
    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.image.is_none() && self.command.is_empty() {
            findings.push(Finding::new("command", "neither an image nor a command", "add `command` to run on the base image, or `image`"));
        }
        if self.command.first().is_some_and(|program| program.trim().is_empty()) {
            findings.push(Finding::new("command", "the command is blank", "name a program"));
        }
        if self.command.iter().chain(&self.args).any(|text| text.contains('\0')) {
            findings.push(Finding::new("args", "arguments cannot hold a NUL byte", "remove it"));
        }
        if let Some(image) = &self.image
            && (image.is_empty() || image.len() > 512 || image.chars().any(|c| c.is_whitespace() || c.is_control()))
        {
            findings.push(Finding::new("image", format!("{image:?} is not an image reference"), "use `registry/name:tag` or `name@sha256:…`"));
        }
        if self.transport == Transport::Stdio {
            for (field, set) in [("port", self.port.is_some()), ("path", self.path.is_some())] {
                if set {
                    findings.push(Finding::new(field, "only streamable-http servers have one", "remove it, or set `transport: streamable-http`"));
                }
            }
        }
        if self.port == Some(0) {
            findings.push(Finding::new("port", "port 0 cannot be reached", "use 1 to 65535, or leave it out"));
        }
        if let Some(path) = &self.path
            && (!path.starts_with('/') || path.contains(['?', '#']) || path.chars().any(|c| c.is_whitespace() || c.is_control()))
        {
            findings.push(Finding::new("path", format!("{path:?} is not a path"), "start with '/', without '?' and '#'"));
        }
        for (n, var) in self.env.iter().enumerate() {
            findings.extend(var.findings().into_iter().map(|finding| finding.under(&format!("env[{n}]"))));
            if self.env[..n].iter().any(|other| other.name == var.name) {
                findings.push(Finding::new(format!("env[{n}].name"), format!("{} is there twice", var.name), "keep one"));
            }
        }
        for (n, arg) in self.args.iter().enumerate() {
            for name in placeholders(arg, "user_config.") {
                match self.env.iter().find(|var| var.name == name) {
                    Some(var) if var.secret => findings.push(Finding::new(format!("args[{n}]"), format!("{name} is secret, and arguments are visible to everybody on the machine"), "let the server read it from its environment")),
                    Some(_) => {}
                    None => findings.push(Finding::new(format!("args[{n}]"), format!("there is no field {name}"), "add it to `env`")),
                }
            }
        }
        for (n, pull) in self.image_pull_secrets.iter().enumerate() {
            let blank = match pull {
                PullSecret::Existing { existing } => existing.trim().is_empty(),
                PullSecret::Credentials { server, username, .. } => server.trim().is_empty() || username.trim().is_empty(),
            };
            if blank {
                findings.push(Finding::new(format!("imagePullSecrets[{n}]"), "an image pull secret is blank", "name an existing secret, or give `server`, `username` and `password`"));
            }
            if let Some(key) = pull.password_key()
                && self.image_pull_secrets[..n].iter().any(|other| other.password_key().as_deref() == Some(&key))
            {
                findings.push(Finding::new(format!("imagePullSecrets[{n}]"), "the same server and user twice", "keep one"));
            }
        }
        if self.run_as_user.is_some_and(|user| user < 0) {
            findings.push(Finding::new("runAsUser", "a user id is not negative", "use 0 or greater"));
        }
        if let Some(yaml) = &self.deployment_yaml
            && let Err(error) = serde_saphyr::from_str::<serde_json::Value>(yaml)
        {
            findings.push(Finding::new("deploymentYaml", format!("not YAML: {error}"), "correct the line it names"));
        }
        findings
    }
}

/// The names in `${<prefix>NAME}` within a text.
pub(crate) fn placeholders<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    text.split("${").skip(1).filter_map(move |rest| rest.split_once('}').and_then(|(name, _)| name.strip_prefix(prefix)))
}
