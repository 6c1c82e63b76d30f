//! What a Deployment may not ask for unless the operator's policy allows it, and what Kubernetes would refuse of it.

mod resources;
mod scheduling;
mod volumes;

use super::document::{Path, Step};
use crate::{
    config::{OverridePolicy, Relaxation},
    manifest::Context,
    names::{self, CONTAINER, MANAGED_BY_KEY, OWN_PREFIX, Wiring},
    platform::Template,
    validate::image,
};
use archestra_core::runtime::WorkloadPullSecret;
use serde_json::Value;

/// The longest that a pod may take to end: whoever drains a node, or removes a workload, waits for it.
const LONGEST_GRACE_SECONDS: i64 = 300;

/// How long a pod may take to end: of the pod, or of one of its probes.
const GRACE: &str = "terminationGracePeriodSeconds";

/// Domains whose annotations say who confines a container; `unconfined` is looked at apart.
const PROFILES: [&str; 3] = [
    "seccomp.security.alpha.kubernetes.io",
    "container.seccomp.security.alpha.kubernetes.io",
    "container.apparmor.security.beta.kubernetes.io",
];

/// Domains whose annotations give a pod nothing: they are notes for those who look at it.
const NOTES: [&str; 4] =
    ["app.kubernetes.io", "kubectl.kubernetes.io", "cluster-autoscaler.kubernetes.io", "prometheus.io"];

/// A refusal: where, why, and what to do.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) path: Path,
    pub(super) reason: String,
    pub(super) remedy: String,
}

/// Everything that is refused of this Deployment.
pub(super) fn refusals(deployment: &Value, cx: &Context<'_>, wiring: Wiring) -> Vec<Refusal> {
    let mut check = Check { cx, policy: &cx.config.policy, path: Vec::new(), refusals: Vec::new() };
    check.inside(deployment, "metadata", |check, metadata| {
        for key in ["finalizers", "ownerReferences"] {
            check.inside(metadata, key, |check, _| {
                check.refuse("Forbidden: the Deployment must go when its workload does", "remove it");
            });
        }
    });
    check.required(deployment, "spec", |check, spec| {
        check.inside(spec, "replicas", |check, replicas| check.replicas(replicas, wiring));
        check.required(spec, "template", |check, template| {
            check.inside(template, "metadata", |check, metadata| {
                check.inside(metadata, "annotations", Check::annotations);
                check.inside(metadata, "labels", Check::labels);
            });
            check.required(template, "spec", Check::pod);
        });
    });
    check.refusals
}

struct Check<'a> {
    cx: &'a Context<'a>,
    policy: &'a OverridePolicy,
    path: Path,
    refusals: Vec<Refusal>,
}

impl Check<'_> {
    /// Looks at the value of a key, if it is there.
    fn inside(&mut self, value: &Value, key: &str, look: impl FnOnce(&mut Self, &Value)) {
        let Some(value) = value.get(key).filter(|value| !value.is_null()) else { return };
        self.path.push(Step::Key(key.to_owned()));
        look(self, value);
        self.path.pop();
    }

    /// Looks at the value of a key, which must not be deleted: all that holds for a pod hangs on it.
    fn required(&mut self, value: &Value, key: &str, look: impl FnOnce(&mut Self, &Value)) {
        if value.get(key).is_none_or(Value::is_null) {
            self.path.push(Step::Key(key.to_owned()));
            self.refuse("Required value: a Deployment has no pods without it", "remove the key, or give it a value");
            self.path.pop();
        }
        self.inside(value, key, look);
    }

    /// Looks at the items of a list, if it is there.
    fn each(&mut self, value: &Value, key: &str, look: impl Fn(&mut Self, &Value)) {
        self.inside(value, key, |check, list| {
            for (n, item) in list.as_array().into_iter().flatten().enumerate() {
                let name = item.get("name").and_then(Value::as_str).map(str::to_owned);
                check.path.push(Step::Item(n, name));
                look(check, item);
                check.path.pop();
            }
        });
    }

    fn refuse(&mut self, reason: impl Into<String>, remedy: impl Into<String>) {
        self.refusals.push(Refusal { path: self.path.clone(), reason: reason.into(), remedy: remedy.into() });
    }

    fn relax(&mut self, what: Relaxation, reason: &str) {
        if !self.policy.allows(what) {
            let remedy =
                format!("remove it, or ask the operator to allow `{what}` in the override policy (`--workload-allow`)");
            self.refuse(format!("Forbidden: {reason}"), remedy);
        }
    }

    /// What was saved before a rule was there is applied again as it was: the server would be gone for good when somebody deletes
    /// its Deployment.
    fn relax_since(&mut self, template: Template, what: Relaxation, reason: &str) {
        if self.cx.platform.template >= template {
            self.relax(what, reason);
        }
    }

    fn replicas(&mut self, replicas: &Value, wiring: Wiring) {
        let exclusive = self.cx.workload.spec.exclusive && wiring == Wiring::Bridge;
        if (exclusive || wiring == Wiring::Attach) && replicas.as_i64().is_some_and(|count| count > 1) {
            self.refuse("Invalid value: a process that one session has, or that is attached to, runs once", "use 1");
        }
    }

    fn annotations(&mut self, annotations: &Value) {
        for (key, value) in annotations.as_object().into_iter().flatten() {
            // Without a domain it is nobody's but the person's own, and what is ours is put back or left out.
            let Some((domain, _)) = key.split_once('/').filter(|_| !key.starts_with(OWN_PREFIX)) else { continue };
            self.inside(annotations, key, |check, _| {
                if PROFILES.contains(&domain) {
                    if value == "unconfined" {
                        check.relax(Relaxation::Unconfined, "an unconfined profile");
                    }
                } else if !NOTES.contains(&domain) {
                    let reason = format!("annotations of {domain} may give the pod networks, cloud roles or devices");
                    check.relax_since(Template::Two, Relaxation::Annotations, &reason);
                }
            });
        }
    }

    /// Who is let in is known by labels.
    fn labels(&mut self, labels: &Value) {
        let gateway = &self.cx.config.network.gateway_labels;
        if !gateway.is_empty() && gateway.iter().all(|(key, value)| labels[key] == value.as_str()) {
            self.refuse("Forbidden: with these labels the pod would pass for the gateway", "use other labels");
        }
        // What is ours is put back, or left out, whatever is said of it here.
        let ours = |key: &str| key == MANAGED_BY_KEY || key.starts_with(OWN_PREFIX);
        for key in labels.as_object().into_iter().flatten().map(|(key, _)| key).filter(|key| !ours(key)) {
            self.inside(labels, key, |check, _| {
                check.relax(
                    Relaxation::Labels,
                    "by its labels a pod is found by the Services and the network policies of others",
                );
            });
        }
    }

    fn pod(&mut self, pod: &Value) {
        for key in ["hostNetwork", "hostPID", "hostIPC"] {
            self.inside(pod, key, |check, on| {
                if *on == true {
                    check.relax(Relaxation::HostNamespaces, "a namespace of the node");
                }
            });
        }
        self.inside(pod, "restartPolicy", |check, policy| {
            if policy != "Always" {
                check.refuse(format!("Unsupported value: {policy}: supported values: \"Always\""), "remove it");
            }
        });
        self.scheduling(pod);
        self.claims(pod, "resourceClaims");
        self.inside(pod, "priorityClassName", |check, class| {
            if class.as_str().is_some_and(|class| class.starts_with("system-")) {
                check.refuse(
                    format!("Forbidden: the priority class {class} is for the cluster's own components"),
                    "remove it, or name a priority class for workloads",
                );
            }
        });
        self.inside(pod, GRACE, Self::grace);
        for key in ["serviceAccountName", "serviceAccount"] {
            self.inside(pod, key, Self::service_account);
        }
        self.inside(pod, "automountServiceAccountToken", |check, on| {
            if *on == true {
                check.relax(Relaxation::ServiceAccountToken, "a service account token");
            }
        });
        self.each(pod, "imagePullSecrets", |check, secret| check.inside(secret, "name", Self::pull_secret));
        self.inside(pod, "securityContext", Self::security);
        self.confined(pod);
        self.each(pod, "volumes", Self::volume);
        for key in ["initContainers", "containers"] {
            self.each(pod, key, Self::container);
            self.each(pod, key, Self::resources);
        }
        self.inside(pod, "ephemeralContainers", |check, _| {
            check.refuse("Forbidden: ephemeral containers not allowed in pod template", "remove them");
        });
        let containers = pod.get("containers").and_then(Value::as_array);
        if !containers.into_iter().flatten().any(|container| container["name"] == CONTAINER) {
            self.required(pod, "containers", |check, _| {
                check.refuse(
                    format!("Required value: no container is named `{CONTAINER}`"),
                    format!("name the container that runs the server `{CONTAINER}`"),
                );
            });
        }
    }

    /// What the generated pod says of its confinement must not be deleted either.
    fn confined(&mut self, pod: &Value) {
        if pod["automountServiceAccountToken"].is_null() {
            self.path.push(Step::Key("automountServiceAccountToken".to_owned()));
            self.relax(Relaxation::ServiceAccountToken, "`automountServiceAccountToken` must not be deleted");
            self.path.pop();
        }
        self.path.push(Step::Key("securityContext".to_owned()));
        let context = &pod["securityContext"];
        if context["runAsNonRoot"].is_null() && self.cx.workload.spec.run_as_user != Some(0) {
            self.relax(Relaxation::Root, "`runAsNonRoot` must not be deleted");
        }
        if context["seccompProfile"].is_null() {
            self.relax(Relaxation::Unconfined, "`seccompProfile` must not be deleted");
        }
        self.path.pop();
    }

    fn grace(&mut self, seconds: &Value) {
        if seconds.as_i64().is_some_and(|seconds| seconds > LONGEST_GRACE_SECONDS) {
            self.refuse(
                format!("Invalid value: {seconds}: must be less than or equal to {LONGEST_GRACE_SECONDS}"),
                format!("use {LONGEST_GRACE_SECONDS} or less"),
            );
        }
    }

    fn service_account(&mut self, account: &Value) {
        let Some(name) = account.as_str() else { return };
        let own = self.cx.workload.spec.service_account.as_deref() == Some(name);
        // Without its token the default account is what every pod has.
        if !own && name != "default" && !self.policy.service_accounts.contains(name) {
            let reason = format!("Forbidden: workloads may not run as the service account {name:?}");
            self.refuse(
                reason,
                "remove it, or ask the operator to add it to the service accounts of the override policy (`--workload-service-accounts`)",
            );
        }
    }

    fn pull_secret(&mut self, secret: &Value) {
        let Some(name) = secret.as_str() else { return };
        let mut pulls = self.cx.workload.spec.pull_secrets.iter().enumerate();
        let own = |(n, pull): (usize, &WorkloadPullSecret)| match pull {
            WorkloadPullSecret::Existing { name: existing } => existing == name,
            WorkloadPullSecret::Credentials { .. } => names::pull_secret(&self.cx.workload.id, n) == name,
        };
        if !pulls.any(own) && !self.policy.pull_secrets.contains(name) {
            let remedy = "name it in `imagePullSecrets` of the entry, or ask the operator to add it to the pull secrets of the override policy (`--workload-pull-secrets`)";
            self.refuse(format!("Forbidden: the pull secret {name:?} is not one of this workload's"), remedy);
        }
    }

    fn container(&mut self, container: &Value) {
        let name = container["name"].as_str().unwrap_or_default().to_owned();
        let image = container["image"].as_str().unwrap_or_default();
        if !image.trim().is_empty() {
            self.inside(container, "image", |check, _| {
                if let Err(reason) = image::check(image) {
                    check.refuse(reason, "use `registry/name:tag` or `registry/name@sha256:…`, in lower case");
                }
            });
        } else {
            self.refuse(
                format!("Required value: the container {name:?} has no image"),
                format!("give it one, or name it `{CONTAINER}` if the server's own container is meant"),
            );
        }
        self.inside(container, "securityContext", Self::security);
        for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
            self.inside(container, probe, |check, probe| {
                check.handler(probe);
                check.inside(probe, GRACE, Self::grace);
            });
        }
        self.inside(container, "lifecycle", |check, lifecycle| {
            for hook in ["postStart", "preStop"] {
                check.inside(lifecycle, hook, Self::handler);
            }
        });
        self.each(container, "ports", |check, port| {
            check.inside(port, "hostPort", |check, number| {
                if *number != 0 {
                    check.relax(Relaxation::HostPorts, "a port of the node");
                }
            });
        });
        self.each(container, "env", |check, variable| {
            check.inside(variable, "valueFrom", |check, source| {
                check.secret_in(source, "secretKeyRef");
                check.config_map_in(source, "configMapKeyRef");
            });
        });
        self.each(container, "envFrom", |check, source| {
            check.secret_in(source, "secretRef");
            check.config_map_in(source, "configMapRef");
        });
    }

    /// The kubelet asks, from the node's network, whatever host is named.
    fn handler(&mut self, handler: &Value) {
        for kind in ["httpGet", "tcpSocket"] {
            self.inside(handler, kind, |check, action| {
                check.inside(action, "host", |check, _| {
                    check.relax(Relaxation::HostNamespaces, "a request of the node to another host");
                });
            });
        }
    }

    /// The security context of a pod or a container.
    fn security(&mut self, context: &Value) {
        for (key, what, reason) in [
            ("privileged", Relaxation::Privileged, "privileged containers are not allowed"),
            ("allowPrivilegeEscalation", Relaxation::PrivilegeEscalation, "privilege escalation is not allowed"),
        ] {
            self.inside(context, key, |check, on| {
                if *on == true {
                    check.relax(what, reason);
                }
            });
        }
        for key in ["runAsUser", "runAsGroup", "fsGroup"] {
            self.inside(context, key, |check, id| {
                if *id == 0 && !(key == "runAsUser" && check.cx.workload.spec.run_as_user == Some(0)) {
                    check.relax(Relaxation::Root, "the user and the group 0 are root");
                }
            });
        }
        self.inside(context, "supplementalGroups", |check, groups| {
            if groups.as_array().is_some_and(|groups| groups.iter().any(|id| *id == 0)) {
                check.relax(Relaxation::Root, "the user and the group 0 are root");
            }
        });
        self.inside(context, "runAsNonRoot", |check, on| {
            if *on == false && check.cx.workload.spec.run_as_user != Some(0) {
                check.relax(Relaxation::Root, "containers must not run as root");
            }
        });
        self.inside(context, "capabilities", |check, capabilities| {
            check.inside(capabilities, "add", |check, added| {
                if added.as_array().is_some_and(|added| !added.is_empty()) {
                    check.relax(Relaxation::Capabilities, "added capabilities are not allowed");
                }
            });
            let drops = capabilities["drop"].as_array();
            if !drops.into_iter().flatten().any(|one| one == "ALL") {
                check.relax(Relaxation::Capabilities, "all capabilities must be dropped");
            }
        });
        for key in ["seccompProfile", "appArmorProfile"] {
            self.inside(context, key, |check, profile| {
                if profile["type"] == "Unconfined" {
                    check.relax(Relaxation::Unconfined, "an unconfined profile");
                }
            });
        }
        self.inside(context, "seLinuxOptions", |check, options| {
            let kind = options["type"].as_str().unwrap_or_default();
            let confined =
                ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"].contains(&kind);
            if !confined || !options["user"].is_null() || !options["role"].is_null() {
                check.relax(Relaxation::Unconfined, "another SELinux user, role or type");
            }
        });
        self.inside(context, "procMount", |check, mount| {
            if mount != "Default" {
                check.relax(Relaxation::Privileged, "an unmasked /proc");
            }
        });
        self.inside(context, "sysctls", |check, _| check.relax(Relaxation::Privileged, "kernel parameters"));
        self.inside(context, "windowsOptions", |check, options| {
            if options["hostProcess"] == true {
                check.relax(Relaxation::Privileged, "a process of the node");
            }
        });
    }
}
