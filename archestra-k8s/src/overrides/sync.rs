//! Keeping the variables of an override in step with the definitions of its entry.

use super::document::{FIELD, Kind, Member, Node};
use crate::names::CONTAINER;
use archestra_core::{Error, Finding, Result, catalog::EnvVar};
use std::collections::BTreeSet;

/// The deployment YAML of an entry whose variables have changed: what it said of a variable whose definition changed or went
/// is dropped, so that the definition holds; variables of its own, comments and everything else stay as they are.
///
/// # Errors
/// [`Error::Invalid`] when the document cannot be read, or is written so that a variable cannot be taken out of it.
pub fn sync_env(yaml: &str, before: &[EnvVar], after: &[EnvVar]) -> Result<String> {
    // How a variable is described to people changes nothing about its value.
    let bare = |variable: &EnvVar| EnvVar { description: None, ..variable.clone() };
    let kept = |variable: &EnvVar| after.iter().any(|other| bare(other) == bare(variable));
    let stale: BTreeSet<&str> = before.iter().filter(|one| !kept(one)).map(|one| one.name.as_str()).collect();
    let document = Node::parse(yaml).map_err(|finding| Error::Invalid(vec![finding]))?;
    let Some((key_line, items)) = variables(&document) else { return Ok(yaml.to_owned()) };
    let named = |item: &Node| item.get("name").and_then(Node::text).is_some_and(|name| stale.contains(name));
    if !items.iter().any(named) {
        return Ok(yaml.to_owned());
    }
    let synced = cut(yaml, key_line, items, &named);
    // Whatever the style of the document: what is left must be what was there without the variables.
    let mut wanted = document.plain();
    if let Some(env) = main_env(&mut wanted) {
        env.retain(|item| item["name"].as_str().is_none_or(|name| !stale.contains(name)));
    }
    let fits = synced.as_deref().and_then(|text| Node::parse(text).ok()).is_some_and(|node| node.plain() == wanted);
    synced.filter(|_| fits).ok_or_else(|| {
        let names: Vec<_> =
            items.iter().filter(|item| named(item)).filter_map(|item| item.get("name")?.text()).collect();
        let reason = format!(
            "line {key_line}: the definition of {} changed, and what `env` says of it cannot be taken out by itself",
            names.join(", ")
        );
        Error::Invalid(vec![Finding::new(FIELD, reason, "remove it from `env`, or write `env` with one item per line")])
    })
}

/// The variables of the server's container, and the line of their key.
fn variables(document: &Node) -> Option<(u64, &[Node])> {
    let containers = document.at(&["spec", "template", "spec", "containers"])?.items();
    let container = match containers {
        [only] if document.get("kind").is_some() => only,
        all => all.iter().find(|item| item.get("name").and_then(Node::text) == Some(CONTAINER))?,
    };
    let Kind::Map(members) = &container.kind else { return None };
    let Member { line, node, .. } = members.iter().find(|one| one.key == "env")?;
    Some((*line, node.items()))
}

fn main_env(document: &mut serde_json::Value) -> Option<&mut Vec<serde_json::Value>> {
    let whole = document.get("kind").is_some();
    let containers = document.pointer_mut("/spec/template/spec/containers")?.as_array_mut()?;
    let alone = whole && containers.len() == 1;
    let container = containers.iter_mut().find(|one| alone || one["name"] == CONTAINER)?;
    container.get_mut("env")?.as_array_mut()
}

/// The text without these items of a list that is written with one item per `-`.
fn cut(yaml: &str, key_line: u64, items: &[Node], named: &dyn Fn(&Node) -> bool) -> Option<String> {
    let lines: Vec<&str> = yaml.split_inclusive('\n').collect();
    let at = |line: u64| usize::try_from(line).ok().and_then(|line| line.checked_sub(1));
    let mut gone = BTreeSet::new();
    for (n, item) in items.iter().enumerate().filter(|(_, item)| named(item)) {
        let first = at(item.line)?;
        let dash = indentation(lines.get(first)?);
        if !lines[first].trim_start().starts_with("- ") {
            return None;
        }
        let next = match items.get(n + 1) {
            Some(next) => at(next.line)?,
            None => (first + 1..lines.len())
                .find(|line| !lines[*line].trim().is_empty() && indentation(lines[*line]) <= dash)
                .unwrap_or(lines.len()),
        };
        // Comments at the end belong to what follows.
        let comments = lines[first..next].iter().rev().take_while(|line| line.trim_start().starts_with('#')).count();
        gone.extend(first..next - comments);
    }
    let mut text: String = String::with_capacity(yaml.len());
    for (n, line) in lines.iter().enumerate().filter(|(n, _)| !gone.contains(n)) {
        if items.iter().all(named) && at(key_line) == Some(n) {
            let (before, after) = line.split_once("env:")?;
            text.push_str(&format!("{before}env: []{after}"));
        } else {
            text.push_str(line);
        }
    }
    Some(text)
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use archestra_core::catalog::{FieldType, FixedValue};

    fn variable(name: &str, value: &str) -> EnvVar {
        EnvVar {
            name: name.to_owned(),
            field_type: FieldType::String,
            secret: false,
            prompt: false,
            required: false,
            value: Some(FixedValue::Plain(value.to_owned())),
            default: None,
            description: None,
            mount: false,
        }
    }

    const YAML: &str = "\
# kept
spec:
  template:
    spec:
      containers:
      - name: mcp-server
        env:
        - name: A
          value: old
        # about B
        - {name: B, value: old}
        - name: OWN   # mine
          value: x
        image: localhost/x:1
      - name: side
        env: [{name: A, value: other}]
";

    #[test]
    fn what_changed_or_went_is_dropped_and_all_else_stays() {
        let before = [variable("A", "1"), variable("B", "1")];
        let after = [variable("A", "1"), variable("B", "2")];
        let synced = sync_env(YAML, &before, &after).unwrap();
        assert_eq!(synced, YAML.replace("        - {name: B, value: old}\n", ""));
        let synced = sync_env(YAML, &before, &[]).unwrap();
        let expected = YAML.replace("        - name: A\n          value: old\n", "");
        assert_eq!(synced, expected.replace("        - {name: B, value: old}\n", ""));
        assert_eq!(sync_env(YAML, &before, &before).unwrap(), YAML);
        assert_eq!(sync_env(YAML, &[], &before).unwrap(), YAML, "what was its own stays its own");
    }

    #[test]
    fn an_empty_list_is_left_and_no_null() {
        let before = [variable("A", "1"), variable("B", "1"), variable("OWN", "1")];
        let synced = sync_env(YAML, &before, &[]).unwrap();
        assert!(synced.contains("        env: []\n"), "{synced}");
        let whole = "kind: Deployment\nspec:\n  template:\n    spec:\n      containers:\n      - env:\n        - name: A\n          value: b\n        name: own\n";
        assert!(sync_env(whole, &before, &[]).unwrap().contains("- env: []\n        name: own"));
    }

    #[test]
    fn what_cannot_be_cut_out_is_refused_with_its_line() {
        let flow = "spec:\n  template: {spec: {containers: [{name: mcp-server, env: [{name: A, value: b}]}]}}\n";
        let error = sync_env(flow, &[variable("A", "1")], &[]).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("the definition of A changed"), "{error}");
        assert!(sync_env("a: [", &[variable("A", "1")], &[]).is_err());
        assert_eq!(sync_env(flow, &[variable("X", "1")], &[]).unwrap(), flow);
    }
}
