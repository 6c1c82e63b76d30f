//! The flags about Vault.

use clap::Args;
use std::{path::PathBuf, str::FromStr};

/// Where Vault is, what of it is ours, and how to log in.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct VaultFlags {
    /// The address of Vault or OpenBao, as `https://vault.example.com:8200`
    #[arg(long = "vault-address", value_name = "URL")]
    pub(crate) address: Option<String>,
    /// Where the KV secrets engine is mounted, of version 1 or 2
    #[arg(long = "vault-mount", value_name = "PATH")]
    pub(crate) mount: Option<String>,
    /// The path within the mount below which all secrets are
    #[arg(long = "vault-prefix", value_name = "PATH")]
    pub(crate) prefix: Option<String>,
    /// The namespace
    #[arg(long = "vault-namespace", value_name = "PATH")]
    pub(crate) namespace: Option<String>,
    /// How to log in: token, kubernetes, approle or jwt
    #[arg(long = "vault-auth", value_name = "METHOD")]
    pub(crate) auth: Option<VaultAuthChoice>,
    /// Where that method is mounted
    #[arg(long = "vault-auth-mount", value_name = "PATH")]
    pub(crate) auth_mount: Option<String>,
    /// The role to log in as; for approle the role id
    #[arg(long = "vault-role", value_name = "ROLE")]
    pub(crate) role: Option<String>,
    /// The file of the token, the secret id or the JWT
    #[arg(long = "vault-credential-file", value_name = "FILE")]
    pub(crate) credential_file: Option<PathBuf>,
    /// A file of PEM certificates to trust beside those of the system
    #[arg(long = "vault-ca-file", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

impl VaultFlags {
    /// These, and where one is not set that of `other`.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            address: self.address.or(other.address),
            mount: self.mount.or(other.mount),
            prefix: self.prefix.or(other.prefix),
            namespace: self.namespace.or(other.namespace),
            auth: self.auth.or(other.auth),
            auth_mount: self.auth_mount.or(other.auth_mount),
            role: self.role.or(other.role),
            credential_file: self.credential_file.or(other.credential_file),
            ca_file: self.ca_file.or(other.ca_file),
        }
    }
}

/// How to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VaultAuthChoice {
    /// With a token that somebody made.
    Token,
    /// As the service account of a pod.
    Kubernetes,
    /// With a role id and a secret id.
    AppRole,
    /// With a token of an identity provider.
    Jwt,
}

impl VaultAuthChoice {
    /// Where the method is usually mounted.
    pub(crate) const fn mount(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Kubernetes => "kubernetes",
            Self::AppRole => "approle",
            Self::Jwt => "jwt",
        }
    }
}

impl FromStr for VaultAuthChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "token" => Ok(Self::Token),
            "kubernetes" => Ok(Self::Kubernetes),
            "approle" => Ok(Self::AppRole),
            "jwt" => Ok(Self::Jwt),
            _ => Err("use `token`, `kubernetes`, `approle` or `jwt`".to_owned()),
        }
    }
}
