//! Where Vault is, what of it is ours, and how we log in.

use archestra_core::{Error, Finding, Result, secret::SecretValue};
use std::{path::PathBuf, time::Duration};
use url::Url;

/// Which version of the KV secrets engine a mount is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvVersion {
    /// One value for each path, no versions, no compare-and-set.
    V1,
    /// Versions and compare-and-set.
    V2,
}

/// How to log in.
///
/// A login that we make is revoked once a newer one has taken its place, and when the store is closed; a token that somebody gives
/// us never is. Where Vault keeps refusing something, logins that are made because of it become rare.
///
/// What is in a file is read again at each login, since whoever put it there replaces it before it expires.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum VaultAuth {
    /// A token that somebody made. It is renewed while that is allowed; when it is gone, so are we.
    Token(SecretValue),
    /// A token in a file that somebody keeps fresh, as a Vault agent does.
    TokenFile(PathBuf),
    /// The service account of a Kubernetes pod.
    Kubernetes {
        /// Where the method is mounted, usually `kubernetes`.
        mount: String,
        /// The role to log in as.
        role: String,
        /// The file of the service account's token, usually [`SERVICE_ACCOUNT_TOKEN`](Self::SERVICE_ACCOUNT_TOKEN).
        jwt_file: PathBuf,
    },
    /// A role id and a secret id.
    AppRole {
        /// Where the method is mounted, usually `approle`.
        mount: String,
        /// The role id.
        role_id: String,
        /// The secret id.
        secret_id: SecretValue,
    },
    /// A signed token of an identity provider that Vault trusts.
    Jwt {
        /// Where the method is mounted, usually `jwt`.
        mount: String,
        /// The role to log in as.
        role: String,
        /// The file of the token.
        jwt_file: PathBuf,
    },
    /// An identity of AWS, by a signed question to its Security Token Service.
    #[cfg(feature = "vault-aws")]
    Aws {
        /// Where the method is mounted, usually `aws`.
        mount: String,
        /// The role to log in as.
        role: String,
        /// The region whose endpoint is asked, as in the `sts_endpoint` of the method; the global endpoint unless set, as the
        /// method has it when nobody changed that.
        region: Option<String>,
        /// What the method wants in `X-Vault-AWS-IAM-Server-ID`, if it does.
        server_id: Option<String>,
        /// Where the credentials come from.
        credentials: std::sync::Arc<dyn super::AwsCredentialSource>,
    },
}

impl VaultAuth {
    /// Where Kubernetes puts the token of a pod's service account.
    pub const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Token(_) => "token",
            Self::TokenFile(_) => "token file",
            Self::Kubernetes { .. } => "kubernetes",
            Self::AppRole { .. } => "approle",
            Self::Jwt { .. } => "jwt",
            #[cfg(feature = "vault-aws")]
            Self::Aws { .. } => "aws",
        }
    }
}

/// The settings of a connection to Vault or OpenBao.
///
/// Nothing is taken from the environment but the proxy variables, which the HTTP client below honours. No redirect is followed,
/// since the token would go along wherever it leads: a standby node that redirects to the active one, instead of asking it for
/// us, is an error, and so is a proxy that wants another address.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VaultConfig {
    /// The address: `https://vault.example.com:8200`.
    pub address: String,
    /// How to log in.
    pub auth: VaultAuth,
    /// Where the KV secrets engine is mounted; `secret` unless set.
    pub mount: String,
    /// Below which path everything of ours is; `archestra` unless set.
    pub prefix: String,
    /// The namespace, where the server has them.
    pub namespace: Option<String>,
    /// The version of the engine; asked of the mount unless set.
    pub kv: Option<KvVersion>,
    /// A file of PEM certificates to trust beside those of the system.
    pub ca_file: Option<PathBuf>,
    /// How long one request may take; 5 s unless set.
    pub request_timeout: Duration,
    /// How long an operation may take with its retries; 15 s unless set. Of a list it is the time of each folder.
    pub deadline: Duration,
    /// How often a request that cannot have had an effect is sent again; twice unless set.
    pub retries: u32,
    /// For how long a value that was read may be used without asking again. Until it has passed, what somebody else wrote or
    /// removed is not seen. Zero, which it is unless set, asks each time.
    pub cache_for: Duration,
    /// How many bundles are kept at most; 1,000 unless set. Together they have 16 MiB at most.
    pub cache_entries: usize,
}

impl VaultConfig {
    /// The settings for a server, everything else as it usually is.
    #[must_use]
    pub fn new(address: impl Into<String>, auth: VaultAuth) -> Self {
        Self {
            address: address.into(),
            auth,
            mount: "secret".to_owned(),
            prefix: "archestra".to_owned(),
            namespace: None,
            kv: None,
            ca_file: None,
            request_timeout: Duration::from_secs(5),
            deadline: Duration::from_secs(15),
            retries: 2,
            cache_for: Duration::ZERO,
            cache_entries: 1_000,
        }
    }

    /// Refuses what cannot work, whatever the server says.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every field that must change.
    pub fn validate(&self) -> Result<()> {
        let mut findings = Vec::new();
        if let Err(reason) = address(&self.address) {
            findings.push(Finding::new("address", reason, "use as in `https://vault.example.com:8200`"));
        }
        for (field, path) in [("mount", Some(&self.mount)), ("namespace", self.namespace.as_ref())] {
            if path.is_some_and(|path| !is_path(path)) {
                findings.push(Finding::new(field, "it is not a path", PATH_REMEDY));
            }
        }
        if !self.prefix.is_empty() && !is_path(&self.prefix) {
            findings.push(Finding::new("prefix", "it is not a path", PATH_REMEDY));
        }
        match &self.auth {
            VaultAuth::Token(token) => findings.extend(token_finding(token)),
            VaultAuth::TokenFile(_) => {}
            VaultAuth::Kubernetes { mount, role, .. } | VaultAuth::Jwt { mount, role, .. } => {
                findings.extend(login_findings(mount, "auth.role", role));
            }
            #[cfg(feature = "vault-aws")]
            VaultAuth::Aws { mount, role, region, .. } => {
                findings.extend(login_findings(mount, "auth.role", role));
                if region.as_ref().is_some_and(|region| !is_path(region) || region.contains(['/', '.', '_'])) {
                    findings.push(Finding::new("auth.region", "it is no region", "use as in `eu-west-1`"));
                }
            }
            VaultAuth::AppRole { mount, role_id, secret_id } => {
                findings.extend(login_findings(mount, "auth.roleId", role_id));
                if secret_id.is_blank() {
                    findings.push(Finding::new("auth.secretId", "it is empty", "give the secret id of the role"));
                }
            }
        }
        if self.request_timeout.is_zero() || self.deadline < self.request_timeout {
            findings.push(Finding::new(
                "deadline",
                "an operation could not finish one request",
                "set requestTimeout above zero and deadline at least as long",
            ));
        }
        if findings.is_empty() { Ok(()) } else { Err(Error::Invalid(findings)) }
    }
}

const PATH_REMEDY: &str = "use segments of letters, digits, '.', '_' and '-' joined by '/', without one at either end";

/// Whether this is segments of harmless letters joined by `/`.
pub(super) fn is_path(text: &str) -> bool {
    let segment = |segment: &str| {
        !segment.is_empty()
            && segment != "."
            && segment != ".."
            && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    text.len() <= 256 && text.split('/').all(segment)
}

/// What is wrong with a token, which goes into a header.
pub(super) fn token_finding(token: &SecretValue) -> Option<Finding> {
    let text = token.expose();
    if text.is_empty() {
        return Some(Finding::new("auth.token", "it is empty", "give a token"));
    }
    let fits = text.len() <= 8192 && text.bytes().all(|b| b.is_ascii_graphic());
    (!fits).then(|| {
        Finding::new(
            "auth.token",
            "it holds blanks, line breaks or other signs that no token has",
            "give the token alone",
        )
    })
}

fn login_findings(mount: &str, field: &str, name: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !is_path(mount) {
        findings.push(Finding::new("auth.mount", "it is not a path", PATH_REMEDY));
    }
    if name.trim().is_empty() {
        findings.push(Finding::new(field, "it is empty", "name the role that was made for this server"));
    }
    findings
}

/// The parsed address.
pub(super) fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    match &url {
        url if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() => {
            Err("it is no http or https URL".to_owned())
        }
        url if !url.username().is_empty() || url.password().is_some() => Err("it holds credentials".to_owned()),
        url if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() => {
            Err("it has a path, parameters or a fragment; the mount is a setting of its own".to_owned())
        }
        _ => Ok(url),
    }
}
