//! Secrets in Vault or OpenBao, over vaultrs: a store that reads and writes, and one that reads what people put there.

#[cfg(feature = "vault-aws")]
mod aws;
mod cache;
mod config;
mod kv;
mod login;
mod read_only;
mod session;
mod store;
mod trouble;
mod wire;

#[cfg(feature = "vault-aws")]
pub use aws::{AwsCredentialSource, AwsCredentials};
pub use config::{KvVersion, VaultAuth, VaultConfig};
pub use read_only::VaultReadOnly;
pub use store::VaultStore;
