//! What the API server fills in by itself, as clients see it when they read back what they wrote.

use super::kinds::Kind;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// Fills in what an object of this kind leaves open.
pub(super) fn fill(kind: &Kind, object: &mut Value) {
    match kind.name {
        "Deployment" => deployment(object),
        "ReplicaSet" => {
            default(&mut object["spec"], "replicas", || json!(1));
            pod(&mut object["spec"]["template"]["spec"]);
        }
        "Pod" => pod(&mut object["spec"]),
        "Service" => service(&mut object["spec"]),
        "Secret" => secret(object),
        "NetworkPolicy" => {
            let spec = &mut object["spec"];
            let egress = spec.get("egress").is_some_and(|rules| !rules.is_null());
            default(spec, "policyTypes", || if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
        }
        _ => {}
    }
}

fn default(object: &mut Value, field: &str, value: impl FnOnce() -> Value) {
    if object.is_null() {
        *object = json!({});
    }
    if let Value::Object(fields) = object {
        let present = fields.entry(field.to_owned()).or_insert(Value::Null);
        if present.is_null() {
            *present = value();
        }
    }
}

fn deployment(object: &mut Value) {
    let spec = &mut object["spec"];
    default(spec, "replicas", || json!(1));
    default(spec, "revisionHistoryLimit", || json!(10));
    default(spec, "progressDeadlineSeconds", || json!(600));
    default(spec, "strategy", || json!({}));
    default(&mut spec["strategy"], "type", || json!("RollingUpdate"));
    if spec["strategy"]["type"] == "RollingUpdate" {
        default(&mut spec["strategy"], "rollingUpdate", || json!({}));
        for field in ["maxSurge", "maxUnavailable"] {
            default(&mut spec["strategy"]["rollingUpdate"], field, || json!("25%"));
        }
    }
    pod(&mut spec["template"]["spec"]);
}

fn pod(spec: &mut Value) {
    default(spec, "restartPolicy", || json!("Always"));
    default(spec, "dnsPolicy", || json!("ClusterFirst"));
    default(spec, "schedulerName", || json!("default-scheduler"));
    default(spec, "terminationGracePeriodSeconds", || json!(30));
    default(spec, "securityContext", || json!({}));
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let latest = container["image"].as_str().is_some_and(|image| {
                let last = image.rsplit('/').next().unwrap_or_default();
                !image.contains('@') && (!last.contains(':') || last.ends_with(":latest"))
            });
            default(container, "imagePullPolicy", || if latest { json!("Always") } else { json!("IfNotPresent") });
            default(container, "terminationMessagePath", || json!("/dev/termination-log"));
            default(container, "terminationMessagePolicy", || json!("File"));
            default(container, "resources", || json!({}));
            for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                default(port, "protocol", || json!("TCP"));
            }
            for probe in ["readinessProbe", "livenessProbe", "startupProbe"] {
                if container.get(probe).is_some_and(Value::is_object) {
                    let probe = &mut container[probe];
                    for (field, value) in
                        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
                    {
                        default(probe, field, || json!(value));
                    }
                    if probe.get("httpGet").is_some_and(Value::is_object) {
                        default(&mut probe["httpGet"], "scheme", || json!("HTTP"));
                    }
                }
            }
        }
    }
    for volume in spec.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        for source in ["secret", "configMap", "projected"] {
            if volume.get(source).is_some_and(Value::is_object) {
                default(&mut volume[source], "defaultMode", || json!(420));
            }
        }
    }
    if let Some(account) = spec.get("serviceAccountName").filter(|name| !name.is_null()).cloned() {
        default(spec, "serviceAccount", || account);
    }
}

fn service(spec: &mut Value) {
    default(spec, "type", || json!("ClusterIP"));
    default(spec, "sessionAffinity", || json!("None"));
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        default(port, "protocol", || json!("TCP"));
        let number = port["port"].clone();
        default(port, "targetPort", || number);
    }
}

fn secret(object: &mut Value) {
    default(object, "type", || json!("Opaque"));
    let Some(Value::Object(plain)) = object.get_mut("stringData").map(Value::take) else { return };
    if let Value::Object(fields) = object {
        fields.remove("stringData");
    }
    default(object, "data", || json!({}));
    for (key, value) in plain {
        object["data"][key] = STANDARD.encode(value.as_str().unwrap_or_default()).into();
    }
}
