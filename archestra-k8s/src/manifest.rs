//! What is applied for a workload: its Deployment, Service, Secrets and NetworkPolicy, computed without any I/O.

mod defaults;
mod deployment;
mod digest;
mod escape;
pub(crate) mod intact;
mod network;
mod render;
mod secrets;
mod wiring;

pub(crate) use digest::Key;
pub(crate) use escape::escape;

use crate::{
    config::KubernetesConfig,
    names::{self, HTTP_PORT, OBJECTS_HASH, TEMPLATE_HASH, Wiring},
    overrides::{self, Override},
    platform::Platform,
    validate,
};
use archestra_core::{
    Error, Result,
    runtime::{Manifest, Workload, WorkloadTransport},
};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Secret, Service},
        networking::v1::NetworkPolicy,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Everything that is to be there for a workload, but for the token of its bridge, which is made once and kept.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Desired {
    pub(crate) deployment: Deployment,
    pub(crate) service: Option<Service>,
    pub(crate) secret: Option<Secret>,
    pub(crate) pull_secrets: Vec<Secret>,
    pub(crate) network_policy: NetworkPolicy,
}

/// What `desired` needs to know, once it is known to be sound.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) workload: &'a Workload,
    pub(crate) config: &'a KubernetesConfig,
    pub(crate) platform: Platform,
    pub(crate) namespace: &'a str,
    /// What digests over secret values are made with.
    pub(crate) key: Key<'a>,
    pub(crate) variables: Variables,
}

/// Which variables a specification has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variables {
    /// All that its entry knows, so that one which is not there is a mistake.
    All,
    /// Those that have a value; one which is not there was left blank.
    Given,
}

impl Context<'_> {
    /// Where a streamable-http server listens.
    pub(crate) fn http_port(&self) -> u16 {
        match self.workload.spec.transport {
            WorkloadTransport::StreamableHttp { port: Some(port), .. } => port,
            WorkloadTransport::StreamableHttp { port: None, .. } | WorkloadTransport::Stdio => HTTP_PORT,
        }
    }

    /// The image of the server.
    pub(crate) fn image(&self) -> &str {
        self.workload.spec.image.as_deref().unwrap_or(&self.platform.base_image)
    }

    /// The user that it runs as.
    pub(crate) fn user(&self) -> i64 {
        self.workload.spec.run_as_user.unwrap_or(self.platform.run_as_user)
    }

    /// How the server is wired to us if this is whether its command is known.
    pub(crate) fn wiring(&self, command: Command) -> Wiring {
        match (&self.workload.spec.transport, command) {
            (WorkloadTransport::StreamableHttp { .. }, _) => Wiring::Http,
            (WorkloadTransport::Stdio, Command::Known) => Wiring::Bridge,
            (WorkloadTransport::Stdio, Command::OfImage) => Wiring::Attach,
        }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        names::labels(&self.workload.id, self.workload.spec.team.as_ref(), self.config.instance.as_deref())
    }

    fn metadata(&self, name: &str) -> Value {
        json!({"name": name, "namespace": self.namespace, "labels": self.labels()})
    }

    fn meta<const N: usize>(&self, name: String, more: [(&str, &str); N]) -> ObjectMeta {
        let mut labels = self.labels();
        labels.extend(more.map(|(key, value)| (key.to_owned(), value.to_owned())));
        ObjectMeta {
            name: Some(name),
            namespace: Some(self.namespace.to_owned()),
            labels: Some(labels),
            ..ObjectMeta::default()
        }
    }
}

/// What a container is started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// A command that we know.
    Known,
    /// What the image says.
    OfImage,
}

/// What is to be there for a workload in this namespace.
///
/// # Errors
/// [`Error::Invalid`] with everything that Kubernetes would refuse, or policy does.
pub(crate) fn desired(workload: &Workload, config: &KubernetesConfig, namespace: &str) -> Result<Desired> {
    let findings = validate::of_spec(&workload.spec, config);
    if !findings.is_empty() {
        return Err(Error::Invalid(findings));
    }
    with_key(workload, config, namespace, new_key(config))
}

/// The same as it is already there: digests that were made under an older key of the platform, or under none, are kept, so that
/// another key alone changes nothing.
pub(crate) fn desired_beside(
    desired: Desired,
    observed: &Deployment,
    workload: &Workload,
    config: &KubernetesConfig,
    namespace: &str,
) -> Result<Desired> {
    let fits = |desired: &Desired, annotation| {
        let of = |deployment: &Deployment| deployment.metadata.annotations.as_ref()?.get(annotation).cloned();
        of(&desired.deployment) == of(observed)
    };
    let mut same_template = fits(&desired, TEMPLATE_HASH).then(|| desired.clone());
    if fits(&desired, OBJECTS_HASH) || (desired.secret.is_none() && desired.pull_secrets.is_empty()) {
        return Ok(desired);
    }
    for key in Key::all(config.digest_keys.as_deref()).skip(1) {
        let older = with_key(workload, config, namespace, key)?;
        if fits(&older, OBJECTS_HASH) {
            return Ok(older);
        }
        if same_template.is_none() && fits(&older, TEMPLATE_HASH) {
            same_template = Some(older);
        }
    }
    Ok(same_template.unwrap_or(desired))
}

/// The NetworkPolicy that the workload of this Deployment gets under the settings of today. Nothing of it depends on a revision.
pub(crate) fn network_policy(deployment: &Deployment, config: &KubernetesConfig) -> Option<NetworkPolicy> {
    let meta = &deployment.metadata;
    let (id, wiring) = (names::workload_of(meta)?, Wiring::of(meta)?);
    let team = meta.labels.as_ref().and_then(|labels| labels.get(names::TEAM)?.parse().ok());
    let labels = names::labels(&id, team.as_ref(), config.instance.as_deref());
    let metadata = json!({"name": names::object(&id), "namespace": meta.namespace, "labels": labels});
    let mut policy = typed(network::policy_of(&id, &metadata, &config.network, wiring)).ok()?;
    intact::mark(&mut policy);
    Some(policy)
}

/// What digests are made with from now on.
pub(crate) fn new_key(config: &KubernetesConfig) -> Key<'_> {
    Key::all(config.digest_keys.as_deref()).next().unwrap_or(Key::None)
}

fn with_key(workload: &Workload, config: &KubernetesConfig, namespace: &str, key: Key<'_>) -> Result<Desired> {
    let platform = Platform::stored(&workload.spec.platform, config)?;
    compute(&Context { workload, config, platform, namespace, key, variables: Variables::Given })
}

/// What is to be there, for a specification that has no findings of its own.
pub(crate) fn compute(cx: &Context<'_>) -> Result<Desired> {
    let values = secrets::values(cx)?;
    let (mut deployment, wiring) = deployment(cx)?;
    wiring::stamp(&mut deployment, cx, wiring, &values);
    let mut service: Option<Service> = network::service(cx, wiring).map(typed).transpose()?;
    let mut network_policy: NetworkPolicy = typed(network::policy(cx, wiring))?;
    let mut secret = secrets::secret(cx, &values);
    let mut pull_secrets = secrets::pull_secrets(cx)?;
    // Through the types first, so that what is digested is what is sent.
    let mut deployment = untyped(&typed::<Deployment>(deployment)?);
    let template = digest::of_json(&deployment["spec"]);
    deployment["metadata"]["annotations"][TEMPLATE_HASH] = template.into();
    let objects = json!([stable(&deployment), service, secret, pull_secrets, network_policy, cx.workload.id]);
    deployment["metadata"]["annotations"][OBJECTS_HASH] = digest::of_secret_json(cx.key, &objects).into();
    intact::mark(&mut network_policy);
    service.iter_mut().for_each(intact::mark);
    secret.iter_mut().chain(&mut pull_secrets).for_each(intact::mark);
    Ok(Desired { deployment: typed(deployment)?, service, secret, pull_secrets, network_policy })
}

/// The Deployment without its stamps: generated, or what the override makes of that.
fn deployment(cx: &Context<'_>) -> Result<(Value, Wiring)> {
    let own = if cx.workload.spec.command.is_empty() { Command::OfImage } else { Command::Known };
    let Some(text) = &cx.workload.spec.deployment_yaml else {
        let wiring = cx.wiring(own);
        let mut generated = deployment::generated(cx, wiring);
        wiring::put_back(&mut generated, cx, wiring);
        return Ok((generated, wiring));
    };
    let document = Override::parse(text, &overrides::Values::of(cx)).map_err(Error::Invalid)?;
    let wiring = cx.wiring(document.command().unwrap_or(own));
    let mut merged = document.apply(deployment::generated(cx, wiring), &cx.platform).map_err(Error::Invalid)?;
    let (inherited, own) = document.scheduling(&cx.platform.scheduling);
    deployment::schedule(&mut merged, &inherited, &own);
    let mut findings = document.findings(&merged, cx, wiring);
    if findings.is_empty() {
        wiring::put_back(&mut merged, cx, wiring);
        findings.extend(document.doubled(&merged));
    }
    if findings.is_empty() { Ok((merged, wiring)) } else { Err(Error::Invalid(findings)) }
}

/// What decides whether there is anything to apply: all but the number of the revision.
fn stable(deployment: &Value) -> Value {
    let mut stable = deployment.clone();
    if let Some(annotations) = stable["metadata"]["annotations"].as_object_mut() {
        annotations.remove(names::REVISION);
    }
    stable
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|error| {
        Error::invalid("selfHosted.deploymentYaml", error.to_string(), "correct the field that it names")
    })
}

fn untyped(object: &impl Serialize) -> Value {
    serde_json::to_value(object).expect("an object of Kubernetes is always JSON")
}

impl Desired {
    /// The objects as YAML, without secret values and without digests of them.
    pub(crate) fn redacted(&self) -> Manifest {
        let mut documents = vec![render::document(untyped(&self.network_policy))];
        documents.extend(self.pull_secrets.iter().chain(&self.secret).map(|secret| render::secret(untyped(secret))));
        documents.extend(self.service.iter().map(|service| render::document(untyped(service))));
        documents.push(render::document(untyped(&self.deployment)));
        Manifest { documents }
    }
}

/// What the Kubernetes runtime would apply for a workload, without a cluster: documents in YAML, secret values redacted.
///
/// # Errors
/// [`Error::Invalid`] with everything that Kubernetes would refuse, or the operator's policy does.
pub fn preview(workload: &Workload, config: &KubernetesConfig) -> Result<Manifest> {
    let namespace = workload.spec.namespace.as_deref().unwrap_or(&config.namespace);
    Ok(desired(workload, config, namespace)?.redacted())
}

#[cfg(test)]
mod tests;
