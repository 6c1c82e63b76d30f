//! Requests that exceed limits: settled where one of the two is only a default, refused where a person wrote both.

use super::document::{Path, Step};
use serde_json::{Value, json};

/// A place, what is wrong there, and what to do.
pub(super) type Problem = (Path, String, String);

/// Makes defaults give way to what a document says of the same resource.
pub(super) fn settle(deployment: &mut Value, document: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    for list in ["initContainers", "containers"] {
        let pointer = format!("/spec/template/spec/{list}");
        let given = document.pointer(&pointer).and_then(Value::as_array);
        let containers = deployment.pointer_mut(&pointer).and_then(Value::as_array_mut);
        for (n, container) in containers.into_iter().flatten().enumerate() {
            let name = container["name"].clone();
            let own = given.and_then(|all| all.iter().find(|one| one["name"] == name)).unwrap_or(&Value::Null);
            let below = |resource: &str| {
                let keys = ["spec", "template", "spec", list].map(|key| Step::Key(key.to_owned()));
                let item = Step::Item(n, name.as_str().map(str::to_owned));
                let rest = ["resources", "requests", resource].map(|key| Step::Key(key.to_owned()));
                keys.into_iter().chain([item]).chain(rest).collect::<Path>()
            };
            for (resource, request, limit) in above(&container["resources"]) {
                let said = |kind: &str| !own["resources"][kind][&resource].is_null();
                match (said("requests"), said("limits")) {
                    (false, _) => container["resources"]["requests"][&resource] = limit,
                    (true, false) => container["resources"]["limits"][&resource] = request,
                    (true, true) => problems.push((
                        below(&resource),
                        format!("Invalid value: {request}: must be less than or equal to {resource} limit of {limit}"),
                        "lower the request or raise the limit".to_owned(),
                    )),
                }
            }
        }
    }
    problems
}

/// The resources of which more is requested than there is allowed, with both.
fn above(resources: &Value) -> Vec<(String, Value, Value)> {
    let requests = resources["requests"].as_object();
    requests
        .into_iter()
        .flatten()
        .filter_map(|(resource, request)| {
            let limit = &resources["limits"][resource];
            (amount(request)? > amount(limit)?).then(|| (resource.clone(), text(request), text(limit)))
        })
        .collect()
}

fn text(quantity: &Value) -> Value {
    match quantity {
        Value::Number(number) => json!(number.to_string()),
        other => other.clone(),
    }
}

/// What a quantity comes to, nearly enough to compare.
pub(crate) fn amount(quantity: &Value) -> Option<f64> {
    let text = match quantity {
        Value::String(text) => text.as_str(),
        Value::Number(number) => return number.as_f64(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    let end = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let exponent =
        |text: &str| text.parse::<i32>().ok().filter(|power| power.abs() <= 100).map(|power| 10f64.powi(power));
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        other => exponent(other.strip_prefix(['e', 'E'])?)?,
    };
    Some(number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_compare_as_kubernetes_compares_them() {
        let of = |text: &str| amount(&json!(text)).unwrap();
        assert!(of("128Mi") < of("512Mi") && of("1Gi") > of("1G") && of("500m") < of("1"));
        assert_eq!((of("0.1"), of("1e3"), of("12E2")), (of("100m"), 1000.0, 1200.0));
        for bad in ["", "x", "1x", "1e", "--1", "1e999999"] {
            assert_eq!(amount(&json!(bad)), None, "{bad}");
        }
    }

    #[test]
    fn a_default_gives_way_and_a_contradiction_is_named() {
        let deployment = |requests: Value, limits: Value| {
            json!({"spec": {"template": {"spec": {"containers": [
                {"name": "a", "resources": {"requests": requests, "limits": limits}},
            ]}}}})
        };
        let mut merged = deployment(json!({"memory": "128Mi"}), json!({"memory": "64Mi"}));
        let document = deployment(json!({}), json!({"memory": "64Mi"}));
        assert!(settle(&mut merged, &document).is_empty());
        assert_eq!(merged, deployment(json!({"memory": "64Mi"}), json!({"memory": "64Mi"})));

        let mut merged = deployment(json!({"memory": "1Gi"}), json!({"memory": "512Mi"}));
        let document = deployment(json!({"memory": "1Gi"}), json!({}));
        assert!(settle(&mut merged, &document).is_empty());
        assert_eq!(merged, deployment(json!({"memory": "1Gi"}), json!({"memory": "1Gi"})));

        let both = deployment(json!({"cpu": 2}), json!({"cpu": "500m"}));
        let problems = settle(&mut both.clone(), &both);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].1.contains("must be less than or equal to cpu limit"), "{problems:?}");
    }
}
