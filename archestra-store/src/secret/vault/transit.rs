//! `VaultTransit`: a key that never leaves Vault, and the key rings whose keys are wrapped by it.

use super::{
    config::{VaultConfig, is_path},
    session::Session,
    trouble::{BACKEND, Trouble},
    wire::{Call, Verb},
};
use archestra_core::{
    Error, Finding, Result,
    secret::{KeyId, KeyRing, SecretValue},
};
use serde::{Deserialize, de::DeserializeOwned};
use zeroize::Zeroizing;

/// What a wrapped key begins with, in the text form of a ring.
const WRAPPED: &str = "vault:";

/// A key of the transit secrets engine of Vault or OpenBao, which wraps the keys of a [`KeyRing`].
///
/// The text form of such a ring has lines of `<key id> vault:v1:…`, with keys as `transit/datakey/wrapped/<name>` makes them. They
/// are unwrapped when a ring is [opened](Self::open), at the start of a server; after that nobody asks Vault. Lines in clear may
/// follow below wrapped ones, so that a rotation can move a ring to Vault.
#[derive(Debug)]
pub struct VaultTransit {
    session: Session,
    mount: String,
    name: String,
}

impl VaultTransit {
    /// Logs in. Of `config` neither mount nor prefix matter; the engine is mounted at `mount`, usually `transit`, and the key is
    /// called `name`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for settings that cannot work, also where no TLS provider is installed;
    /// [`Error::PermissionDenied`] when Vault refuses the login; [`Error::Unavailable`] and [`Error::Timeout`] when it does not
    /// answer, is sealed, or is a standby.
    pub async fn connect(config: &VaultConfig, mount: &str, name: &str) -> Result<Self> {
        Self::validate(mount, name)?;
        let session = Session::new(config)?;
        session.within("the login to Vault", &config.address, session.ensure()).await?;
        Ok(Self { session, mount: mount.to_owned(), name: name.to_owned() })
    }

    /// Revokes our login, as [`VaultStore::close`](super::VaultStore::close) does.
    pub async fn close(&self) {
        self.session.close().await;
    }

    /// Refuses names that cannot be those of an engine and of a key.
    ///
    /// # Errors
    /// [`Error::Invalid`] with what must change.
    pub fn validate(mount: &str, name: &str) -> Result<()> {
        let mut findings = Vec::new();
        if !is_path(mount) {
            findings.push(Finding::new("transit.mount", "it is not a path", "use as in `transit`"));
        }
        if !is_path(name) || name.contains('/') {
            let remedy = "use letters, digits, '.', '_' and '-'";
            findings.push(Finding::new("transit.key", "it is not the name of a key", remedy));
        }
        if findings.is_empty() { Ok(()) } else { Err(Error::Invalid(findings)) }
    }

    /// The text form of a ring with one new key, which is nowhere in clear.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn new_ring(&self) -> Result<String> {
        #[derive(Deserialize)]
        struct Made {
            ciphertext: String,
        }
        let made: Made = self.ask("making a key at", "datakey/wrapped", "a new key", r#"{"bits":256}"#).await?;
        if !is_wrapped(&made.ciphertext) {
            let reason = "a new key has another form than those of Vault".to_owned();
            return Err(Error::Backend { backend: BACKEND, reason, source: None });
        }
        Ok(format!("{} {}\n", uuid::Uuid::now_v7().simple(), made.ciphertext))
    }

    /// Reads the text form of a ring, and has its keys unwrapped.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is not such a text, its newest key is in clear, or the transit key does not exist or did not
    /// wrap a key of it; [`Error::PermissionDenied`] when our login may not use the transit key; [`Error::Unavailable`] and
    /// [`Error::Timeout`] when Vault does not answer. Nothing of a key is in any of them.
    pub async fn open(&self, text: &str) -> Result<KeyRing> {
        // What is unwrapped is shorter than before, so that this never grows and leaves no copies behind.
        let mut clear = Zeroizing::new(String::with_capacity(text.len() + 1));
        let mut newest = true;
        for line in text.lines().map(str::trim) {
            match line.split_once(char::is_whitespace) {
                Some((id, key)) if !line.starts_with('#') => {
                    let key = key.trim();
                    clear.push_str(id);
                    clear.push(' ');
                    if key.starts_with(WRAPPED) {
                        clear.push_str(self.unwrap(id, key).await?.expose());
                    } else if newest {
                        return Err(self.invalid(format!("the newest key, {}, is in clear", shown(id))));
                    } else {
                        tracing::warn!(
                            key = shown(id),
                            "a key of the key file is in clear: take it out once nothing is sealed under it"
                        );
                        clear.push_str(key);
                    }
                    newest = false;
                }
                _ => clear.push_str(line),
            }
            clear.push('\n');
        }
        KeyRing::parse(&clear).map_err(|error| self.invalid(error.to_string()))
    }

    async fn unwrap(&self, id: &str, wrapped: &str) -> Result<SecretValue> {
        #[derive(Deserialize)]
        struct Unwrapped {
            plaintext: SecretValue,
        }
        if !is_wrapped(wrapped) {
            return Err(self.invalid(format!("{} is not a key that Vault wrapped", shown(id))));
        }
        let body = format!("{{\"ciphertext\":\"{wrapped}\"}}");
        let unwrapped: Unwrapped = self.ask("unwrapping at", "decrypt", &shown(id), &body).await?;
        Ok(unwrapped.plaintext)
    }

    async fn ask<T: DeserializeOwned + Send>(
        &self,
        operation: &'static str,
        action: &str,
        key: &str,
        body: &str,
    ) -> Result<T> {
        let path = format!("{}/{action}/{}", self.mount, self.name);
        let body = Zeroizing::new(body.as_bytes().to_vec());
        // A key that was made and got lost is in use nowhere.
        let call = Call::new(Verb::Post, path.clone()).with(body, []).that_only_asks();
        let asked = async { Ok(self.session.call(&call).await.and_then(|answer| answer.data::<T>())) };
        let answered = self.session.within("asking the transit engine of Vault", &path, asked).await?;
        answered.map_err(|trouble| self.told(trouble, operation, &path, key))
    }

    fn told(&self, trouble: Trouble, operation: &'static str, path: &str, key: &str) -> Error {
        let Self { mount, name, .. } = self;
        match trouble {
            Trouble::Refused { said, .. } if said.contains("key not found") => Error::invalid(
                "transit.key",
                format!("there is no key {name} in the transit engine at {mount}"),
                format!("make it with `bao write -f {mount}/keys/{name}`, or name the one that wraps the key file"),
            ),
            Trouble::Refused { status, said } => Error::invalid(
                "key file",
                format!("{path} does not take {key} ({status}: {said})"),
                "name the transit key that wrapped it, put its line back as it was made, and keep min_decryption_version of the transit key at or below the version in the line",
            ),
            Trouble::NoRoute(_) | Trouble::Absent => Error::invalid(
                "transit.mount",
                format!("no transit engine is mounted at {mount}"),
                "name where one is, or mount one with `bao secrets enable transit`",
            ),
            trouble => trouble.into_error(operation, path),
        }
    }

    fn invalid(&self, reason: String) -> Error {
        let Self { mount, name, .. } = self;
        let remedy = format!(
            "put a line `<id> <key>` on top whose key `bao write -field=ciphertext -f {mount}/datakey/wrapped/{name}` made, and keep the other lines until the log says that they are no longer needed"
        );
        Error::invalid("key file", reason, remedy)
    }
}

fn is_wrapped(key: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b':' | b'+' | b'/' | b'=' | b'-' | b'_');
    key.starts_with(WRAPPED) && key.bytes().all(fits)
}

/// A key by its id, unless what stands there is none.
fn shown(id: &str) -> String {
    id.parse::<KeyId>().map_or_else(|_| "one without an id".to_owned(), |id| format!("key {id}"))
}
