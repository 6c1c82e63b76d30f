//! Vault or OpenBao, over vaultrs: a store of secrets that reads and writes, one that reads what people put there, and the key
//! that wraps those of a key ring.

#[cfg(feature = "vault-aws")]
mod aws;
mod cache;
mod client;
mod config;
mod kv;
mod login;
mod read_only;
mod session;
mod store;
mod transit;
mod trouble;
mod wire;

#[cfg(feature = "vault-aws")]
pub use aws::{AwsCredentialSource, AwsCredentials, AwsCredentialsFile};
pub use config::{KvVersion, VaultAuth, VaultConfig};
pub use read_only::VaultReadOnly;
pub use store::VaultStore;
pub use transit::VaultTransit;
