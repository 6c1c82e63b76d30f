//! What a pod needs before it can run: a node, volumes, values for its environment, an image.

use crate::testing::{
    image::{Behaviour, FakeImage},
    store::{Key, Store, items, text},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

/// Why no node takes the pod.
pub(super) fn unschedulable(store: &Store, pod: &Value) -> Option<String> {
    if let Some(reason) = &store.rules.unschedulable {
        return Some(reason.clone());
    }
    let labels = &store.rules.node_labels;
    let wanted = pod["spec"]["nodeSelector"].as_object()?;
    let fits = wanted.iter().all(|(key, value)| labels.get(key).is_some_and(|label| value == label));
    if fits {
        None
    } else {
        Some("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.".to_owned())
    }
}

fn secret<'a>(store: &'a Store, namespace: &str, name: &str) -> Option<&'a Value> {
    store.get(&Key::new("Secret", namespace, name)).map(|secret| &**secret)
}

/// Which of its volumes cannot be mounted.
pub(super) fn missing_volume(store: &Store, pod: &Value) -> Option<String> {
    let namespace = text(pod, "/metadata/namespace");
    for volume in items(pod, "/spec/volumes") {
        let name = text(volume, "/name");
        for (source, kind, field) in [("secret", "Secret", "secretName"), ("configMap", "ConfigMap", "name")] {
            let Some(wanted) = volume.get(source).filter(|wanted| wanted["optional"] != true) else { continue };
            let object = wanted[field].as_str().unwrap_or_default();
            let failed = |why: String| Some(format!("MountVolume.SetUp failed for volume \"{name}\" : {why}"));
            let Some(found) = store.get(&Key::new(kind, namespace, object)) else {
                return failed(format!("{} \"{object}\" not found", kind.to_lowercase()));
            };
            let lost = items(wanted, "/items")
                .iter()
                .map(|item| text(item, "/key"))
                .find(|key| found["data"].get(*key).is_none());
            if let Some(key) = lost {
                return failed(format!("references non-existent {} key: {key}", kind.to_lowercase()));
            }
        }
    }
    None
}

/// Which value for the environment is not there.
pub(super) fn missing_value(store: &Store, namespace: &str, container: &Value) -> Option<String> {
    for variable in items(container, "/env") {
        for (source, kind) in [("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")] {
            let Some(wanted) = variable["valueFrom"].get(source).filter(|wanted| wanted["optional"] != true) else {
                continue;
            };
            let (name, key) = (text(wanted, "/name"), text(wanted, "/key"));
            let Some(found) = store.get(&Key::new(kind, namespace, name)) else {
                return Some(format!("{} \"{name}\" not found", kind.to_lowercase()));
            };
            if found["data"].get(key).is_none() {
                return Some(format!("couldn't find key {key} in {kind} {namespace}/{name}"));
            }
        }
    }
    for origin in items(container, "/envFrom") {
        for (source, kind) in [("secretRef", "Secret"), ("configMapRef", "ConfigMap")] {
            let Some(wanted) = origin.get(source).filter(|wanted| wanted["optional"] != true) else { continue };
            let name = text(wanted, "/name");
            if store.get(&Key::new(kind, namespace, name)).is_none() {
                return Some(format!("{} \"{name}\" not found", kind.to_lowercase()));
            }
        }
    }
    None
}

/// The content of a file in a container, if it comes from a Secret.
pub(super) fn file(store: &Store, pod: &Value, container: &Value, path: &str) -> Option<String> {
    let namespace = text(pod, "/metadata/namespace");
    for mount in items(container, "/volumeMounts") {
        let at = text(mount, "/mountPath").trim_end_matches('/');
        let key = match (path.strip_prefix(at), text(mount, "/subPath")) {
            (Some(""), part) if !part.is_empty() => part,
            (Some(rest), "") if rest.starts_with('/') => rest.trim_start_matches('/'),
            _ => continue,
        };
        let volume = items(pod, "/spec/volumes").iter().find(|volume| volume["name"] == mount["name"])?;
        let secret = secret(store, namespace, text(volume, "/secret/secretName"))?;
        let renamed = items(volume, "/secret/items").iter().find(|item| item["path"] == key);
        let key = renamed.map_or(key, |item| text(item, "/key"));
        let content = STANDARD.decode(secret["data"][key].as_str()?).ok()?;
        return String::from_utf8(content).ok();
    }
    None
}

/// What a container does, by its image; or why that cannot be pulled.
pub(super) fn image(store: &Store, pod: &Value, container: &Value, init: bool) -> Result<FakeImage, String> {
    let name = text(container, "/image");
    let words: Vec<String> = ["/command", "/args"]
        .into_iter()
        .flat_map(|list| items(container, list))
        .filter_map(|word| word.as_str().map(str::to_owned))
        .collect();
    let found = match store.rules.images.get(name) {
        Some(image) => image.with_command_line(&words),
        None if init => FakeImage::completes(),
        None => {
            return Err(format!(
                "failed to pull and unpack image \"{name}\": failed to resolve reference \"{name}\": {name}: not found"
            ));
        }
    };
    if let Behaviour::PullError(reason) = &found.behaviour {
        return Err(reason.clone());
    }
    if let Some((user, password)) = &found.credentials
        && !shows_credentials(store, pod, name, user, password)
    {
        return Err(format!(
            "failed to pull and unpack image \"{name}\": failed to resolve reference \"{name}\": failed to authorize: \
             failed to fetch anonymous token: unexpected status: 401 Unauthorized"
        ));
    }
    Ok(found)
}

fn shows_credentials(store: &Store, pod: &Value, image: &str, user: &str, password: &str) -> bool {
    let namespace = text(pod, "/metadata/namespace");
    let registry = image.split_once('/').map_or("docker.io", |(registry, _)| registry);
    items(pod, "/spec/imagePullSecrets").iter().any(|reference| {
        let Some(secret) = secret(store, namespace, text(reference, "/name")) else { return false };
        let encoded = secret["data"][".dockerconfigjson"].as_str().unwrap_or_default();
        let config = STANDARD.decode(encoded).ok().and_then(|json| serde_json::from_slice::<Value>(&json).ok());
        let servers = config.as_ref().and_then(|config| config["auths"].as_object());
        servers.into_iter().flatten().any(|(server, entry)| {
            let auth = entry["auth"].as_str().and_then(|auth| STANDARD.decode(auth).ok());
            let given = auth.is_some_and(|auth| auth == format!("{user}:{password}").as_bytes())
                || (entry["username"] == user && entry["password"] == password);
            let host = server.trim_start_matches("https://").trim_start_matches("http://");
            given && host.split('/').next() == Some(registry)
        })
    })
}
