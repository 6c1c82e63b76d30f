//! The KV secrets engine: reading, writing, removing and listing paths below our prefix, for both of its versions.

use super::{
    config::{KvVersion, VaultConfig},
    session::Session,
    trouble::{BACKEND, Trouble},
    wire::{Call, Verb},
};
use archestra_core::{
    Error, Result,
    secret::{SecretBundle, SecretRef, SecretValue},
};
use futures::{StreamExt as _, stream::FuturesUnordered};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio_util::task::AbortOnDropHandle;
use zeroize::Zeroizing;

/// In what KV version 1 stores, the number of the write, which it does not count itself.
pub(super) const WRITE_NUMBER: &str = "archestra.dev/version";
/// Lists that are asked for at once.
const LISTS_AT_ONCE: usize = 8;
/// The most paths that one list may hold.
const MOST_LISTED: usize = 200_000;
/// No folder of ours is longer: a prefix and a reference.
const LONGEST: usize = 1024;
/// What errors say was tried.
const LISTING: &str = "listing secrets below";

/// One value at a path.
#[derive(Clone)]
pub(super) enum Field {
    Text(SecretValue),
    Number(u64),
    Other,
}

/// The write that something at a path came of. A version alone does not tell: they begin at 1 again where a path was removed with
/// all of them, and go back with a snapshot that is restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    version: u64,
    /// When, as Vault says it.
    at: String,
}

/// What is at a path.
#[derive(Clone)]
pub(super) struct Found {
    pub(super) fields: BTreeMap<String, Field>,
    /// Where Vault counts writes.
    pub(super) written: Option<Written>,
}

impl Found {
    /// How many bytes it is about.
    pub(super) fn bytes(&self) -> usize {
        let field = |(key, field): (&String, &Field)| match field {
            Field::Text(value) => key.len() + value.expose().len(),
            Field::Number(_) | Field::Other => key.len(),
        };
        self.fields.iter().map(field).sum()
    }

    /// The version: that of Vault, or the number of our write, or 0 where somebody else wrote.
    pub(super) fn version(&self) -> u64 {
        match (&self.written, self.fields.get(WRITE_NUMBER)) {
            (Some(written), _) => written.version,
            (None, Some(Field::Number(number))) => *number,
            (None, _) => 0,
        }
    }
}

/// A mounted engine, below a prefix of ours.
pub(super) struct Kv {
    pub(super) session: Arc<Session>,
    pub(super) version: KvVersion,
    mount: String,
    prefix: String,
    /// Whether our login may look at versions, as far as is known.
    looks: AtomicBool,
    _renewal: AbortOnDropHandle<()>,
}

impl fmt::Debug for Kv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kv")
            .field("session", &self.session)
            .field("mount", &self.mount)
            .field("prefix", &self.prefix)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Kv {
    /// Logs in, and makes sure of the mount.
    pub(super) async fn connect(config: &VaultConfig) -> Result<Self> {
        let session = Arc::new(Session::new(config)?);
        session.within("the login to Vault", &config.address, session.ensure()).await?;
        let version = match mounted(&session, &config.mount, config.kv).await {
            Ok(version) => version,
            Err(error) => {
                session.close().await;
                return Err(error);
            }
        };
        let renewal = AbortOnDropHandle::new(tokio::spawn(Arc::clone(&session).keep()));
        let (mount, prefix) = (config.mount.clone(), config.prefix.clone());
        Ok(Self { session, version, mount, prefix, looks: AtomicBool::new(true), _renewal: renewal })
    }

    /// Ends our login.
    pub(super) async fn close(&self) {
        self.session.close().await;
    }

    /// Whether the server answers, knows us, and has the mount.
    pub(super) async fn check(&self) -> Result<()> {
        mounted(&self.session, &self.mount, Some(self.version)).await.map(drop)
    }

    /// The prefix, which may be empty.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Mount and prefix, for people.
    pub(super) fn shown_prefix(&self) -> String {
        format!("{}/{}", self.mount, self.prefix)
    }

    /// Where something of ours is within the mount.
    pub(super) fn path(&self, below: &str) -> String {
        match (self.prefix.as_str(), below) {
            ("", below) => below.to_owned(),
            (prefix, "") => prefix.to_owned(),
            (prefix, below) => format!("{prefix}/{below}"),
        }
    }

    pub(super) async fn read(&self, path: &str) -> Result<Found, Trouble> {
        #[derive(Deserialize)]
        struct Versioned {
            data: Option<BTreeMap<String, Field>>,
            metadata: Metadata,
        }
        let answer = self.session.call(&Call::new(Verb::Get, self.data(path))).await?;
        match self.version {
            KvVersion::V1 => Ok(Found { fields: answer.data()?, written: None }),
            KvVersion::V2 => {
                let Versioned { data, metadata } = answer.data()?;
                let fields = data.ok_or(Trouble::Absent)?;
                let written = Written { version: metadata.version, at: metadata.created_time };
                Ok(Found { fields, written: Some(written) })
            }
        }
    }

    /// Writes to version 2, if `cas` is the present version; `None` writes over any.
    pub(super) async fn write_versioned(
        &self,
        path: &str,
        bundle: &SecretBundle,
        cas: Option<u64>,
    ) -> Result<u64, Trouble> {
        let options = cas.map_or_else(String::new, |cas| format!("\"options\":{{\"cas\":{cas}}},"));
        let call = write(self.data(path), bundle, &["{", &options, "\"data\":"], b"", b"}");
        let metadata: Metadata = self.session.call(&call).await?.data()?;
        Ok(metadata.version)
    }

    /// Writes to version 1, with the number of the write.
    pub(super) async fn write_numbered(&self, path: &str, bundle: &SecretBundle, number: u64) -> Result<(), Trouble> {
        let separator: &[u8] = if bundle.is_empty() { b"" } else { b"," };
        let call = write(self.data(path), bundle, &[&format!("{{\"{WRITE_NUMBER}\":{number}")], separator, b"");
        self.session.call(&call).await.map(drop)
    }

    /// The newest version at a path, which may be a deleted one; 0 where there never was one.
    pub(super) async fn present(&self, path: &str) -> Result<u64, Trouble> {
        #[derive(Deserialize)]
        struct Current {
            current_version: u64,
        }
        match self.session.call(&Call::new(Verb::Get, self.metadata(path))).await {
            Ok(answer) => answer.data::<Current>().map(|current| current.current_version),
            Err(Trouble::Absent) => Ok(0),
            Err(trouble) => Err(trouble),
        }
    }

    /// Whether what was written then, and read before, is still what is at a path. Nobody can tell who may not ask, or on version
    /// 1.
    pub(super) async fn is_current(&self, path: &str, written: Option<&Written>) -> Result<bool, Trouble> {
        #[derive(Deserialize)]
        struct Version {
            #[serde(default)]
            created_time: String,
            deletion_time: String,
            destroyed: bool,
        }
        #[derive(Deserialize)]
        struct Versions {
            current_version: u64,
            versions: BTreeMap<String, Version>,
        }
        let Some(written) = written.filter(|written| !written.at.is_empty() && self.looks.load(Ordering::Relaxed))
        else {
            return Ok(false);
        };
        let Versions { current_version, versions } =
            match self.session.call(&Call::new(Verb::Get, self.metadata(path))).await {
                Ok(answer) => answer.data()?,
                // Each refusal costs a login, in case that is what it is about.
                Err(Trouble::Forbidden(_)) => {
                    self.looks.store(false, Ordering::Relaxed);
                    return Ok(false);
                }
                Err(Trouble::Absent) => return Ok(false),
                Err(trouble) => return Err(trouble),
            };
        let same = |version: &Version| {
            version.created_time == written.at && version.deletion_time.is_empty() && !version.destroyed
        };
        Ok(current_version == written.version && versions.get(&written.version.to_string()).is_some_and(same))
    }

    /// Removes a path with all its versions.
    pub(super) async fn remove(&self, path: &str) -> Result<(), Trouble> {
        match self.session.call(&Call::new(Verb::Delete, self.metadata(path))).await {
            Ok(_) | Err(Trouble::Absent) => Ok(()),
            Err(trouble) => Err(trouble),
        }
    }

    /// All paths below a folder that references of ours may lead to, in no order. Each folder has the time of one operation:
    /// there may be many, and it can be told that it goes on.
    pub(super) async fn walk(&self, folder: &str) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let mut folders = vec![folder.to_owned()];
        let mut asked = FuturesUnordered::new();
        loop {
            while asked.len() < LISTS_AT_ONCE
                && let Some(folder) = folders.pop()
            {
                asked.push(async move { (self.keys(&folder).await, folder) });
            }
            let Some((keys, folder)) = asked.next().await else { return Ok(found) };
            for key in keys? {
                let name = key.strip_suffix('/');
                // What somebody else named otherwise is not ours, and would be something else in a URL.
                if name.unwrap_or(&key).parse::<SecretRef>().is_err() || folder.len() > LONGEST {
                    continue;
                }
                let below = |name: &str| if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
                match name {
                    Some(name) => folders.push(below(name)),
                    None => found.push(below(&key)),
                }
            }
            if found.len() + folders.len() > MOST_LISTED {
                return Err(Trouble::TooMany(MOST_LISTED).into_error(LISTING, &folder));
            }
        }
    }

    /// What is directly in a folder; what ends in `/` is a folder itself.
    pub(super) async fn keys(&self, folder: &str) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Keys {
            keys: Vec<String>,
        }
        let call = Call::new(Verb::List, self.metadata(folder));
        let asked = async {
            match self.session.call(&call).await {
                Ok(answer) => answer.data::<Keys>().map(|data| data.keys),
                Err(Trouble::Absent) => Ok(Vec::new()),
                Err(trouble) => Err(trouble),
            }
        };
        self.session.within(LISTING, folder, asked).await
    }

    fn data(&self, path: &str) -> String {
        match self.version {
            KvVersion::V1 => format!("{}/{path}", self.mount),
            KvVersion::V2 => format!("{}/data/{path}", self.mount),
        }
    }

    fn metadata(&self, path: &str) -> String {
        match self.version {
            KvVersion::V1 => format!("{}/{path}", self.mount),
            KvVersion::V2 => format!("{}/metadata/{path}", self.mount),
        }
    }
}

#[derive(Deserialize)]
struct Metadata {
    version: u64,
    #[serde(default)]
    created_time: String,
}

/// Asks what is mounted, and of which version it is.
async fn mounted(session: &Session, mount: &str, expected: Option<KvVersion>) -> Result<KvVersion> {
    #[derive(Deserialize)]
    struct Mounted {
        r#type: String,
        path: String,
        options: Option<BTreeMap<String, Option<String>>>,
    }
    let call = Call::new(Verb::Get, format!("sys/internal/ui/mounts/{mount}"));
    let asked = async { session.call(&call).await?.data::<Mounted>() };
    let found = match session.within("looking for the mount", mount, asked).await {
        Err(Error::PermissionDenied { .. }) => {
            return Err(Error::PermissionDenied {
                backend: BACKEND,
                reason: format!(
                    "nothing is mounted at {mount}, or the policy of our login grants nothing there: mount a KV secrets engine and grant the paths below our prefix"
                ),
            });
        }
        done => done?,
    };
    let invalid = |reason: String, remedy: &str| Err(Error::invalid("mount", reason, remedy));
    if !matches!(found.r#type.as_str(), "kv" | "generic") {
        return invalid(
            format!("a secrets engine of type {} is mounted at {mount}", found.r#type),
            "name one of type kv",
        );
    }
    if found.path.trim_matches('/') != mount {
        return invalid(
            format!("{mount} is within the mount {}", found.path.trim_matches('/')),
            "name the mount alone; what follows belongs to the prefix",
        );
    }
    let version = match found.options.as_ref().and_then(|options| options.get("version")) {
        Some(Some(version)) if version == "2" => KvVersion::V2,
        _ => KvVersion::V1,
    };
    match expected {
        Some(expected) if expected != version => invalid(
            format!("{mount} is {version:?} of the KV secrets engine, and {expected:?} was expected"),
            "set the version that it is",
        ),
        _ => Ok(version),
    }
}

/// A write whose body is `before`, the bundle without its first brace where `separator` stands for it, and `after`.
fn write(path: String, bundle: &SecretBundle, before: &[&str], separator: &[u8], after: &[u8]) -> Call {
    let plain = bundle.to_plaintext();
    let numbered = before.len() == 1;
    let length = before.iter().map(|part| part.len()).sum::<usize>() + separator.len() + plain.len() + after.len();
    // Of one length from the start: what grows leaves copies behind.
    let mut body = Zeroizing::new(Vec::with_capacity(length));
    for part in before {
        body.extend_from_slice(part.as_bytes());
    }
    body.extend_from_slice(separator);
    body.extend_from_slice(if numbered { &plain[1..] } else { &plain });
    body.extend_from_slice(after);
    Call::new(Verb::Post, path).with(body, bundle.iter().map(|(_, value)| value.clone()))
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Field, E> {
        Ok(Field::Text(SecretValue::new(text)))
    }

    fn visit_string<E>(self, text: String) -> Result<Field, E> {
        Ok(Field::Text(SecretValue::new(text)))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Field, E> {
        Ok(Field::Number(number))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_unit<E>(self) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Field, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Other)
    }
}
