//! Secret values, references to them, the key ring that encrypts them, and the `SecretStore` trait.

mod keyring;
mod store;
mod value;

pub use keyring::{Derived, KeyId, KeyRing, KeyRingError, Purpose, Sealed};
pub use store::{Expect, SecretStore, SecretVersion, StoredBundle};
pub use value::{SecretBundle, SecretRef, SecretValue};
