//! The Deployment that a specification comes to before overrides and wiring: locked down, probed, and with its resources.

use super::{Context, escape};
use crate::{
    config::ImagePullPolicy,
    names::{self, BRIDGE_HEALTH_PORT, CONTAINER, HOME_DIRECTORY, MCP_PORT, Wiring},
    platform::Template,
};
use archestra_core::{
    catalog::{EnvFrom, EnvFromKind},
    runtime::{
        EnvValue, WorkloadPullSecret, WorkloadTransport,
        scheduling::{self, Scheduling},
    },
};
use serde_json::{Map, Value, json};

/// Stands for the port in arguments and plain values.
const PORT_PLACEHOLDER: &str = "${archestra.http_port}";
/// How long a server may take to end, by itself and behind a bridge, which first lets the calls under way finish.
const GRACE_SECONDS: u32 = 10;
const BRIDGE_GRACE_SECONDS: u32 = 30;

/// The Deployment, with what depends on the wiring.
pub(super) fn generated(cx: &Context<'_>, wiring: Wiring) -> Value {
    let spec = &cx.workload.spec;
    let mut pod = json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": match (wiring, cx.platform.template) {
            (Wiring::Bridge, Template::Two | Template::Three) => BRIDGE_GRACE_SECONDS,
            (Wiring::Bridge, Template::One) | (Wiring::Http | Wiring::Attach, _) => GRACE_SECONDS,
        },
        "securityContext": pod_security(cx.user()),
        "containers": [container(cx, wiring)],
    });
    if let Some(account) = &spec.service_account {
        pod["serviceAccountName"] = account.as_str().into();
    }
    let pulls = pull_secret_names(cx);
    if !pulls.is_empty() {
        pod["imagePullSecrets"] = pulls.into_iter().map(|name| json!({"name": name})).collect();
    }
    let mut generated = json!({
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 3,
            "strategy": strategy(cx, wiring),
            "template": {"spec": pod},
        },
    });
    schedule(&mut generated, &cx.platform.scheduling, &Scheduling::default());
    generated
}

/// The names of all pull secrets of the workload, in its order.
pub(crate) fn pull_secret_names(cx: &Context<'_>) -> Vec<String> {
    let pulls = cx.workload.spec.pull_secrets.iter().enumerate();
    pulls
        .map(|(n, pull)| match pull {
            WorkloadPullSecret::Existing { name } => name.clone(),
            WorkloadPullSecret::Credentials { .. } => names::pull_secret(&cx.workload.id, n),
        })
        .collect()
}

/// Sets node selector and tolerations: what a workload says of them, else what it inherits.
pub(super) fn schedule(deployment: &mut Value, inherited: &Scheduling, own: &Scheduling) {
    let Some(pod) = deployment.pointer_mut("/spec/template/spec").and_then(Value::as_object_mut) else { return };
    let Scheduling { node_selector, tolerations } = scheduling::merge(inherited, own);
    set(pod, "nodeSelector", node_selector.filter(|labels| !labels.is_empty()).map(|labels| json!(labels)));
    set(pod, "tolerations", tolerations.filter(|list| !list.is_empty()).map(|list| json!(list)));
}

fn set(object: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    match value {
        Some(value) => object.insert(key.to_owned(), value),
        None => object.remove(key),
    };
}

fn pod_security(user: i64) -> Value {
    let seccomp = json!({"type": "RuntimeDefault"});
    if user == 0 {
        return json!({"runAsNonRoot": false, "runAsUser": 0, "seccompProfile": seccomp});
    }
    json!({
        "runAsNonRoot": true,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "seccompProfile": seccomp,
    })
}

/// What every container is held to that says nothing else.
pub(super) fn container_security() -> Value {
    json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}})
}

fn container(cx: &Context<'_>, wiring: Wiring) -> Value {
    let spec = &cx.workload.spec;
    let port = cx.http_port().to_string();
    let fill = |text: &str| match wiring {
        Wiring::Http => escape(&text.replace(PORT_PLACEHOLDER, &port)),
        Wiring::Bridge | Wiring::Attach => escape(text),
    };
    let mut container = json!({
        "name": CONTAINER,
        "image": cx.image(),
        "env": environment(cx, fill),
        "resources": {"requests": cx.platform.requests, "limits": cx.platform.limits},
        "securityContext": container_security(),
    });
    let sources = sources(cx);
    if !sources.is_empty() {
        container["envFrom"] = sources.into();
    }
    for (key, texts) in [("command", &spec.command), ("args", &spec.args)] {
        if !texts.is_empty() {
            container[key] = texts.iter().map(|text| fill(text)).collect();
        }
    }
    if let Some(policy) = cx.platform.image_pull_policy.map(ImagePullPolicy::label) {
        container["imagePullPolicy"] = policy.into();
    }
    match wiring {
        Wiring::Bridge => {
            container["readinessProbe"] = probe("httpGet", &json!({"path": "/ready", "port": BRIDGE_HEALTH_PORT}))
        }
        Wiring::Http => container["readinessProbe"] = probe("tcpSocket", &json!({"port": MCP_PORT})),
        Wiring::Attach => {}
    }
    container
}

fn probe(kind: &str, handler: &Value) -> Value {
    json!({kind: handler, "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 3})
}

fn environment(cx: &Context<'_>, fill: impl Fn(&str) -> String) -> Vec<Value> {
    let spec = &cx.workload.spec;
    let own = |name: &str| spec.env.iter().any(|variable| variable.name == name);
    let mut env = Vec::new();
    if !own("HOME") {
        env.push(json!({"name": "HOME", "value": HOME_DIRECTORY}));
    }
    if matches!(spec.transport, WorkloadTransport::StreamableHttp { .. }) && !own("PORT") {
        env.push(json!({"name": "PORT", "value": cx.http_port().to_string()}));
    }
    for variable in &spec.env {
        match &variable.value {
            EnvValue::Plain(text) => env.push(json!({"name": variable.name, "value": fill(text)})),
            EnvValue::Secret(key) => env.push(secret_variable(cx, &variable.name, key)),
            EnvValue::Mounted(_) => {}
        }
    }
    env
}

/// The objects that variables come from; `env` wins over them.
pub(super) fn sources(cx: &Context<'_>) -> Vec<Value> {
    let source = |EnvFrom { kind, name, prefix }: &EnvFrom| {
        let reference = json!({"name": name});
        let mut source = match kind {
            EnvFromKind::Secret => json!({"secretRef": reference}),
            EnvFromKind::ConfigMap => json!({"configMapRef": reference}),
        };
        if let Some(prefix) = prefix {
            source["prefix"] = prefix.as_str().into();
        }
        source
    };
    cx.workload.spec.env_from.iter().map(source).collect()
}

/// A variable whose value is one of the workload's secrets.
pub(super) fn secret_variable(cx: &Context<'_>, name: &str, key: &str) -> Value {
    let secret = names::object(&cx.workload.id);
    json!({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
}

/// Two processes at once where nothing speaks against it; one where the process is somebody's alone.
fn strategy(cx: &Context<'_>, wiring: Wiring) -> Value {
    let alone = wiring == Wiring::Attach || (wiring == Wiring::Bridge && cx.workload.spec.exclusive);
    if alone {
        json!({"type": "Recreate"})
    } else {
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}})
    }
}
