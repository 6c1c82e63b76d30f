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
    /// How to log in: token, kubernetes, approle, jwt or aws
    #[arg(long = "vault-auth", value_name = "METHOD")]
    pub(crate) auth: Option<VaultAuthChoice>,
    /// Where that method is mounted
    #[arg(long = "vault-auth-mount", value_name = "PATH")]
    pub(crate) auth_mount: Option<String>,
    /// The role to log in as; for approle the role id
    #[arg(long = "vault-role", value_name = "ROLE")]
    pub(crate) role: Option<String>,
    /// The file of the token, the secret id or the JWT; for aws of credentials as the tools of AWS share them
    #[arg(long = "vault-credential-file", value_name = "FILE")]
    pub(crate) credential_file: Option<PathBuf>,
    /// For aws: the region whose Security Token Service is asked, as in the `sts_endpoint` of the method
    #[arg(long = "vault-aws-region", value_name = "REGION")]
    pub(crate) aws_region: Option<String>,
    /// For aws: what the method wants in `X-Vault-AWS-IAM-Server-ID`
    #[arg(long = "vault-aws-server-id", value_name = "ID")]
    pub(crate) aws_server_id: Option<String>,
    /// A file of PEM certificates to trust beside those of the system
    #[arg(long = "vault-ca-file", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// The transit key of Vault that wraps the keys of the key file, which are unwrapped at the start
    #[arg(long = "key-transit", value_name = "NAME")]
    pub(crate) key_transit: Option<String>,
    /// Where the transit secrets engine is mounted
    #[arg(long = "key-transit-mount", value_name = "PATH")]
    pub(crate) key_transit_mount: Option<String>,
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
            aws_region: self.aws_region.or(other.aws_region),
            aws_server_id: self.aws_server_id.or(other.aws_server_id),
            ca_file: self.ca_file.or(other.ca_file),
            key_transit: self.key_transit.or(other.key_transit),
            key_transit_mount: self.key_transit_mount.or(other.key_transit_mount),
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
    /// As an identity of AWS.
    Aws,
}

impl VaultAuthChoice {
    /// Where the method is usually mounted.
    pub(crate) const fn mount(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Kubernetes => "kubernetes",
            Self::AppRole => "approle",
            Self::Jwt => "jwt",
            Self::Aws => "aws",
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
            "aws" => Ok(Self::Aws),
            _ => Err("use `token`, `kubernetes`, `approle`, `jwt` or `aws`".to_owned()),
        }
    }
}
