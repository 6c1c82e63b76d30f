//! What no override changes: identity, labels, selector, secrets, the bridge. It is put back after everything else.

use super::{Context, defaults, deployment, digest};
use crate::{
    names::{
        self, BRIDGE_CONTAINER, BRIDGE_DIRECTORY, BRIDGE_FILE, BRIDGE_HEALTH_PORT, BRIDGE_PORT, BRIDGE_VOLUME,
        CONTAINER, HEALTH_PORT, HOME_DIRECTORY, HOME_VOLUME, MCP_PORT, OWN_PREFIX, SECRETS_DIRECTORY, SECRETS_VOLUME,
        TOKEN_DIRECTORY, TOKEN_KEY, TOKEN_VOLUME, Wiring, YES,
    },
    platform::Template,
};
use archestra_core::{
    runtime::{EnvValue, WorkloadTransport},
    secret::SecretValue,
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Secret files are for the owner; `fsGroup` adds its group.
const FILE_MODE: u32 = 0o400;
/// What Kubernetes grants a pod that says nothing about its grace period.
const KUBERNETES_GRACE_SECONDS: u64 = 30;
/// What the bridge needs of it to end its server, after calls under way had theirs.
const BRIDGE_END_SECONDS: u64 = 10;

type Object = Map<String, Value>;

/// Puts identity, labels, selector and wiring of the workload into a Deployment.
pub(super) fn put_back(deployment: &mut Value, cx: &Context<'_>, wiring: Wiring) {
    let (labels, annotations) = metadata_of(deployment);
    deployment["apiVersion"] = "apps/v1".into();
    deployment["kind"] = "Deployment".into();
    deployment["metadata"] = cx.metadata(&names::object(&cx.workload.id));
    join(&mut deployment["metadata"]["labels"], labels);
    deployment["metadata"]["annotations"] = annotations.into();
    let Some(spec) = object(deployment, "spec") else { return };
    spec.insert("selector".to_owned(), json!({"matchLabels": names::selector(&cx.workload.id)}));
    let template = spec.entry("template").or_insert_with(|| json!({}));
    let (labels, annotations) = metadata_of(template);
    template["metadata"] = json!({"labels": cx.labels()});
    if !annotations.is_empty() {
        template["metadata"]["annotations"] = annotations.into();
    }
    join(&mut template["metadata"]["labels"], labels);
    if let Some(pod) = object(template, "spec") {
        wire_pod(pod, cx, wiring);
        defaults::write_out(pod);
    }
}

/// Annotates a Deployment with what others read of it, and its pods with the digest of the secrets in them.
pub(super) fn stamp(deployment: &mut Value, cx: &Context<'_>, wiring: Wiring, values: &BTreeMap<&str, &SecretValue>) {
    let spec = &cx.workload.spec;
    let annotations = &mut deployment["metadata"]["annotations"];
    annotations[names::REVISION] = cx.workload.revision.to_string().into();
    annotations[names::NAME] = spec.name.as_str().into();
    annotations[names::TRANSPORT] = wiring.label().into();
    if let WorkloadTransport::StreamableHttp { path, .. } = &spec.transport {
        annotations[names::PATH] = path.as_str().into();
    }
    if spec.exclusive && wiring != Wiring::Http {
        annotations[names::EXCLUSIVE] = YES.into();
    }
    if !values.is_empty() {
        let digest = digest::of_secrets(cx.key, &cx.workload.id, values.iter().map(|(key, value)| (*key, *value)));
        deployment["spec"]["template"]["metadata"]["annotations"][names::SECRETS_HASH] = digest.into();
    }
}

/// The labels and annotations that a person gave, without those that are ours to give.
fn metadata_of(object: &Value) -> (Object, Object) {
    let of = |key: &str| -> Object {
        let given = object["metadata"][key].as_object();
        given.into_iter().flatten().filter(|(key, _)| !key.starts_with(OWN_PREFIX)).map(own).collect()
    };
    (of("labels"), of("annotations"))
}

fn own((key, value): (&String, &Value)) -> (String, Value) {
    (key.clone(), value.clone())
}

/// Adds what is not there.
fn join(into: &mut Value, from: Object) {
    if let Some(into) = into.as_object_mut() {
        for (key, value) in from {
            into.entry(key).or_insert(value);
        }
    }
}

fn wire_pod(pod: &mut Object, cx: &Context<'_>, wiring: Wiring) {
    let volumes = wire_volumes(pod, cx, wiring);
    let grace = pod.get("terminationGracePeriodSeconds").and_then(Value::as_u64).unwrap_or(KUBERNETES_GRACE_SECONDS);
    for key in ["initContainers", "containers"] {
        for container in list(pod, key).iter_mut().filter_map(Value::as_object_mut) {
            lock_down(container);
            for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                // Server-side apply of older servers cannot tell ports apart that leave it out.
                join(port, Object::from_iter([("protocol".to_owned(), "TCP".into())]));
            }
        }
    }
    let mut resources = Value::Null;
    if let Some(main) = main(pod) {
        wire_container(main, cx, wiring, volumes, grace);
        resources = main.get("resources").cloned().unwrap_or_default();
    }
    let init = list(pod, "initContainers");
    init.retain(|container| container["name"] != BRIDGE_CONTAINER);
    if wiring == Wiring::Bridge {
        init.insert(0, bridge_container(cx, &resources));
    }
    if init.is_empty() {
        pod.remove("initContainers");
    }
    let wanted = deployment::pull_secret_names(cx);
    let pulls = list(pod, "imagePullSecrets");
    for name in wanted {
        if !pulls.iter().any(|pull| pull["name"] == name.as_str()) {
            pulls.push(json!({"name": name}));
        }
    }
    if pulls.is_empty() {
        pod.remove("imagePullSecrets");
    }
}

/// The container that runs the server.
fn main(pod: &mut Object) -> Option<&mut Object> {
    list(pod, "containers").iter_mut().find(|container| container["name"] == CONTAINER)?.as_object_mut()
}

/// A container that says nothing about its confinement is confined.
fn lock_down(container: &mut Object) {
    let context = container.entry("securityContext").or_insert_with(|| json!({}));
    if let Value::Object(defaults) = deployment::container_security() {
        join(context, defaults);
    }
    // Kubernetes takes no privileged container that may not gain privileges.
    if context["privileged"] == true
        && let Some(context) = context.as_object_mut()
    {
        context.remove("allowPrivilegeEscalation");
    }
}

/// Replaces our volumes, and says which mounts they need in the server's container.
fn wire_volumes(pod: &mut Object, cx: &Context<'_>, wiring: Wiring) -> Vec<Value> {
    let secret = names::object(&cx.workload.id);
    let items: Vec<_> = cx
        .workload
        .spec
        .env
        .iter()
        .filter_map(|variable| match &variable.value {
            EnvValue::Mounted(key) => Some(json!({"key": key, "path": variable.name})),
            EnvValue::Plain(_) | EnvValue::Secret(_) => None,
        })
        .collect();
    let volumes = list(pod, "volumes");
    volumes.retain(|volume| !names::VOLUMES.iter().any(|name| volume["name"] == *name));
    let mut mounts = Vec::new();
    let mut add = |volume: Value, mount: Value| {
        volumes.push(volume);
        mounts.push(mount);
    };
    add(json!({"name": HOME_VOLUME, "emptyDir": {}}), json!({"name": HOME_VOLUME, "mountPath": HOME_DIRECTORY}));
    if !items.is_empty() {
        add(
            json!({
                "name": SECRETS_VOLUME,
                "secret": {"secretName": secret, "defaultMode": FILE_MODE, "items": items},
            }),
            json!({"name": SECRETS_VOLUME, "mountPath": SECRETS_DIRECTORY, "readOnly": true}),
        );
    }
    if wiring == Wiring::Bridge {
        add(
            json!({"name": BRIDGE_VOLUME, "emptyDir": {}}),
            json!({"name": BRIDGE_VOLUME, "mountPath": BRIDGE_DIRECTORY, "readOnly": true}),
        );
        let secret = names::bridge_secret(&cx.workload.id);
        let items = json!([{"key": TOKEN_KEY, "path": TOKEN_KEY}]);
        add(
            json!({
                "name": TOKEN_VOLUME,
                "secret": {"secretName": secret, "defaultMode": FILE_MODE, "items": items},
            }),
            json!({"name": TOKEN_VOLUME, "mountPath": TOKEN_DIRECTORY, "readOnly": true}),
        );
    }
    mounts
}

fn wire_container(container: &mut Object, cx: &Context<'_>, wiring: Wiring, mounts: Vec<Value>, grace: u64) {
    let kept = list(container, "volumeMounts");
    kept.retain(|mount| !names::VOLUMES.iter().any(|name| mount["name"] == *name));
    for mount in mounts {
        // Somebody may bring another home; nothing else of ours may be hidden.
        let taken = kept.iter().position(|other| other["mountPath"] == mount["mountPath"]);
        match taken {
            Some(_) if mount["name"] == HOME_VOLUME => {}
            Some(at) => kept[at] = mount,
            None => kept.push(mount),
        }
    }
    wire_environment(container, cx);
    wire_sources(container, cx);
    match wiring {
        Wiring::Bridge => {
            wrap(container, cx, grace);
            put_ports(container, &[(MCP_PORT, BRIDGE_PORT), (HEALTH_PORT, BRIDGE_HEALTH_PORT)]);
            container.remove("stdin");
        }
        Wiring::Http => put_ports(container, &[(MCP_PORT, cx.http_port())]),
        Wiring::Attach => {
            container.insert("stdin".to_owned(), true.into());
            container.remove("stdinOnce");
        }
    }
    if wiring != Wiring::Http {
        container.insert("tty".to_owned(), false.into());
    }
    if wiring != Wiring::Attach {
        container.remove("stdinOnce");
    }
}

/// Puts secret variables back, drops references to keys of our Secret that are gone, and keeps mounted ones out.
fn wire_environment(container: &mut Object, cx: &Context<'_>) {
    let secret = names::object(&cx.workload.id);
    let env = list(container, "env");
    let known = |key: &Value| {
        cx.workload.spec.env.iter().any(|variable| match &variable.value {
            EnvValue::Secret(own) => key == own.as_str(),
            EnvValue::Mounted(_) | EnvValue::Plain(_) => false,
        })
    };
    env.retain(|variable| {
        let reference = &variable["valueFrom"]["secretKeyRef"];
        reference["name"] != secret.as_str() || known(&reference["key"])
    });
    for variable in &cx.workload.spec.env {
        let at = env.iter().position(|other| other["name"] == variable.name.as_str());
        match (&variable.value, at) {
            (EnvValue::Plain(_), _) | (EnvValue::Mounted(_), None) => {}
            (EnvValue::Mounted(_), Some(at)) => drop(env.remove(at)),
            (EnvValue::Secret(key), Some(at)) => env[at] = deployment::secret_variable(cx, &variable.name, key),
            (EnvValue::Secret(key), None) => env.push(deployment::secret_variable(cx, &variable.name, key)),
        }
    }
}

/// Puts what variables come from back, before what a document names: where both have a variable, the document wins.
fn wire_sources(container: &mut Object, cx: &Context<'_>) {
    let same = |one: &Value, other: &Value| {
        let prefix = |source: &Value| source["prefix"].as_str().unwrap_or_default().to_owned();
        let names = |kind: &str| one[kind]["name"] == other[kind]["name"];
        names("secretRef") && names("configMapRef") && prefix(one) == prefix(other)
    };
    let wanted = deployment::sources(cx);
    if wanted.is_empty() {
        return;
    }
    let given = list(container, "envFrom");
    let missing: Vec<_> = wanted.into_iter().filter(|own| !given.iter().any(|other| same(own, other))).collect();
    drop(given.splice(0..0, missing));
}

/// Lets the bridge start the command, and finish calls for as long as the pod has after it was told to end.
fn wrap(container: &mut Object, cx: &Context<'_>, grace: u64) {
    let bridge = format!("{BRIDGE_DIRECTORY}/{BRIDGE_FILE}");
    let command = [take(container, "command"), take(container, "args")].concat();
    // Whoever starts from a preview has the bridge in it already.
    let command = match command.first() {
        Some(first) if *first == bridge.as_str() => {
            let end = command.iter().position(|word| word == "--").map_or(command.len(), |at| at + 1);
            command[end..].to_vec()
        }
        Some(_) | None => command,
    };
    let mut args: Vec<Value> = vec![
        "--listen".into(),
        format!("0.0.0.0:{BRIDGE_PORT}").into(),
        "--health".into(),
        format!("0.0.0.0:{BRIDGE_HEALTH_PORT}").into(),
        "--token-file".into(),
        format!("{TOKEN_DIRECTORY}/{TOKEN_KEY}").into(),
    ];
    if cx.platform.template >= Template::Two {
        args.extend(["--drain".into(), grace.saturating_sub(BRIDGE_END_SECONDS).to_string().into()]);
    }
    if cx.workload.spec.exclusive {
        args.push("--exclusive".into());
    }
    args.push("--".into());
    args.extend(command);
    container.insert("command".to_owned(), json!([bridge]));
    container.insert("args".to_owned(), args.into());
}

fn take(container: &mut Object, key: &str) -> Vec<Value> {
    match container.remove(key) {
        Some(Value::Array(items)) => items,
        Some(_) | None => Vec::new(),
    }
}

/// The port whose name is ours, or whose number, is ours.
fn put_ports(container: &mut Object, ports: &[(&str, u16)]) {
    let kept = list(container, "ports");
    kept.retain(|port| !ports.iter().any(|(name, number)| port["name"] == *name || port["containerPort"] == *number));
    for (at, (name, number)) in ports.iter().enumerate() {
        kept.insert(at, json!({"name": name, "containerPort": number, "protocol": "TCP"}));
    }
}

fn bridge_container(cx: &Context<'_>, resources: &Value) -> Value {
    let mut container = json!({
        "name": BRIDGE_CONTAINER,
        "image": cx.platform.bridge_image,
        "command": [format!("/{BRIDGE_FILE}"), "--install", BRIDGE_DIRECTORY],
        "securityContext": deployment::container_security(),
        "volumeMounts": [{"name": BRIDGE_VOLUME, "mountPath": BRIDGE_DIRECTORY}],
    });
    if !resources.is_null() {
        container["resources"] = resources.clone();
    }
    if let Some(policy) = cx.platform.image_pull_policy {
        container["imagePullPolicy"] = policy.label().into();
    }
    container
}

fn object<'a>(value: &'a mut Value, key: &str) -> Option<&'a mut Object> {
    let member = value.as_object_mut()?.entry(key).or_insert_with(|| json!({}));
    if member.is_null() {
        *member = json!({});
    }
    member.as_object_mut()
}

/// The list of this name, made if it is not there. What is there and no list has been refused before.
fn list<'a>(object: &'a mut Object, key: &str) -> &'a mut Vec<Value> {
    let member = object.entry(key).or_insert_with(|| json!([]));
    if !member.is_array() {
        *member = json!([]);
    }
    member.as_array_mut().expect("it is a list now")
}
