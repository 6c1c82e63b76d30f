//! Secret values, references to them, the key ring that encrypts them, and the `SecretStore` trait.

mod copy;
mod external;
mod keyring;
mod store;
mod value;

pub use copy::{Copied, copy_secrets};
pub use external::ExternalRef;
pub use keyring::{Derived, KeyId, KeyRing, KeyRingError, Purpose, Sealed};
pub use store::{Accepts, Expect, SecretStore, SecretVersion, StoredBundle};
pub use value::{SecretBundle, SecretRef, SecretValue};
