//! What belongs to a workload beside its Deployment, and whether all of it is there as it was applied.

use super::{
    store::{Store, Touched, Tracked},
    view,
};
use crate::{
    compat,
    manifest::intact,
    names::{self, Wiring},
};
use archestra_core::runtime::WorkloadId;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Container, PodSpec, Secret, Service},
        networking::v1::NetworkPolicy,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::core::PartialObjectMeta;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// What it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    NetworkPolicy,
    Secret,
    Service,
}

impl Kind {
    const fn label(self) -> &'static str {
        match self {
            Self::NetworkPolicy => "NetworkPolicy",
            Self::Secret => "Secret",
            Self::Service => "Service",
        }
    }
}

/// An object that was applied beside a Deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    workload: WorkloadId,
    kind: Kind,
    name: String,
    uid: String,
    version: Option<u64>,
    condition: Condition,
    /// The mark that it bears.
    mark: Option<String>,
    /// Where it is reached, if it is a Service.
    address: Option<IpAddr>,
}

/// Whether it is as it was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Intact,
    Changed,
}

impl Part {
    /// A Service of ours.
    pub(crate) fn of_service(service: &Service) -> Option<Self> {
        let address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_ref()?.parse().ok());
        let part = Self::of(Kind::Service, &service.metadata, intact::is_intact(service))?;
        Some(Self { address, ..part })
    }

    /// A NetworkPolicy of ours.
    pub(crate) fn of_network_policy(policy: &NetworkPolicy) -> Option<Self> {
        Self::of(Kind::NetworkPolicy, &policy.metadata, intact::is_intact(policy))
    }

    /// A Secret of ours, of which only the metadata is looked at.
    pub(crate) fn of_secret(meta: &ObjectMeta) -> Option<Self> {
        Self::of(Kind::Secret, meta, intact::is_intact_secret(meta))
    }

    fn of(kind: Kind, meta: &ObjectMeta, is_intact: bool) -> Option<Self> {
        Some(Self {
            workload: names::workload_of(meta)?,
            kind,
            name: view::name(meta).to_owned(),
            uid: view::uid(meta).to_owned(),
            version: meta.resource_version.as_ref().and_then(|version| version.parse().ok()),
            condition: if is_intact { Condition::Intact } else { Condition::Changed },
            mark: intact::mark_of(meta).cloned(),
            address: None,
        })
    }
}

/// All that is known of them.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// The kinds that were listed: nothing else can be said to be missing.
    listed: BTreeSet<Kind>,
    known: BTreeMap<WorkloadId, BTreeMap<(Kind, String), Part>>,
    /// What was applied while a list was under way that may not hold it.
    noted: BTreeSet<(Kind, String)>,
}

impl Parts {
    /// One that was applied a moment ago.
    pub(super) fn note(&mut self, part: Part) {
        self.noted.insert((part.kind, part.name.clone()));
        drop(self.put(part));
    }

    /// The workload was removed.
    pub(super) fn forget(&mut self, id: &WorkloadId) {
        if let Some(parts) = self.known.remove(id) {
            for key in parts.keys() {
                self.noted.remove(key);
            }
        }
    }

    /// The address of a workload's Service.
    pub(super) fn service(&self, id: &WorkloadId) -> Option<IpAddr> {
        self.known.get(id)?.get(&(Kind::Service, names::object(id)))?.address
    }

    /// The mark of a workload's NetworkPolicy, if there is one.
    pub(super) fn policy_mark(&self, id: &WorkloadId) -> Option<Option<&str>> {
        let policy = self.known.get(id)?.get(&(Kind::NetworkPolicy, names::object(id)))?;
        Some(policy.mark.as_deref())
    }

    /// What somebody else has changed or removed of a workload, in words.
    pub(super) fn drift(&self, id: &WorkloadId, deployment: &Deployment) -> Option<String> {
        let mut found = Vec::new();
        if !intact::is_intact(deployment) {
            found.push("its Deployment was changed".to_owned());
        } else if Wiring::of(&deployment.metadata).is_none() {
            found.push("its Deployment does not say any more how its server is talked to".to_owned());
        }
        let known = self.known.get(id);
        for (kind, name) in needed(id, deployment) {
            if !self.listed.contains(&kind) {
                continue;
            }
            let what = match known.and_then(|known| known.get(&(kind, name.clone()))).map(|part| part.condition) {
                Some(Condition::Intact) => continue,
                Some(Condition::Changed) => "was changed",
                None => "is missing",
            };
            found.push(format!("its {} {name} {what}", kind.label()));
        }
        (!found.is_empty()).then(|| found.join("; "))
    }

    fn begin(&mut self, kind: Kind) {
        self.noted.retain(|(of, _)| *of != kind);
    }

    fn replace(&mut self, kind: Kind, all: impl Iterator<Item = Part>) -> Touched {
        let listed: Vec<_> = all.collect();
        let there: BTreeSet<&str> = listed.iter().map(|part| part.name.as_str()).collect();
        for parts in self.known.values_mut() {
            parts.retain(|key, _| key.0 != kind || there.contains(key.1.as_str()) || self.noted.contains(key));
        }
        for part in listed {
            drop(self.put(part));
        }
        self.known.retain(|_, parts| !parts.is_empty());
        self.listed.insert(kind);
        Touched::All
    }

    /// Keeps the newer of what is known and what comes.
    fn put(&mut self, part: Part) -> Touched {
        let parts = self.known.entry(part.workload.clone()).or_default();
        let key = (part.kind, part.name.clone());
        let is_older =
            |known: &Part| known.uid == part.uid && known.version.zip(part.version).is_some_and(|(old, new)| new < old);
        if parts.get(&key).is_some_and(is_older) {
            return Touched::Nothing;
        }
        let workload = part.workload.clone();
        parts.insert(key, part);
        Touched::One(workload)
    }

    fn delete(&mut self, part: &Part) -> Touched {
        let Some(parts) = self.known.get_mut(&part.workload) else { return Touched::Nothing };
        let key = (part.kind, part.name.clone());
        // Another one of the same name may have been applied meanwhile.
        if parts.get(&key).is_none_or(|known| known.uid != part.uid) {
            return Touched::Nothing;
        }
        parts.remove(&key);
        if parts.is_empty() {
            self.known.remove(&part.workload);
        }
        Touched::One(part.workload.clone())
    }
}

/// What must be there beside a Deployment, as the Deployment itself says.
fn needed(id: &WorkloadId, deployment: &Deployment) -> BTreeSet<(Kind, String)> {
    let mut needed = BTreeSet::from([(Kind::NetworkPolicy, names::object(id))]);
    if matches!(Wiring::of(&deployment.metadata), Some(Wiring::Bridge | Wiring::Http)) {
        needed.insert((Kind::Service, names::object(id)));
    }
    let pod = compat::deployment_spec(deployment).and_then(|spec| spec.template.spec.as_ref());
    let secrets = pod.into_iter().flat_map(secrets).filter(|name| {
        // Those of others are not ours to put back.
        *name == names::object(id) || *name == names::bridge_secret(id) || is_pull_secret(id, name)
    });
    needed.extend(secrets.map(|name| (Kind::Secret, name.to_owned())));
    needed
}

fn is_pull_secret(id: &WorkloadId, name: &str) -> bool {
    let number = name.strip_prefix(id.as_str()).and_then(|rest| rest.strip_prefix("-pull-"));
    number.is_some_and(|number| number.parse().is_ok_and(|n| names::pull_secret(id, n) == name))
}

/// The names of the Secrets that a pod is given.
fn secrets(pod: &PodSpec) -> impl Iterator<Item = &str> {
    let volumes = pod.volumes.iter().flatten().filter_map(|volume| volume.secret.as_ref()?.secret_name.as_deref());
    let pulls = pod.image_pull_secrets.iter().flatten().map(|pull| pull.name.as_str());
    let containers = pod.containers.iter().chain(pod.init_containers.iter().flatten());
    volumes.chain(pulls).chain(containers.flat_map(variables))
}

fn variables(container: &Container) -> impl Iterator<Item = &str> {
    let variables = container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref());
    variables.filter_map(|from| Some(from.secret_key_ref.as_ref()?.name.as_str()))
}

impl Tracked for Service {
    const KIND: &'static str = "Services";

    fn begin(store: &mut Store) {
        store.parts.begin(Kind::Service);
    }

    fn replace(store: &mut Store, all: Vec<Self>) -> Touched {
        store.parts.replace(Kind::Service, all.iter().filter_map(Part::of_service))
    }

    fn put(store: &mut Store, object: Self) -> Touched {
        Part::of_service(&object).map_or(Touched::Nothing, |part| store.parts.put(part))
    }

    fn delete(store: &mut Store, object: &Self) -> Touched {
        Part::of_service(object).map_or(Touched::Nothing, |part| store.parts.delete(&part))
    }
}

impl Tracked for NetworkPolicy {
    const KIND: &'static str = "NetworkPolicies";

    fn begin(store: &mut Store) {
        store.parts.begin(Kind::NetworkPolicy);
    }

    fn replace(store: &mut Store, all: Vec<Self>) -> Touched {
        store.parts.replace(Kind::NetworkPolicy, all.iter().filter_map(Part::of_network_policy))
    }

    fn put(store: &mut Store, object: Self) -> Touched {
        Part::of_network_policy(&object).map_or(Touched::Nothing, |part| store.parts.put(part))
    }

    fn delete(store: &mut Store, object: &Self) -> Touched {
        Part::of_network_policy(object).map_or(Touched::Nothing, |part| store.parts.delete(&part))
    }
}

impl Tracked for PartialObjectMeta<Secret> {
    const KIND: &'static str = "Secrets";
    const OWNERS: bool = true;

    fn begin(store: &mut Store) {
        store.parts.begin(Kind::Secret);
    }

    fn replace(store: &mut Store, all: Vec<Self>) -> Touched {
        store.parts.replace(Kind::Secret, all.iter().filter_map(|one| Part::of_secret(&one.metadata)))
    }

    fn put(store: &mut Store, object: Self) -> Touched {
        Part::of_secret(&object.metadata).map_or(Touched::Nothing, |part| store.parts.put(part))
    }

    fn delete(store: &mut Store, object: &Self) -> Touched {
        Part::of_secret(&object.metadata).map_or(Touched::Nothing, |part| store.parts.delete(&part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn id() -> WorkloadId {
        "mcp-1".parse().expect("an id")
    }

    fn meta(name: &str, uid: &str, version: u32) -> Value {
        json!({"name": name, "uid": uid, "resourceVersion": version.to_string(), "labels": {
            "app.kubernetes.io/managed-by": "archestra", "archestra.dev/workload": "mcp-1",
        }})
    }

    fn deployment() -> Deployment {
        let mut metadata = meta("mcp-1", "d", 1);
        metadata["annotations"] = json!({"archestra.dev/transport": "bridge", "archestra.dev/applied": "3"});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"selector": {}, "template": {"spec": {
            "containers": [{"name": "mcp-server", "env": [
                {"name": "A", "valueFrom": {"secretKeyRef": {"name": "mcp-1", "key": "A"}}},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "somebody-elses", "key": "B"}}},
            ]}],
            "volumes": [{"name": "t", "secret": {"secretName": "mcp-1-bridge"}}],
            "imagePullSecrets": [{"name": "mcp-1-pull-0"}, {"name": "regcred"}],
        }}}}))
        .expect("a Deployment")
    }

    fn secret(name: &str, uid: &str, version: u32) -> PartialObjectMeta<Secret> {
        serde_json::from_value(json!({"metadata": meta(name, uid, version)})).expect("metadata")
    }

    fn service(uid: &str, version: u32) -> Service {
        serde_json::from_value(json!({"metadata": meta("mcp-1", uid, version)})).expect("a Service")
    }

    fn policy() -> NetworkPolicy {
        serde_json::from_value(json!({"metadata": meta("mcp-1", "n", 1)})).expect("a NetworkPolicy")
    }

    #[test]
    fn what_is_missing_is_told_once_it_was_listed() {
        let mut store = Store::default();
        let drift = |store: &Store| store.parts.drift(&id(), &deployment());
        assert_eq!(drift(&store), None, "nothing was listed");
        let all = ["mcp-1", "mcp-1-bridge", "mcp-1-pull-0"];
        Tracked::replace(&mut store, vec![service("s", 1)]);
        Tracked::replace(&mut store, vec![policy()]);
        Tracked::replace(&mut store, all.map(|name| secret(name, name, 1)).into());
        assert_eq!(drift(&store), None);
        PartialObjectMeta::<Secret>::delete(&mut store, &secret("mcp-1-pull-0", "mcp-1-pull-0", 2));
        assert_eq!(drift(&store).as_deref(), Some("its Secret mcp-1-pull-0 is missing"));
        NetworkPolicy::replace(&mut store, Vec::new());
        assert_eq!(
            drift(&store).as_deref(),
            Some("its NetworkPolicy mcp-1 is missing; its Secret mcp-1-pull-0 is missing")
        );
    }

    #[test]
    fn what_was_applied_is_known_before_its_watch_tells() {
        let mut store = Store::default();
        Service::begin(&mut store);
        store.parts.note(Part::of_service(&service("s", 5)).expect("ours"));
        Service::replace(&mut store, Vec::new());
        let drift = |store: &Store| store.parts.drift(&id(), &deployment());
        assert_eq!(drift(&store), None, "the list is older");
        Service::put(&mut store, service("s", 4));
        Service::delete(&mut store, &service("former", 3));
        assert_eq!(drift(&store), None, "another one was deleted");
        Service::delete(&mut store, &service("s", 6));
        assert_eq!(drift(&store).as_deref(), Some("its Service mcp-1 is missing"));
        store.parts.note(Part::of_service(&service("t", 7)).expect("ours"));
        store.parts.forget(&id());
        Service::begin(&mut store);
        Service::replace(&mut store, vec![service("u", 8)]);
        assert_eq!(drift(&store), None);
    }

    #[test]
    fn fields_that_are_ours_no_more_are_somebody_elses_change() {
        let parts = Parts::default();
        let mut changed = deployment();
        let ours = json!([{"manager": "archestra", "operation": "Apply", "fieldsV1": {"f:spec": {}}}]);
        changed.metadata.managed_fields = serde_json::from_value(ours).expect("managed fields");
        assert_eq!(parts.drift(&id(), &changed).as_deref(), Some("its Deployment was changed"));
        changed.metadata.annotations.as_mut().expect("there are some").remove(names::APPLIED);
        assert_eq!(parts.drift(&id(), &changed), None, "an earlier version does not say");
        changed.metadata.annotations = None;
        assert!(parts.drift(&id(), &changed).expect("a reason").contains("how its server is talked to"));
    }
}
