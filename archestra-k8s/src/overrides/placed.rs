//! Where in a document the causes are that an API server names of the Deployment that came of it.

use super::{
    document::{FIELD, Node, Path, Step, finding},
    name_the_only_container,
};
use archestra_core::Finding;
use serde_json::Value;

/// What was refused of a Deployment, with the lines of the document that it was made with.
pub(crate) fn placed(text: &str, deployment: &Value, refused: Vec<Finding>) -> Vec<Finding> {
    let Ok(mut document) = Node::parse(text) else { return refused };
    if document.get("kind").is_some() {
        name_the_only_container(&mut document);
    }
    let place = |Finding { field, reason, remedy }: Finding| {
        let path = path_of(&field, deployment);
        if path.is_empty() {
            return Finding::new(FIELD, reason, remedy);
        }
        finding(document.line_of(&path), format!("{field}: {reason}"), remedy)
    };
    refused.into_iter().map(place).collect()
}

/// The path that Kubernetes writes as `spec.template.spec.containers[0].resources.limits[memory]`. Items are told apart by name,
/// since there may be more of them than the document has.
fn path_of(field: &str, deployment: &Value) -> Path {
    let mut path = Path::new();
    if !field.starts_with("spec") && !field.starts_with("metadata") {
        return path;
    }
    let (mut rest, mut there) = (field, Some(deployment));
    while !rest.is_empty() {
        let (token, tail) = match rest.strip_prefix('[') {
            Some(inside) => inside.split_once(']').unwrap_or((inside, "")),
            None => rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len())),
        };
        rest = tail.strip_prefix('.').unwrap_or(tail);
        if let (Some(Value::Array(items)), Ok(n)) = (there, token.parse::<usize>()) {
            there = items.get(n);
            path.push(Step::Item(n, there.and_then(|item| item["name"].as_str()).map(str::to_owned)));
            continue;
        }
        let template = matches!(path.as_slice(), [.., Step::Key(key)] if key == "template");
        if template && matches!(token, "labels" | "annotations") {
            // It leaves the metadata of a template out.
            path.push(Step::Key("metadata".to_owned()));
            there = there.and_then(|value| value.get("metadata"));
        }
        there = there.and_then(|value| value.get(token));
        path.push(Step::Key(token.to_owned()));
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn reasons(text: &str, deployment: &Value, fields: &[&str]) -> Vec<String> {
        let refused = fields.iter().map(|field| Finding::new(*field, "Invalid value", "change it")).collect();
        let placed = placed(text, deployment, refused);
        assert!(placed.iter().all(|one| one.field == FIELD && one.remedy == "change it"));
        placed.into_iter().map(|one| one.reason).collect()
    }

    #[test]
    fn causes_have_the_lines_of_what_they_are_about() {
        let text = "\
spec:
  template:
    metadata:
      annotations: {a: b}
    spec:
      initContainers:
      - name: prepare
        image: x:1
        volumeMounts:
        - {name: nowhere, mountPath: /x}
";
        let deployment = json!({"spec": {"template": {"metadata": {"annotations": {}}, "spec": {"initContainers": [
            {"name": "archestra-bridge"},
            {"name": "prepare", "volumeMounts": [{"name": "nowhere"}]},
        ]}}}});
        let fields = [
            "spec.template.spec.initContainers[1].volumeMounts[0].name",
            "spec.template.spec.initContainers[1].resources.limits[memory]",
            "spec.template.annotations[a]",
            "spec.replicas",
            "workload",
        ];
        let expected = [
            "line 10: spec.template.spec.initContainers[1].volumeMounts[0].name: Invalid value",
            "line 7: spec.template.spec.initContainers[1].resources.limits[memory]: Invalid value",
            "line 4: spec.template.annotations[a]: Invalid value",
            "line 1: spec.replicas: Invalid value",
            "Invalid value",
        ];
        assert_eq!(reasons(text, &deployment, &fields), expected);
    }

    #[test]
    fn the_only_container_of_a_whole_deployment_is_found_by_its_place() {
        let text =
            "kind: Deployment\nspec:\n  template:\n    spec:\n      containers:\n      - name: own\n        image: x\n";
        let deployment = json!({"spec": {"template": {"spec": {"containers": [{"name": "mcp-server"}]}}}});
        let said = reasons(text, &deployment, &["spec.template.spec.containers[0].image"]);
        assert_eq!(said, ["line 7: spec.template.spec.containers[0].image: Invalid value"]);
    }
}
