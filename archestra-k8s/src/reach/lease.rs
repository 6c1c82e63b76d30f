//! The Lease that says which replica of the platform is attached to a workload's process.

use super::{Shared, link::Link, lock};
use crate::{
    error::{within, within_opt},
    names,
};
use archestra_core::{Error, Result};
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api,
    api::{DeleteParams, PostParams, Preconditions},
};
use std::{sync::Mutex, time::Duration};
use tokio::time::{Instant, sleep};

/// How long a Lease is good without being renewed.
const DURATION: Duration = Duration::from_secs(15);
const DURATION_SECONDS: i32 = 15;
/// How often it is renewed, and how soon again after a failure.
const RENEWAL: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(2);
/// By how much the clocks of two replicas may differ.
const SKEW: Duration = Duration::from_secs(15);

/// Why there is no Lease.
#[derive(Debug)]
pub(super) enum NoLease {
    /// Another replica has it.
    Held(Holder),
    /// Another replica was quicker; which one is not known yet.
    Lost,
    Failed(Error),
}

/// Who has a Lease.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) identity: String,
    /// Where it listens for other replicas.
    pub(super) peer: Option<String>,
}

/// What was seen of another replica's Lease: its last renewal, and when that was first seen.
#[derive(Debug, Default)]
pub(super) struct Sighting(Mutex<Option<(MicroTime, Instant)>>);

impl Sighting {
    /// Whether this renewal has been the last one for as long as a Lease is good, by our own clock.
    fn is_stale(&self, renewed: &MicroTime) -> bool {
        let mut seen = lock(&self.0);
        match &*seen {
            Some((before, since)) if before == renewed => since.elapsed() > DURATION,
            _ => {
                *seen = Some((renewed.clone(), Instant::now()));
                false
            }
        }
    }
}

/// A Lease that is ours.
pub(super) struct Held<'a> {
    shared: &'a Shared,
    api: Api<Lease>,
    name: String,
    lease: Lease,
    renewed: Instant,
}

/// Takes the Lease of a workload, if nobody has it.
pub(super) async fn take<'a>(shared: &'a Shared, link: &Link, seen: &Sighting) -> Result<Held<'a>, NoLease> {
    let api: Api<Lease> = Api::namespaced(shared.client.clone(), &link.namespace);
    let name = format!("{}-attach", link.id);
    let limit = shared.config.call_timeout;
    let began = Instant::now();
    let found = within_opt(limit, "reading a Lease", api.get(&name)).await.map_err(NoLease::Failed)?;
    let us = identity(shared);
    let labels = names::labels(&link.id, None, shared.config.instance.as_deref());
    let outcome = match found {
        None => {
            let metadata = ObjectMeta { name: Some(name.clone()), labels: Some(labels), ..ObjectMeta::default() };
            let mut lease = Lease { metadata, spec: Some(spec(us, None)) };
            advertise(shared, &mut lease);
            within(limit, "creating a Lease", api.create(&params(), &lease)).await
        }
        Some(mut lease) => {
            if let Some(holder) = holder(&lease).filter(|holder| *holder != us)
                && !is_over(&lease, seen)
            {
                let peer = lease.metadata.annotations.as_ref().and_then(|all| all.get(names::PEER)).cloned();
                return Err(NoLease::Held(Holder { identity: holder.to_owned(), peer }));
            }
            lease.spec = Some(spec(us, lease.spec.as_ref()));
            lease.metadata.labels.get_or_insert_default().extend(labels);
            advertise(shared, &mut lease);
            within(limit, "taking a Lease", api.replace(&name, &params(), &lease)).await
        }
    };
    match outcome {
        Ok(lease) => Ok(Held { shared, api, name, lease, renewed: began }),
        Err(Error::Conflict { .. } | Error::AlreadyExists { .. }) => Err(NoLease::Lost),
        Err(error) => Err(NoLease::Failed(error)),
    }
}

impl Held<'_> {
    /// Renews it; returns when it is lost.
    pub(super) async fn keep(&mut self) {
        let mut pause = RENEWAL;
        loop {
            sleep(pause).await;
            let began = Instant::now();
            match self.renew().await {
                Ok(()) => {
                    self.renewed = began;
                    pause = RENEWAL;
                }
                Err(Error::Conflict { .. } | Error::NotFound { .. }) => match self.look().await {
                    Ok(true) => pause = Duration::ZERO,
                    Ok(false) => return,
                    Err(error) => pause = self.troubled(&error),
                },
                Err(error) => pause = self.troubled(&error),
            }
            if self.renewed.elapsed() + RETRY > DURATION {
                return;
            }
        }
    }

    /// Gives it up, for the next one to take at once. Without that it runs out.
    pub(super) async fn release(mut self) {
        if let Some(spec) = &mut self.lease.spec {
            spec.holder_identity = None;
            spec.renew_time = Some(now());
        }
        let params = params();
        let released = self.api.replace(&self.name, &params, &self.lease);
        if let Err(error) = within(self.shared.config.call_timeout, "giving up a Lease", released).await {
            tracing::debug!(lease = self.name, %error, "a Lease was not given up; it runs out");
        }
    }

    /// Removes it with its workload: it may have been made when that was gone already.
    pub(super) async fn remove(self) {
        let ObjectMeta { uid, resource_version, .. } = self.lease.metadata;
        let params =
            DeleteParams { preconditions: Some(Preconditions { uid, resource_version }), ..DeleteParams::default() };
        let removed = self.api.delete(&self.name, &params);
        if let Err(error) = within_opt(self.shared.config.call_timeout, "removing a Lease", removed).await {
            tracing::debug!(lease = self.name, %error, "a Lease was not removed; it is collected later");
        }
    }

    async fn renew(&mut self) -> Result<()> {
        if let Some(spec) = &mut self.lease.spec {
            spec.renew_time = Some(now());
        }
        let params = params();
        let renewed = self.api.replace(&self.name, &params, &self.lease);
        self.lease = within(self.shared.config.call_timeout, "renewing a Lease", renewed).await?;
        Ok(())
    }

    /// Whether it is still ours, after somebody has changed it.
    async fn look(&mut self) -> Result<bool> {
        let found = within_opt(self.shared.config.call_timeout, "reading a Lease", self.api.get(&self.name)).await?;
        let Some(found) = found else { return Ok(false) };
        let ours = holder(&found) == Some(identity(self.shared));
        self.lease = found;
        Ok(ours)
    }

    fn troubled(&self, error: &Error) -> Duration {
        tracing::debug!(lease = self.name, %error, "a Lease could not be renewed; it is tried again");
        RETRY
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

/// Says where we listen for other replicas, and nothing of where a former holder did.
fn advertise(shared: &Shared, lease: &mut Lease) {
    let annotations = lease.metadata.annotations.get_or_insert_default();
    match &shared.config.peers {
        Some(peers) => annotations.insert(names::PEER.to_owned(), peers.advertised().to_owned()),
        None => annotations.remove(names::PEER),
    };
}

fn identity(shared: &Shared) -> &str {
    shared.config.replica.as_deref().unwrap_or("archestra")
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

fn now() -> MicroTime {
    MicroTime(Timestamp::now())
}

/// Whether its holder has not renewed it in time.
fn is_over(lease: &Lease, seen: &Sighting) -> bool {
    let Some(renewed) = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref()) else { return true };
    let age = Timestamp::now().duration_since(renewed.0);
    let age = Duration::try_from(age).unwrap_or_default();
    age > DURATION + SKEW || seen.is_stale(renewed)
}

fn spec(us: &str, before: Option<&LeaseSpec>) -> LeaseSpec {
    let transitions = before.and_then(|before| before.lease_transitions).unwrap_or_default();
    LeaseSpec {
        holder_identity: Some(us.to_owned()),
        lease_duration_seconds: Some(DURATION_SECONDS),
        acquire_time: Some(now()),
        renew_time: Some(now()),
        lease_transitions: Some(if before.is_some() { transitions.saturating_add(1) } else { transitions }),
        ..LeaseSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{DURATION, SKEW, Sighting, holder, is_over, spec};
    use jiff::{SignedDuration, Timestamp};
    use k8s_openapi::{api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::MicroTime};
    use std::time::Duration;

    fn renewed(age: Duration) -> Lease {
        let mut spec = spec("other", None);
        spec.renew_time = Some(MicroTime(Timestamp::now() - SignedDuration::try_from(age).unwrap()));
        Lease { spec: Some(spec), ..Lease::default() }
    }

    #[test]
    fn a_lease_is_over_when_nobody_renewed_it() {
        let seen = Sighting::default();
        assert!(!is_over(&renewed(Duration::ZERO), &seen));
        assert!(!is_over(&renewed(DURATION), &seen));
        assert!(is_over(&renewed(DURATION + SKEW + Duration::from_secs(1)), &seen));
        assert_eq!(holder(&renewed(DURATION)), Some("other"));
        assert_eq!(holder(&Lease::default()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_does_not_change_is_over_whatever_its_clock_says() {
        let (seen, lease) = (Sighting::default(), renewed(Duration::ZERO));
        assert!(!is_over(&lease, &seen));
        tokio::time::advance(DURATION / 2).await;
        assert!(!is_over(&lease, &seen));
        tokio::time::advance(DURATION).await;
        assert!(is_over(&lease, &seen));
        assert!(!is_over(&renewed(Duration::from_millis(5)), &seen), "it was renewed");
    }
}
