//! The way to the cluster: a kubeconfig or the pod's service account becomes a client, or a precise error.

use crate::{
    config::{ClusterAccess, KubernetesConfig},
    error::{self, BACKEND},
    transport,
};
use archestra_core::Error;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, Client, Config,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};
use tokio::time::timeout;

/// Where the kubelet puts a pod's token, the cluster's certificate and the pod's namespace.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The API server as cluster DNS knows it.
const SERVER: &str = "https://kubernetes.default.svc";

/// Why there is no way to the cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// No TLS provider is installed in this process.
    #[error(
        "no TLS provider is installed; call rustls::crypto::aws_lc_rs::default_provider().install_default() at the start of the program"
    )]
    NoTlsProvider,
    /// The namespace cannot be one.
    #[error(
        "{namespace:?} is not a namespace; use at most 63 lower-case letters, digits and '-', such as \"mcp-servers\""
    )]
    Namespace {
        /// What was configured.
        namespace: String,
    },
    /// The name of the platform cannot be the value of a label.
    #[error(
        "{instance:?} cannot name a platform; use at most 63 letters, digits, '-', '_' and '.', with a letter or digit first and last"
    )]
    Instance {
        /// What was configured.
        instance: String,
    },
    /// There is no such kubeconfig file.
    #[error("the kubeconfig {} does not exist; give the path of an existing file", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The kubeconfig file cannot be read.
    #[error("the kubeconfig {} cannot be read: {source}; it must be a file that this user may read", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The kubeconfig is no kubeconfig. The text never quotes it, because it holds credentials.
    #[error("{origin} is not a kubeconfig: {reason}{}", At(*line, *column))]
    Unparsable {
        /// Which.
        origin: Origin,
        /// Where in it, from 1.
        line: Option<u64>,
        /// Where in the line, from 1.
        column: Option<u64>,
        /// What is wrong there.
        reason: String,
    },
    /// The kubeconfig lacks something, or what it names does not exist.
    #[error("{origin} cannot be used: {reason}; {remedy}")]
    Incomplete {
        /// Which.
        origin: Origin,
        /// What is wrong.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// This process is in no pod, or its pod has no service account.
    #[error(
        "the service account of the pod cannot be used: {reason}; run inside a cluster with a mounted service account token, \
         or give a kubeconfig (ARCHESTRA_ORCHESTRATOR_KUBECONFIG)"
    )]
    NotInCluster {
        /// What was missing.
        reason: String,
    },
    /// Nobody answers there.
    #[error("no cluster answers at {server}: {reason}; check that it runs and that this machine reaches it")]
    Unreachable {
        /// The API server.
        server: String,
        /// What was seen.
        reason: String,
    },
    /// The cluster does not know us, or does not let us do what is needed.
    #[error("the cluster at {server} refused us: {reason}")]
    Refused {
        /// The API server.
        server: String,
        /// What it said.
        reason: String,
    },
}

impl AccessError {
    /// Whether the same may work later without anybody changing anything here.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

impl From<AccessError> for Error {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Unreachable { .. } => {
                Self::Unavailable { backend: BACKEND, reason: error.to_string(), source: Some(Box::new(error)) }
            }
            AccessError::Refused { .. } => Self::PermissionDenied { backend: BACKEND, reason: error.to_string() },
            error => Self::invalid("runtime", error.to_string(), ""),
        }
    }
}

/// Where a kubeconfig comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// A text that was given.
    Text,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the kubeconfig {}", path.display()),
            Self::Text => f.write_str("the kubeconfig that was given as text"),
        }
    }
}

struct At(Option<u64>, Option<u64>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (Some(line), Some(column)) => write!(f, " at line {line} column {column}"),
            _ => Ok(()),
        }
    }
}

/// A client, and what its API server is called in errors.
pub(crate) struct Access {
    pub(crate) client: Client,
    pub(crate) server: String,
}

/// Makes the client. Reads files, sends nothing.
pub(crate) async fn open(config: &KubernetesConfig) -> Result<Access, AccessError> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        return Err(AccessError::NoTlsProvider);
    }
    for namespace in std::iter::once(&config.namespace).chain(&config.more_namespaces) {
        check_namespace(namespace)?;
    }
    if let Some(instance) = config.instance.as_deref().filter(|instance| !is_label_value(instance)) {
        return Err(AccessError::Instance { instance: instance.to_owned() });
    }
    let (mut cluster, origin) = match &config.access {
        ClusterAccess::InCluster { server } => {
            (in_cluster(Path::new(SERVICE_ACCOUNT), server.as_deref().unwrap_or(SERVER)).await?, None)
        }
        ClusterAccess::Kubeconfig { path, context } => {
            let origin = Origin::File(path.clone());
            let kubeconfig = read(path, &origin).await?;
            (from_kubeconfig(kubeconfig, context.clone(), &origin).await?, Some(origin))
        }
        ClusterAccess::KubeconfigText { text, context } => {
            let kubeconfig = Kubeconfig::from_yaml(text.expose()).map_err(|error| incomplete(&error, &Origin::Text))?;
            (from_kubeconfig(kubeconfig, context.clone(), &Origin::Text).await?, Some(Origin::Text))
        }
    };
    cluster.default_retry = false;
    cluster.connect_timeout = Some(config.call_timeout);
    let server = server(&cluster);
    let client = transport::client(cluster).map_err(|error| {
        let reason = error::chain(&error);
        match origin {
            Some(origin) => AccessError::Incomplete {
                origin,
                reason,
                remedy: "check the certificates, keys and the way to sign in that its current context names".to_owned(),
            },
            None => AccessError::NotInCluster { reason },
        }
    })?;
    Ok(Access { client, server })
}

/// Asks the cluster whether it is there and whether we may see Deployments in our namespace.
pub(crate) async fn check(client: &Client, server: &str, config: &KubernetesConfig) -> Result<(), AccessError> {
    let deployments = Api::<Deployment>::namespaced(client.clone(), &config.namespace);
    let unreachable = |reason| AccessError::Unreachable { server: server.to_owned(), reason };
    let listed = timeout(config.call_timeout, deployments.list_metadata(&ListParams::default().limit(1))).await;
    let error = match listed {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(error)) => error,
        Err(_) => return Err(unreachable(format!("no answer within {:?}", config.call_timeout))),
    };
    match error::from_kube("listing Deployments", error) {
        Error::PermissionDenied { reason, .. } => Err(AccessError::Refused { server: server.to_owned(), reason }),
        Error::Unavailable { reason, .. } | Error::Backend { reason, .. } => Err(unreachable(reason)),
        error => Err(AccessError::Refused { server: server.to_owned(), reason: error.to_string() }),
    }
}

/// Whether a text is a DNS label, as the name of a namespace is.
pub(crate) fn is_namespace(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn check_namespace(namespace: &str) -> Result<(), AccessError> {
    if is_namespace(namespace) { Ok(()) } else { Err(AccessError::Namespace { namespace: namespace.to_owned() }) }
}

/// Whether a text may be the value of a label, and is not empty.
fn is_label_value(text: &str) -> bool {
    let alphanumeric = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && alphanumeric(bytes.first())
        && alphanumeric(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

/// The configuration that a service account's directory comes to. The token and the certificate are read again now and then, as
/// the kubelet replaces them.
async fn in_cluster(directory: &Path, server: &str) -> Result<Config, AccessError> {
    let not_in_cluster = |reason: String| AccessError::NotInCluster { reason };
    let url = server.parse().map_err(|error| not_in_cluster(format!("{server:?} is not a URL: {error}")))?;
    let owned = directory.to_owned();
    let read = tokio::task::spawn_blocking(move || service_account(&owned)).await;
    let (namespace, certificates) = read.map_err(|error| not_in_cluster(error.to_string()))?.map_err(not_in_cluster)?;
    let mut config = Config::new(url);
    config.default_namespace = namespace;
    config.root_cert = Some(certificates);
    config.root_cert_file = Some(directory.join("ca.crt"));
    config.auth_info.token_file = Some(directory.join("token").display().to_string());
    Ok(config)
}

/// The namespace and the certificates that a service account's directory holds.
fn service_account(directory: &Path) -> Result<(String, Vec<Vec<u8>>), String> {
    let read = |name: &str| {
        let path = directory.join(name);
        fs::read_to_string(&path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
    };
    let namespace = read("namespace")?.trim().to_owned();
    let text = read("ca.crt")?;
    let bad = |why: &str| format!("{} {why}", directory.join("ca.crt").display());
    let certificates = CertificateDer::pem_slice_iter(text.as_bytes()).map(|one| one.map(|one| one.to_vec()));
    let certificates: Vec<_> =
        certificates.collect::<Result<_, _>>().map_err(|error| bad(&format!("is not PEM: {error}")))?;
    if certificates.is_empty() {
        return Err(bad("holds no certificate"));
    }
    Ok((namespace, certificates))
}

async fn read(path: &Path, origin: &Origin) -> Result<Kubeconfig, AccessError> {
    let owned = path.to_owned();
    let read = tokio::task::spawn_blocking(move || Kubeconfig::read_from(owned)).await;
    let read =
        read.map_err(|error| AccessError::Unreadable { path: path.to_owned(), source: io::Error::other(error) })?;
    read.map_err(|error| match error {
        KubeconfigError::ReadConfig(source, path) if source.kind() == io::ErrorKind::NotFound => {
            AccessError::Missing { path }
        }
        KubeconfigError::ReadConfig(source, path) => AccessError::Unreadable { path, source },
        error => incomplete(&error, origin),
    })
}

async fn from_kubeconfig(
    kubeconfig: Kubeconfig,
    context: Option<String>,
    origin: &Origin,
) -> Result<Config, AccessError> {
    let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| incomplete(&error, origin))
}

fn incomplete(error: &KubeconfigError, origin: &Origin) -> AccessError {
    let remedy = match error {
        KubeconfigError::Parse(error) => {
            let location = error.location();
            return AccessError::Unparsable {
                origin: origin.clone(),
                line: location.map(|location| location.line()),
                column: location.map(|location| location.column()),
                reason: "it is not YAML, or holds something else than a kubeconfig does".to_owned(),
            };
        }
        KubeconfigError::CurrentContextNotSet => "set `current-context` in it",
        KubeconfigError::LoadContext(_) => "name one of its contexts in `current-context`",
        KubeconfigError::LoadClusterOfContext(_) => "let the context name one of its clusters",
        KubeconfigError::MissingClusterUrl => "give the cluster a `server`",
        KubeconfigError::ParseClusterUrl(_) => "give the cluster's `server` as a URL, such as https://10.0.0.1:6443",
        KubeconfigError::LoadCertificateAuthority(_) | KubeconfigError::ParseCertificates(_) => {
            "check the cluster's `certificate-authority` or `certificate-authority-data`"
        }
        KubeconfigError::LoadClientCertificate(_) => "check the user's `client-certificate` or its data",
        KubeconfigError::LoadClientKey(_) => "check the user's `client-key` or its data",
        _ => "check it with kubectl",
    };
    AccessError::Incomplete { origin: origin.clone(), reason: error.to_string(), remedy: remedy.to_owned() }
}

/// The API server without user information.
fn server(config: &Config) -> String {
    let url = &config.cluster_url;
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}", url.scheme_str().unwrap_or("https"), url.host().unwrap_or_default())
}

#[cfg(test)]
mod tests;
