//! Secrets in the database or in Vault, and the agreement of all replicas on one key ring.

mod ring;
mod sql;
mod vault;

pub use ring::RingClaim;
pub use sql::{Resealed, SqlSecrets};
#[cfg(feature = "vault-aws")]
pub use vault::{AwsCredentialSource, AwsCredentials, AwsCredentialsFile};
pub use vault::{KvVersion, VaultAuth, VaultConfig, VaultReadOnly, VaultStore, VaultTransit};
