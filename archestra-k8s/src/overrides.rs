//! Advanced deployment YAML: what a person changes of the generated Deployment, and what of that is refused, with its line.

mod document;
mod merge;
mod placed;
mod placeholder;
mod policy;
mod quantity;
mod resources;
mod strict;
mod sync;

pub(crate) use placed::placed;
pub(crate) use placeholder::Values;
pub use sync::sync_overrides;

use crate::{
    manifest::{Command, Context},
    names::{CONTAINER, Wiring},
    platform::{Platform, Template},
};
use archestra_core::{
    Finding,
    runtime::scheduling::{Scheduling, Toleration},
};
use document::{Kind, Node, Path, Step, dotted, finding};
use serde_json::Value;
use std::collections::BTreeSet;

/// A document that has been read, with its placeholders filled, and that a Deployment can hold.
#[derive(Debug)]
pub(crate) struct Override {
    document: Node,
    mode: Mode,
}

/// What a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// A whole Deployment, completed by what it leaves open.
    Replace,
    /// A strategic merge patch.
    Patch,
}

const POD: [&str; 3] = ["spec", "template", "spec"];

impl Override {
    /// Reads a document.
    ///
    /// # Errors
    /// What is wrong with it, by line.
    pub(crate) fn parse(text: &str, values: &Values) -> Result<Self, Vec<Finding>> {
        let mut document = Node::parse(text).map_err(|finding| vec![finding])?;
        let mode = if document.get("kind").is_some() { Mode::Replace } else { Mode::Patch };
        let mut findings = header(&document);
        findings.extend(values.fill(&mut document));
        findings.extend(match mode {
            Mode::Patch => merge::findings(&document, ""),
            Mode::Replace => directives(&document),
        });
        findings.extend(strict::findings(&document));
        if mode == Mode::Replace {
            name_the_only_container(&mut document);
        }
        if findings.is_empty() { Ok(Self { document, mode }) } else { Err(findings) }
    }

    /// What the document says of how the server is started; nothing if it does not.
    pub(crate) fn command(&self) -> Option<Command> {
        let main = |item: &&Node| item.get("name").and_then(Node::text) == Some(CONTAINER);
        let container = self.document.at(&POD)?.get("containers")?.items().iter().find(main)?;
        let command = container.get("command")?;
        Some(if command.items().is_empty() { Command::OfImage } else { Command::Known })
    }

    /// What is left of the inherited scheduling, and what the document itself says.
    pub(crate) fn scheduling(&self, inherited: &Scheduling) -> (Scheduling, Scheduling) {
        let mut inherited = inherited.clone();
        let mut own = Scheduling::default();
        let Some(pod) = self.document.at(&POD) else { return (inherited, own) };
        match pod.get("nodeSelector").map(|node| (node, &node.kind)) {
            Some((_, Kind::Null)) => inherited.node_selector = None,
            Some((node, Kind::Map(members))) => {
                if node.get(merge::DIRECTIVE).is_some_and(|directive| directive.text() != Some("merge")) {
                    inherited.node_selector = None;
                }
                if let Some(labels) = &mut inherited.node_selector {
                    let deleted =
                        |key: &String| members.iter().any(|one| one.key == *key && one.node.kind == Kind::Null);
                    labels.retain(|key, _| !deleted(key));
                }
                own.node_selector = serde_json::from_value(node.plain()).ok();
                if members.iter().any(|one| one.node.kind == Kind::Null || one.key.starts_with('$')) {
                    own.node_selector = own.node_selector.filter(|labels| !labels.is_empty());
                }
            }
            Some(_) | None => {}
        }
        if let Some(tolerations) = pod.get("tolerations") {
            let kept = tolerations.items().iter().filter(|item| item.get(merge::DIRECTIVE).is_none());
            let own_list: Vec<Toleration> = kept.filter_map(|item| serde_json::from_value(item.plain()).ok()).collect();
            own.tolerations = Some(own_list);
        }
        (inherited, own)
    }

    /// The generated Deployment as the document changes it.
    ///
    /// # Errors
    /// What does not fit together.
    pub(crate) fn apply(&self, generated: Value, platform: &Platform) -> Result<Value, Vec<Finding>> {
        let given = self.document.to_value();
        let mut merged = match self.mode {
            Mode::Patch => merge::merge(generated, given, ""),
            Mode::Replace => merge::fill(self.document.plain(), generated, ""),
        };
        if platform.template >= Template::Two {
            resources::complete(&mut merged, &self.document, platform);
        }
        let above = quantity::settle(&mut merged, &self.document.plain());
        if above.is_empty() {
            Ok(merged)
        } else {
            Err(above.into_iter().map(|one| self.finding(&one.0, one.1, one.2)).collect())
        }
    }

    /// What policy or Kubernetes refuses of the Deployment that came of it.
    pub(crate) fn findings(&self, merged: &Value, cx: &Context<'_>, wiring: Wiring) -> Vec<Finding> {
        let refusals = policy::refusals(merged, cx, wiring);
        refusals.into_iter().map(|one| self.finding(&one.path, one.reason, one.remedy)).collect()
    }

    /// Names that are there twice, where Kubernetes takes each once.
    pub(crate) fn doubled(&self, deployment: &Value) -> Vec<Finding> {
        let mut paths = Vec::new();
        doubled(deployment, "", &mut Vec::new(), &mut paths);
        let finding =
            |(path, name): (Path, String)| self.finding(&path, format!("Duplicate value: {name}"), "keep one");
        paths.into_iter().map(finding).collect()
    }

    fn finding(&self, path: &[Step], reason: impl AsRef<str>, remedy: impl Into<String>) -> Finding {
        let reason = format!("{}: {}", dotted(path), reason.as_ref());
        finding(self.document.line_of(path), reason, remedy)
    }
}

/// What is wrong with the kind and the version.
fn header(document: &Node) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (key, wanted) in [("apiVersion", "apps/v1"), ("kind", "Deployment")] {
        let Some(value) = document.get(key) else { continue };
        if value.text() != Some(wanted) {
            let path = [Step::Key(key.to_owned())];
            let given = value.to_value();
            findings.push(finding(
                document.line_of(&path),
                format!("{key}: {given} is not {wanted}"),
                format!(
                    "write `{key}: {wanted}`, or leave `apiVersion` and `kind` out to change the generated Deployment"
                ),
            ));
        }
    }
    findings
}

/// Directives in a document that is no patch.
fn directives(node: &Node) -> Vec<Finding> {
    match &node.kind {
        Kind::Null | Kind::Scalar(_) => Vec::new(),
        Kind::List(items) => items.iter().flat_map(directives).collect(),
        Kind::Map(members) => {
            let own = members.iter().filter(|one| one.key.starts_with('$')).map(|one| {
                finding(
                    Some(one.line),
                    format!("`{}` means something in a patch only", one.key),
                    "remove it, or remove `kind` so that the document is a patch",
                )
            });
            own.chain(members.iter().flat_map(|one| directives(&one.node))).collect()
        }
    }
}

/// The only container of a whole Deployment runs the server, whatever it is called.
fn name_the_only_container(document: &mut Node) {
    let containers = POD.iter().chain(&["containers"]).try_fold(document, |node, key| match &mut node.kind {
        Kind::Map(members) => members.iter_mut().find(|one| one.key == *key).map(|one| &mut one.node),
        Kind::Null | Kind::Scalar(_) | Kind::List(_) => None,
    });
    let Some(Node { kind: Kind::List(items), .. }) = containers else { return };
    let [Node { kind: Kind::Map(members), .. }] = items.as_mut_slice() else { return };
    if let Some(name) = members.iter_mut().find(|one| one.key == "name") {
        name.node.kind = Kind::Scalar(CONTAINER.into());
    }
}

fn doubled(value: &Value, field: &str, path: &mut Path, found: &mut Vec<(Path, String)>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                path.push(Step::Key(key.clone()));
                doubled(value, key, path, found);
                path.pop();
            }
        }
        Value::Array(items) => {
            let mut seen = BTreeSet::new();
            for (n, item) in items.iter().enumerate() {
                let name = item.get("name").and_then(Value::as_str).map(str::to_owned);
                path.push(Step::Item(n, name));
                if let Some(own) = merge::merge_key(field).and_then(|key| item.get(key)) {
                    // The same number may be a port of another protocol.
                    let identity =
                        if field == "ports" { format!("{own}{}", item["protocol"]) } else { own.to_string() };
                    if field != "topologySpreadConstraints" && !seen.insert(identity) {
                        found.push((path.clone(), own.to_string()));
                    }
                }
                doubled(item, "", path, found);
                path.pop();
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests;
