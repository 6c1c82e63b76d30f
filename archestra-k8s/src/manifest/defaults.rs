//! Writing out what Kubernetes would fill in, in places that a later revision may leave out or replace as a whole.
//!
//! What a server fills in by itself belongs to nobody in server-side apply and stays when the rest around it goes: a probe of
//! which only `successThreshold` is left is refused, and so is one with two handlers. What is written out is ours, and goes.

use serde_json::{Map, Value, json};

type Object = Map<String, Value>;

/// Writes the defaults out.
pub(super) fn write_out(pod: &mut Object) {
    for key in ["initContainers", "containers"] {
        items(pod, key).for_each(container);
    }
    items(pod, "volumes").for_each(volume);
}

fn container(container: &mut Object) {
    if let Some(image) = container.get("image").and_then(Value::as_str) {
        let policy = if is_latest(image) { "Always" } else { "IfNotPresent" };
        fill(container, [("imagePullPolicy", json!(policy))]);
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = member(container, key) else { continue };
        let numbers = [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)];
        fill(probe, numbers.map(|(key, number)| (key, json!(number))));
        handler(probe);
    }
    if let Some(lifecycle) = member(container, "lifecycle") {
        for key in ["postStart", "preStop"] {
            member(lifecycle, key).into_iter().for_each(handler);
        }
    }
    for variable in items(container, "env") {
        let Some(source) = member(variable, "valueFrom") else { continue };
        member(source, "fieldRef").into_iter().for_each(|field| fill(field, [("apiVersion", json!("v1"))]));
        member(source, "resourceFieldRef").into_iter().for_each(|field| fill(field, [("divisor", json!("0"))]));
    }
    if let Some(resources) = member(container, "resources")
        && let Some(Value::Object(limits)) = resources.get("limits").cloned()
    {
        let requests = resources.entry("requests").or_insert_with(|| json!({}));
        if let Some(requests) = requests.as_object_mut() {
            for (resource, limit) in limits {
                requests.entry(resource).or_insert(limit);
            }
        }
    }
}

fn handler(handler: &mut Object) {
    member(handler, "httpGet").into_iter().for_each(|get| fill(get, [("scheme", json!("HTTP"))]));
    member(handler, "grpc").into_iter().for_each(|grpc| fill(grpc, [("service", json!(""))]));
}

fn volume(volume: &mut Object) {
    for key in ["secret", "configMap", "projected", "downwardAPI"] {
        member(volume, key).into_iter().for_each(|files| fill(files, [("defaultMode", json!(0o644))]));
    }
    member(volume, "hostPath").into_iter().for_each(|path| fill(path, [("type", json!(""))]));
}

/// Whether an image has the tag `latest`, or none and no digest either.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    match image.rsplit_once(':') {
        Some((_, tag)) if !tag.contains('/') => tag == "latest",
        Some(_) | None => true,
    }
}

fn fill<const N: usize>(object: &mut Object, defaults: [(&str, Value); N]) {
    for (key, value) in defaults {
        object.entry(key).or_insert(value);
    }
}

fn member<'a>(object: &'a mut Object, key: &str) -> Option<&'a mut Object> {
    object.get_mut(key)?.as_object_mut()
}

fn items<'a>(object: &'a mut Object, key: &str) -> impl Iterator<Item = &'a mut Object> {
    object.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_fills_in_is_written_out() {
        let mut pod = json!({
            "containers": [{
                "name": "a",
                "image": "localhost:5000/a",
                "readinessProbe": {"httpGet": {"port": 1}, "periodSeconds": 2},
                "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "resources": {"limits": {"cpu": "1", "memory": "2"}, "requests": {"cpu": "0.5"}},
            }],
            "volumes": [{"name": "v", "configMap": {"name": "c"}}, {"name": "e", "emptyDir": {}}],
        });
        write_out(pod.as_object_mut().unwrap());
        let expected = json!({
            "containers": [{
                "name": "a",
                "image": "localhost:5000/a",
                "imagePullPolicy": "Always",
                "readinessProbe": {
                    "httpGet": {"port": 1, "scheme": "HTTP"},
                    "timeoutSeconds": 1, "periodSeconds": 2, "successThreshold": 1, "failureThreshold": 3,
                },
                "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name", "apiVersion": "v1"}}}],
                "resources": {"limits": {"cpu": "1", "memory": "2"}, "requests": {"cpu": "0.5", "memory": "2"}},
            }],
            "volumes": [{"name": "v", "configMap": {"name": "c", "defaultMode": 420}}, {"name": "e", "emptyDir": {}}],
        });
        assert_eq!(pod, expected);
    }

    #[test]
    fn images_are_pulled_again_by_the_rule_of_kubernetes() {
        for (image, latest) in [
            ("a", true),
            ("a:latest", true),
            ("h:5000/a", true),
            ("a:1", false),
            ("h:5000/a:1", false),
            ("a@sha256:0", false),
        ] {
            assert_eq!(is_latest(image), latest, "{image}");
        }
    }
}
