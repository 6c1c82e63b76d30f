//! The headers that an installation's requests carry: its credential and the entry's additional headers.
//!
//! They are read from the secret store when cold and never replaced by anything when they cannot be read. What was read holds
//! for a time and is read again in the background while it is used. The platform itself never changes a value in its place,
//! but people with access to the store may, and so may a store of an embedder's: that is noticed within a minute. What the store
//! only refers to is changed in its place as a rule, and holds for a few seconds.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use archestra_core::Error as CoreError;
use archestra_core::catalog::{CredentialModel, FixedValue, StaticField};
use archestra_core::credential::CredentialPlan;
use archestra_core::id::InstallationId;
use archestra_core::secret::{Accepts, SecretBundle, SecretRef, SecretStore, SecretValue};
use aws_lc_rs::digest;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};
use moka::sync::Cache;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::clock::Clock;
use super::error::{CredentialFault, UpstreamError};
use super::flight::Flights;
use super::target::Target;
use super::tasks::Tasks;

/// How long the secret store may take.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// How old headers may be that were made from what the store keeps itself.
const STORED_TTL: Duration = Duration::from_secs(60);

/// The headers of one installation's requests. Values are marked sensitive, so that nothing prints them.
pub(super) struct CredentialHeaders {
    map: HeaderMap,
    fingerprint: OnceLock<Fingerprint>,
}

/// Tells credentials apart without being one.
pub(super) type Fingerprint = [u8; 32];

impl CredentialHeaders {
    fn new(map: HeaderMap) -> Self {
        Self { map, fingerprint: OnceLock::new() }
    }

    pub(super) const fn map(&self) -> &HeaderMap {
        &self.map
    }

    pub(super) fn fingerprint(&self) -> &Fingerprint {
        self.fingerprint.get_or_init(|| {
            let mut context = digest::Context::new(&digest::SHA256);
            let mut feed = |bytes: &[u8]| {
                context.update(&(bytes.len() as u64).to_le_bytes());
                context.update(bytes);
            };
            for (name, value) in &self.map {
                feed(name.as_str().as_bytes());
                feed(value.as_bytes());
            }
            let mut fingerprint = [0; 32];
            fingerprint.copy_from_slice(context.finish().as_ref());
            fingerprint
        })
    }
}

impl fmt::Debug for CredentialHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.map.keys()).finish()
    }
}

/// What a cached value is good for: these versions of the installation and of its entry, and these secrets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Tag {
    installation: i64,
    entry: i64,
    secrets: Option<SecretsOf>,
}

/// Where the secrets of the installation and of the entry are.
type SecretsOf = (Option<SecretRef>, Option<SecretRef>);

impl Tag {
    fn fits(&self, target: &Target, secrets: Option<(&Option<SecretRef>, &Option<SecretRef>)>) -> bool {
        self.installation == target.installation().updated_at.timestamp_micros()
            && self.entry == target.entry().updated_at.timestamp_micros()
            && self.secrets.as_ref().map(|(installation, entry)| (installation, entry)) == secrets
    }
}

/// The tag is shared, because the cache clones what it returns.
#[derive(Debug, Clone)]
struct Cached {
    tag: Arc<Tag>,
    headers: Arc<CredentialHeaders>,
    /// When the store was asked.
    read: u64,
    /// When the store is to be asked again.
    again: Arc<AtomicU64>,
}

/// Makes and keeps the headers of installations.
pub(super) struct Credentials {
    secrets: Arc<dyn SecretStore>,
    cache: Cache<InstallationId, Cached>,
    /// How long what was read is good for, in milliseconds.
    keep: u64,
    clock: Clock,
    flights: Flights<(InstallationId, Tag), Arc<CredentialHeaders>>,
}

impl Credentials {
    /// `keep` is for what the store only refers to; at most so many installations are remembered.
    pub(super) fn new(secrets: Arc<dyn SecretStore>, keep: Duration, most: u64, tasks: Tasks, clock: Clock) -> Self {
        let keep = match secrets.accepts() {
            Accepts::Values => STORED_TTL,
            _ => keep,
        };
        let cache = Cache::builder().max_capacity(most).time_to_live(keep).build();
        let keep = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
        Self { secrets, cache, keep, clock, flights: Flights::new(tasks) }
    }

    /// The headers for a call under `plan`.
    ///
    /// # Errors
    /// A value is missing or unsendable, the store does not answer, or the plan is not one of ours.
    pub(super) async fn headers(
        &self,
        target: &Arc<Target>,
        plan: &CredentialPlan,
    ) -> Result<Arc<CredentialHeaders>, UpstreamError> {
        let fault = |fault| UpstreamError::credential(target.server(), fault);
        let secrets = match plan {
            CredentialPlan::None | CredentialPlan::Deployment => None,
            CredentialPlan::Static { installation, entry } => Some((installation, entry)),
            CredentialPlan::Headers { headers, expires_at } => {
                return given(target, headers, *expires_at).map(Arc::new).map_err(fault);
            }
            CredentialPlan::OAuth { .. } => return Err(fault(CredentialFault::NotAvailable { kind: "OAuth" })),
            CredentialPlan::ClientCredentials { .. } => {
                return Err(fault(CredentialFault::NotAvailable { kind: "OAuth client" }));
            }
            CredentialPlan::Exchange { .. } => return Err(fault(CredentialFault::NotAvailable { kind: "exchanged" })),
            CredentialPlan::Passthrough => return Err(fault(CredentialFault::NotAvailable { kind: "passed-through" })),
            _ => return Err(fault(CredentialFault::NotAvailable { kind: "such" })),
        };
        let id = target.installation().id;
        if let Some(cached) = self.cache.get(&id).filter(|cached| cached.tag.fits(target, secrets))
            && let Some(headers) = self.still_good(target, cached)
        {
            return Ok(headers);
        }
        let tag = Tag {
            installation: target.installation().updated_at.timestamp_micros(),
            entry: target.entry().updated_at.timestamp_micros(),
            secrets: secrets.map(|(installation, entry)| (installation.clone(), entry.clone())),
        };
        let (headers, _) = Box::pin(self.flights.join((id, tag.clone()), || self.load(target, tag))).await;
        headers
    }

    /// The headers, unless they were read too long ago. Whoever finds them half as old has them read again and does not wait.
    fn still_good(&self, target: &Arc<Target>, cached: Cached) -> Option<Arc<CredentialHeaders>> {
        // What needed no secret cannot change without a new version.
        if cached.tag.secrets.is_none() {
            return Some(cached.headers);
        }
        let (keep, now) = (self.keep, self.clock.now());
        if now.saturating_sub(cached.read) >= keep {
            return None;
        }
        let again = cached.again.load(Ordering::Relaxed);
        // A store that fails is asked again a few times in the time that is left, and not by every call.
        let next = now.saturating_add(keep / 10);
        if now >= again && cached.again.compare_exchange(again, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let tag = (*cached.tag).clone();
            drop(self.flights.begin((target.installation().id, tag.clone()), || self.load(target, tag)));
        }
        Some(cached.headers)
    }

    #[cfg(test)]
    pub(super) const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Forgets what is kept of an installation.
    pub(super) fn forget(&self, installation: InstallationId) {
        self.cache.invalidate(&installation);
    }

    fn load(
        &self,
        target: &Arc<Target>,
        tag: Tag,
    ) -> impl Future<Output = Result<Arc<CredentialHeaders>, UpstreamError>> + Send + use<> {
        let (target, store, cache) = (Arc::clone(target), Arc::clone(&self.secrets), self.cache.clone());
        let (keep, clock) = (self.keep, self.clock.clone());
        async move {
            let read = clock.now();
            let fault = |fault| UpstreamError::credential(target.server(), fault);
            let mut map = additional(&target).map_err(fault)?;
            if let Some((installation, entry)) = &tag.secrets {
                let bundles = Bundles {
                    installation: bundle(&*store, installation.as_ref()).await.map_err(fault)?,
                    entry: bundle(&*store, entry.as_ref()).await.map_err(fault)?,
                };
                add_static(&mut map, &target, &bundles).map_err(fault)?;
            }
            let headers = Arc::new(CredentialHeaders::new(map));
            let again = Arc::new(AtomicU64::new(read.saturating_add(keep / 2)));
            let tag = Arc::new(tag);
            cache.insert(target.installation().id, Cached { tag, headers: Arc::clone(&headers), read, again });
            Ok(headers)
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("cached", &self.cache.entry_count()).finish_non_exhaustive()
    }
}

struct Bundles {
    installation: SecretBundle,
    entry: SecretBundle,
}

async fn bundle(store: &dyn SecretStore, reference: Option<&SecretRef>) -> Result<SecretBundle, CredentialFault> {
    let Some(reference) = reference else { return Ok(SecretBundle::new()) };
    match timeout(STORE_TIMEOUT, store.get(reference)).await {
        Ok(Ok(stored)) => Ok(stored.bundle),
        Ok(Err(CoreError::NotFound { .. })) => {
            Err(CredentialFault::StoreUnavailable { reason: "the stored secrets are gone".to_owned() })
        }
        Ok(Err(error)) if !error.is_retryable() => Err(CredentialFault::Unreadable { reason: error.to_string() }),
        Ok(Err(error)) => Err(CredentialFault::StoreUnavailable { reason: error.to_string() }),
        Err(_) => {
            Err(CredentialFault::StoreUnavailable { reason: format!("it did not answer within {STORE_TIMEOUT:?}") })
        }
    }
}

/// The headers that a resolver made itself.
fn given(
    target: &Target,
    headers: &[(String, SecretValue)],
    expires_at: Option<SystemTime>,
) -> Result<CredentialHeaders, CredentialFault> {
    if expires_at.is_some_and(|at| at <= SystemTime::now()) {
        return Err(CredentialFault::Expired);
    }
    let mut map = additional(target)?;
    for (name, value) in headers {
        set(&mut map, name, name, value.expose())?;
    }
    Ok(CredentialHeaders::new(map))
}

fn additional(target: &Target) -> Result<HeaderMap, CredentialFault> {
    let mut map = HeaderMap::new();
    for header in &target.entry().spec.additional_headers {
        let entered = target.installation().values.get(&header.name).filter(|_| header.prompt);
        match entered.or(header.value.as_ref()) {
            Some(value) => set(&mut map, &header.name, &header.name, value)?,
            None if header.required => return Err(CredentialFault::Missing { field: header.name.clone() }),
            None => {}
        }
    }
    Ok(map)
}

fn add_static(map: &mut HeaderMap, target: &Target, bundles: &Bundles) -> Result<(), CredentialFault> {
    let CredentialModel::Static(fields) = &target.entry().spec.credential else { return Ok(()) };
    for field in fields {
        match value_of(field, target, bundles)? {
            Some(value) => {
                let prefix = field.prefix.as_deref().unwrap_or_default();
                let whole = Zeroizing::new(format!("{prefix}{value}"));
                set(map, &field.name, &field.header, &whole)?;
            }
            None if field.required => return Err(CredentialFault::Missing { field: field.name.clone() }),
            None => {}
        }
    }
    Ok(())
}

fn value_of<'v>(
    field: &'v StaticField,
    target: &'v Target,
    bundles: &'v Bundles,
) -> Result<Option<&'v str>, CredentialFault> {
    let missing = || CredentialFault::Missing { field: field.name.clone() };
    let installation = target.installation();
    if field.prompt {
        let entered = match bundles.installation.get(&field.name) {
            Some(secret) => Some(secret.expose()),
            // It was given once, so it must not silently be left out.
            None if installation.secret_fields.contains(&field.name) => return Err(missing()),
            None => installation.values.get(&field.name).map(String::as_str),
        };
        if entered.is_some() {
            return Ok(entered);
        }
    }
    match &field.value {
        Some(FixedValue::Plain(value)) => Ok(Some(value)),
        Some(FixedValue::Secret(value)) if value.external().is_none() => Ok(Some(value.expose())),
        Some(FixedValue::Secret(_)) => Err(missing()),
        Some(FixedValue::Stored) => {
            let key = format!("field.{}", field.name);
            bundles.entry.get(&key).map(|secret| Some(secret.expose())).ok_or_else(missing)
        }
        None => Ok(None),
    }
}

fn set(map: &mut HeaderMap, field: &str, header: &str, value: &str) -> Result<(), CredentialFault> {
    let unsendable = || CredentialFault::Unsendable { field: field.to_owned() };
    let name = HeaderName::try_from(header).map_err(|_| unsendable())?;
    if is_connection_header(&name) {
        return Err(unsendable());
    }
    let mut value = HeaderValue::from_str(value).map_err(|_| unsendable())?;
    value.set_sensitive(true);
    map.insert(name, value);
    Ok(())
}

/// Headers that belong to one connection, and `Host`, which belongs to the URL.
pub(super) fn is_connection_header(name: &HeaderName) -> bool {
    [CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE].contains(name)
}
