//! Secret values, references to them, the key ring that encrypts them, taking them out of texts, and the `SecretStore` trait.

mod copy;
mod external;
mod keyring;
mod redact;
mod store;
mod value;

pub use copy::{Copied, copy_secrets};
pub use external::ExternalRef;
pub use keyring::{Derived, KeyId, KeyRing, KeyRingError, Purpose, Sealed};
pub use redact::redact;
pub use store::{Accepts, Expect, MAX_BUNDLE, SecretStore, SecretVersion, StoredBundle};
pub use value::{SecretBundle, SecretRef, SecretValue, wiped_json};
