//! Keeping an override in step with the definitions of its entry: its variables, and what variables come from.

use super::document::{FIELD, Kind, Member, Node};
use crate::names::CONTAINER;
use archestra_core::{
    Error, Finding, Result,
    catalog::{EnvFrom, EnvFromKind, EnvVar, SelfHosted},
};
use serde_json::Value;
use std::collections::BTreeSet;

/// The deployment YAML of an entry that has changed: what it said of a variable whose definition changed or went, and of what
/// variables came from and come from no more, is dropped, so that the definition holds; variables of its own, comments and
/// everything else stay as they are.
///
/// # Errors
/// [`Error::Invalid`] when the document cannot be read, or is written so that something cannot be taken out of it.
pub fn sync_overrides(yaml: &str, before: &SelfHosted, after: &SelfHosted) -> Result<String> {
    let yaml = sync_env(yaml, &before.env, &after.env)?;
    sync_sources(&yaml, &before.env_from, &after.env_from)
}

fn sync_env(yaml: &str, before: &[EnvVar], after: &[EnvVar]) -> Result<String> {
    // How a variable is described to people changes nothing about its value.
    let bare = |variable: &EnvVar| EnvVar { description: None, ..variable.clone() };
    let kept = |variable: &EnvVar| after.iter().any(|other| bare(other) == bare(variable));
    let stale: BTreeSet<&str> = before.iter().filter(|one| !kept(one)).map(|one| one.name.as_str()).collect();
    let name = |item: &Value| item["name"].as_str().filter(|name| stale.contains(name)).map(str::to_owned);
    without(yaml, "env", &name)
}

fn sync_sources(yaml: &str, before: &[EnvFrom], after: &[EnvFrom]) -> Result<String> {
    let stale: Vec<_> = before.iter().filter(|one| !after.contains(one)).collect();
    let name = |item: &Value| {
        let is = |source: &&&EnvFrom| {
            let reference = match source.kind {
                EnvFromKind::Secret => "secretRef",
                EnvFromKind::ConfigMap => "configMapRef",
            };
            let prefix = item["prefix"].as_str().unwrap_or_default();
            item[reference]["name"] == source.name.as_str() && prefix == source.prefix.as_deref().unwrap_or_default()
        };
        stale.iter().find(is).map(|source| source.name.clone())
    };
    without(yaml, "envFrom", &name)
}

/// The document without the items of a list of the server's container that `stale` has a name for.
fn without(yaml: &str, list: &str, stale: &dyn Fn(&Value) -> Option<String>) -> Result<String> {
    let document = Node::parse(yaml).map_err(|finding| Error::Invalid(vec![finding]))?;
    let Some((key_line, items)) = items_of(&document, list) else { return Ok(yaml.to_owned()) };
    let named = |item: &Node| stale(&item.plain()).is_some();
    if !items.iter().any(named) {
        return Ok(yaml.to_owned());
    }
    let synced = cut(yaml, list, key_line, items, &named);
    // Whatever the style of the document: what is left must be what was there without those items.
    let mut wanted = document.plain();
    if let Some(items) = main_list(&mut wanted, list) {
        items.retain(|item| stale(item).is_none());
    }
    let fits = synced.as_deref().and_then(|text| Node::parse(text).ok()).is_some_and(|node| node.plain() == wanted);
    synced.filter(|_| fits).ok_or_else(|| {
        let names: Vec<_> = items.iter().filter_map(|item| stale(&item.plain())).collect();
        let reason = format!(
            "line {key_line}: the definition of {} changed, and what `{list}` says of it cannot be taken out by itself",
            names.join(", ")
        );
        let remedy = format!("remove it from `{list}`, or write `{list}` with one item per line");
        Error::Invalid(vec![Finding::new(FIELD, reason, remedy)])
    })
}

/// A list of the server's container, and the line of its key.
fn items_of<'a>(document: &'a Node, list: &str) -> Option<(u64, &'a [Node])> {
    let containers = document.at(&["spec", "template", "spec", "containers"])?.items();
    let container = match containers {
        [only] if document.get("kind").is_some() => only,
        all => all.iter().find(|item| item.get("name").and_then(Node::text) == Some(CONTAINER))?,
    };
    let Kind::Map(members) = &container.kind else { return None };
    let Member { line, node, .. } = members.iter().find(|one| one.key == list)?;
    Some((*line, node.items()))
}

fn main_list<'a>(document: &'a mut Value, list: &str) -> Option<&'a mut Vec<Value>> {
    let whole = document.get("kind").is_some();
    let containers = document.pointer_mut("/spec/template/spec/containers")?.as_array_mut()?;
    let alone = whole && containers.len() == 1;
    let container = containers.iter_mut().find(|one| alone || one["name"] == CONTAINER)?;
    container.get_mut(list)?.as_array_mut()
}

/// The text without these items of a list that is written with one item per `-`.
fn cut(yaml: &str, list: &str, key_line: u64, items: &[Node], named: &dyn Fn(&Node) -> bool) -> Option<String> {
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
            let (before, after) = line.split_once(&format!("{list}:"))?;
            text.push_str(&format!("{before}{list}: []{after}"));
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
mod tests;
