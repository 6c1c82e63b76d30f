//! What the API server refuses: objects that their kind does not allow, and changes of what cannot be changed.

use super::{kinds::Kind, refusal::Refusal, store::items};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

type Causes = Vec<(String, String)>;

/// What is wrong with an object that is to be stored, alone and next to what is there.
pub(super) fn check(kind: &Kind, object: &Value, before: Option<&Value>) -> Result<(), Refusal> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let mut causes = Causes::new();
    check_name(kind, name, &mut causes);
    check_labels("metadata", &object["metadata"], &mut causes);
    match kind.name {
        "Deployment" | "ReplicaSet" => {
            check_strategy(&object["spec"]["strategy"], &mut causes);
            check_template(&object["spec"], &mut causes);
        }
        "Pod" => check_pod("spec", &object["spec"], &mut causes),
        "Secret" => check_secret(object, &mut causes),
        _ => {}
    }
    if let Some(before) = before {
        let frozen: &[&str] = match kind.name {
            "Deployment" | "ReplicaSet" => &["/spec/selector"],
            "Service" => &["/spec/clusterIP"],
            "Secret" => &["/type"],
            _ => &[],
        };
        for path in frozen {
            let (old, new) = (before.pointer(path), object.pointer(path));
            if old.is_some_and(|old| !old.is_null()) && old != new {
                let field = path.trim_start_matches('/').replace('/', ".");
                let shown = new.unwrap_or(&Value::Null);
                causes.push((field, format!("Invalid value: {shown}: field is immutable")));
            }
        }
    }
    if causes.is_empty() { Ok(()) } else { Err(Refusal::invalid(kind, name, &causes)) }
}

fn is_label(text: &str, most: usize, dots: bool) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = text.as_bytes();
    bytes.len() <= most
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-' || (dots && *byte == b'.'))
}

fn check_name(kind: &Kind, name: &str, causes: &mut Causes) {
    let fits = match kind.name {
        "Service" | "Namespace" => is_label(name, 63, false),
        _ => is_label(name, 253, true),
    };
    if !fits {
        causes.push((
            "metadata.name".to_owned(),
            format!(
                "Invalid value: {name:?}: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
                 '-' or '.', and must start and end with an alphanumeric character"
            ),
        ));
    }
}

fn check_labels(path: &str, metadata: &Value, causes: &mut Causes) {
    let qualified = |text: &str| {
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = text.as_bytes();
        bytes.len() <= 63
            && edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    for (field, values) in [("labels", true), ("annotations", false)] {
        for (key, value) in metadata[field].as_object().into_iter().flatten() {
            let fits = match key.split_once('/') {
                Some((prefix, name)) => is_label(prefix, 253, true) && qualified(name),
                None => qualified(key),
            };
            if !fits {
                causes.push((
                    format!("{path}.{field}"),
                    format!(
                        "Invalid value: {key:?}: name part must consist of alphanumeric characters, '-', '_' or '.'"
                    ),
                ));
            }
            let value = value.as_str().unwrap_or_default();
            if values && !value.is_empty() && !qualified(value) {
                causes.push((format!("{path}.{field}"), format!("Invalid value: {value:?}: a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character")));
            }
        }
    }
}

fn check_strategy(strategy: &Value, causes: &mut Causes) {
    if strategy["type"] == "Recreate" && !strategy["rollingUpdate"].is_null() {
        causes.push((
            "spec.strategy.rollingUpdate".to_owned(),
            "Forbidden: may not be specified when strategy `type` is 'Recreate'".to_owned(),
        ));
    }
}

fn check_template(spec: &Value, causes: &mut Causes) {
    let (selector, labels) = (&spec["selector"]["matchLabels"], &spec["template"]["metadata"]["labels"]);
    let wanted = selector.as_object();
    if wanted.is_none_or(serde_json::Map::is_empty) && items(spec, "/selector/matchExpressions").is_empty() {
        causes.push(("spec.selector".to_owned(), "Required value".to_owned()));
    } else if wanted.into_iter().flatten().any(|(key, value)| labels.get(key) != Some(value)) {
        causes.push((
            "spec.template.metadata.labels".to_owned(),
            format!("Invalid value: {labels}: `selector` does not match template `labels`"),
        ));
    }
    check_labels("spec.template", &spec["template"]["metadata"], causes);
    check_pod("spec.template.spec", &spec["template"]["spec"], causes);
}

fn check_pod(path: &str, spec: &Value, causes: &mut Causes) {
    if items(spec, "/containers").is_empty() {
        causes.push((format!("{path}.containers"), "Required value".to_owned()));
    }
    let volumes: Vec<_> = items(spec, "/volumes").iter().map(|volume| &volume["name"]).collect();
    let mut names = Vec::new();
    for list in ["initContainers", "containers"] {
        for (n, container) in items(spec, &format!("/{list}")).iter().enumerate() {
            let at = format!("{path}.{list}[{n}]");
            let name = container["name"].as_str().unwrap_or_default();
            if !is_label(name, 63, false) {
                causes.push((format!("{at}.name"), format!("Invalid value: {name:?}: a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character")));
            }
            if names.contains(&name) {
                causes.push((format!("{at}.name"), format!("Duplicate value: {name:?}")));
            }
            names.push(name);
            let image = container["image"].as_str().unwrap_or_default();
            if image.is_empty() {
                causes.push((format!("{at}.image"), "Required value".to_owned()));
            } else if image.trim() != image {
                causes.push((
                    format!("{at}.image"),
                    format!("Invalid value: {image:?}: must not have leading or trailing whitespace"),
                ));
            }
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                let handlers = ["exec", "grpc", "httpGet", "tcpSocket"];
                if container[probe].is_object() && handlers.iter().all(|handler| container[probe][handler].is_null()) {
                    causes.push((format!("{at}.{probe}"), "Required value: must specify a handler type".to_owned()));
                }
            }
            for (n, variable) in items(container, "/env").iter().enumerate() {
                let name = variable["name"].as_str().unwrap_or_default();
                if name.is_empty() || name.contains('=') {
                    causes.push((format!("{at}.env[{n}].name"), format!("Invalid value: {name:?}: a valid environment variable name must consist only of printable ASCII characters other than '='")));
                }
            }
            for (n, mount) in items(container, "/volumeMounts").iter().enumerate() {
                if !volumes.contains(&&mount["name"]) {
                    causes.push((format!("{at}.volumeMounts[{n}].name"), format!("Not found: {}", mount["name"])));
                }
            }
        }
    }
}

fn check_secret(object: &Value, causes: &mut Causes) {
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        let fits = key.len() <= 253
            && !key.is_empty()
            && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        if !fits {
            causes.push((format!("data[{key}]"), format!("Invalid value: {key:?}: a valid config key must consist of alphanumeric characters, '-', '_' or '.'")));
        }
        if STANDARD.decode(value.as_str().unwrap_or_default()).is_err() {
            causes.push((format!("data[{key}]"), "Invalid value: illegal base64 data".to_owned()));
        }
    }
    let docker = object["type"] == "kubernetes.io/dockerconfigjson";
    if docker && object["data"].get(".dockerconfigjson").is_none() {
        causes.push(("data[.dockerconfigjson]".to_owned(), "Required value".to_owned()));
    }
}
