//! What a document says that a Deployment does not know: keys that would be lost, and values of another type.

use super::document::{Node, Path, Step, dotted, finding};
use archestra_core::Finding;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::Value;
use serde_path_to_error::Segment;

/// Every key that no Deployment has, or the first value that it cannot hold.
pub(super) fn findings(document: &Node) -> Vec<Finding> {
    let mut given = document.plain();
    // The kind has been looked at before, and a patch has none.
    given["apiVersion"] = "apps/v1".into();
    given["kind"] = "Deployment".into();
    let deployment: Deployment = match serde_path_to_error::deserialize(&given) {
        Ok(deployment) => deployment,
        Err(error) => {
            let path: Path = error.path().iter().filter_map(step).collect();
            let reason = format!("{}: {}", dotted(&path), error.inner());
            return vec![finding(
                document.line_of(&path),
                reason,
                "correct the value; text that looks like something else needs quotes",
            )];
        }
    };
    let kept = serde_json::to_value(&deployment).expect("a Deployment is always JSON");
    let mut lost = Vec::new();
    compare(&given, &kept, &mut Vec::new(), &mut lost);
    lost.into_iter()
        .map(|path| {
            let reason = format!("{}: unknown field", dotted(&path));
            finding(document.line_of(&path), reason, "correct its name or its indentation, or remove it")
        })
        .collect()
}

fn step(segment: &Segment) -> Option<Step> {
    match segment {
        Segment::Seq { index } => Some(Step::Item(*index, None)),
        Segment::Map { key } => Some(Step::Key(key.clone())),
        Segment::Enum { .. } | Segment::Unknown => None,
    }
}

fn compare(given: &Value, kept: &Value, path: &mut Path, lost: &mut Vec<Path>) {
    match (given, kept) {
        (Value::Object(given), Value::Object(kept)) => {
            for (key, value) in given {
                path.push(Step::Key(key.clone()));
                match kept.get(key) {
                    Some(kept) => compare(value, kept, path, lost),
                    None => lost.push(path.clone()),
                }
                path.pop();
            }
        }
        (Value::Array(given), Value::Array(kept)) => {
            for (n, (value, kept)) in given.iter().zip(kept).enumerate() {
                path.push(Step::Item(n, None));
                compare(value, kept, path, lost);
                path.pop();
            }
        }
        _ => {}
    }
}
