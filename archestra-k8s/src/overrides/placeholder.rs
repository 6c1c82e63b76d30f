//! Placeholders of an override: `${archestra.X}`, `${env.NAME}` and `${secret.NAME}`.

use super::document::{Kind, Member, Node, finding};
use crate::{
    manifest::{Context, Variables, escape},
    names,
};
use archestra_core::{Finding, runtime::EnvValue};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const ARCHESTRA: &str = "archestra.";
const ENV: &str = "env.";
const SECRET: &str = "secret.";
const COMMAND: &str = "command";
const ARGUMENTS: &str = "arguments";

/// What placeholders stand for.
#[derive(Debug)]
pub(crate) struct Values {
    archestra: BTreeMap<&'static str, String>,
    command: Vec<String>,
    arguments: Vec<String>,
    plain: BTreeMap<String, String>,
    /// The keys of secret variables by name.
    secret: BTreeMap<String, String>,
    secret_name: String,
    variables: Variables,
}

impl Values {
    /// What they stand for in a workload.
    pub(crate) fn of(cx: &Context<'_>) -> Self {
        let spec = &cx.workload.spec;
        let object = names::object(&cx.workload.id);
        let mut plain = BTreeMap::new();
        let mut secret = BTreeMap::new();
        for variable in &spec.env {
            match &variable.value {
                EnvValue::Plain(text) => drop(plain.insert(variable.name.clone(), text.clone())),
                EnvValue::Secret(key) | EnvValue::Mounted(key) => {
                    drop(secret.insert(variable.name.clone(), key.clone()));
                }
            }
        }
        Self {
            archestra: BTreeMap::from([
                ("deployment_name", object.clone()),
                ("server_id", cx.workload.id.to_string()),
                ("server_name", spec.name.clone()),
                ("namespace", cx.namespace.to_owned()),
                ("docker_image", cx.image().to_owned()),
                ("secret_name", object.clone()),
                ("service_account", spec.service_account.clone().unwrap_or_default()),
                ("http_port", cx.http_port().to_string()),
            ]),
            command: spec.command.clone(),
            arguments: spec.args.clone(),
            plain,
            secret,
            secret_name: object,
            variables: cx.variables,
        }
    }

    /// Fills a document, and says which placeholders stand for nothing.
    pub(super) fn fill(&self, node: &mut Node) -> Vec<Finding> {
        let mut findings = Vec::new();
        self.fill_node(node, Use::Text, &mut findings);
        findings
    }

    fn fill_node(&self, node: &mut Node, usage: Use, findings: &mut Vec<Finding>) {
        let line = node.line;
        match &mut node.kind {
            Kind::Null => {}
            Kind::Scalar(Value::String(text)) => {
                if let Some(words) = self.words(text) {
                    let words = words.iter().map(|word| scalar(usage.render(word), line)).collect();
                    node.kind = Kind::List(words);
                } else {
                    match self.filled(text, usage) {
                        Ok(filled) => *text = filled,
                        Err((reason, remedy)) => findings.push(finding(Some(line), reason, remedy)),
                    }
                }
            }
            Kind::Scalar(_) => {}
            Kind::List(items) => {
                if usage == Use::Env && self.variables == Variables::Given {
                    items.retain(|item| !self.is_blank(item));
                }
                for item in &mut *items {
                    if usage == Use::Env {
                        self.fill_secret(item);
                    }
                    let of_item = if usage == Use::Env { Use::Variable } else { usage };
                    self.fill_node(item, of_item, findings);
                }
                splice(items, usage);
            }
            Kind::Map(members) => {
                for Member { key, node, .. } in members {
                    self.fill_node(node, usage.below(key), findings);
                }
            }
        }
    }

    /// The list that a text stands for which is nothing but a placeholder of one.
    fn words(&self, text: &str) -> Option<&[String]> {
        match text.trim().strip_prefix("${archestra.")?.strip_suffix('}')? {
            COMMAND => Some(&self.command),
            ARGUMENTS => Some(&self.arguments),
            _ => None,
        }
    }

    /// Whether a variable's value is a secret that was left blank: there is no such variable then.
    fn is_blank(&self, item: &Node) -> bool {
        let name = item.get("value").and_then(secret_of);
        name.is_some_and(|name| !self.secret.contains_key(name) && !self.plain.contains_key(name))
    }

    /// Makes a variable whose value is the placeholder of a secret refer to that secret.
    fn fill_secret(&self, item: &mut Node) {
        let Kind::Map(members) = &mut item.kind else { return };
        let Some(value) = members.iter_mut().find(|one| one.key == "value") else { return };
        let Some(key) = secret_of(&value.node).and_then(|name| self.secret.get(name)) else { return };
        let reference = json!({"secretKeyRef": {"name": self.secret_name, "key": key}});
        "valueFrom".clone_into(&mut value.key);
        value.node = from_value(&reference, value.line);
    }

    fn filled(&self, text: &str, usage: Use) -> Result<String, (String, String)> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            out.push_str(before);
            let Some((name, tail)) = after.split_once('}') else {
                out.push_str("${");
                rest = after;
                continue;
            };
            match self.value(name)? {
                Some(value) => {
                    out.push_str(&usage.render(&value));
                    rest = tail;
                }
                None => {
                    out.push_str("${");
                    rest = after;
                }
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    /// What a name stands for; nothing for a name that is not ours, such as a shell's variable.
    fn value(&self, name: &str) -> Result<Option<String>, (String, String)> {
        if let Some(name) = name.strip_prefix(ARCHESTRA) {
            if let Some(list) =
                [(COMMAND, &self.command), (ARGUMENTS, &self.arguments)].iter().find(|one| one.0 == name)
            {
                return Ok(Some(json!(list.1).to_string()));
            }
            return self.archestra.get(name).cloned().map(Some).ok_or_else(|| {
                let known: Vec<_> = self.archestra.keys().copied().chain([COMMAND, ARGUMENTS]).collect();
                (format!("there is no placeholder ${{archestra.{name}}}"), format!("use one of {}", known.join(", ")))
            });
        }
        if let Some(name) = name.strip_prefix(ENV) {
            if self.secret.contains_key(name) {
                return Err((
                    format!("{name} is secret, and a Deployment is read by more people than a Secret"),
                    format!("write `value: ${{secret.{name}}}` in `env`"),
                ));
            }
            return Ok(Some(self.plain.get(name).cloned().unwrap_or_default()));
        }
        if let Some(name) = name.strip_prefix(SECRET) {
            return Err(if self.secret.contains_key(name) {
                (
                    format!("${{secret.{name}}} stands where a secret would be readable"),
                    "use it as the whole `value` of a variable in `env`".to_owned(),
                )
            } else {
                (
                    format!("there is no secret variable {name}"),
                    "add it to `env` of the entry, with `secret: true`".to_owned(),
                )
            });
        }
        Ok(None)
    }
}

/// The secret that a value is nothing but the placeholder of.
fn secret_of(value: &Node) -> Option<&str> {
    value.text()?.strip_prefix("${secret.")?.strip_suffix('}').filter(|name| !name.contains('}'))
}

/// What a value is used for, as far as it decides how it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Kubernetes takes it as it is.
    Text,
    /// The list of variables.
    Env,
    /// An item of it.
    Variable,
    /// Kubernetes expands `$(NAME)` in it.
    Expanded,
}

impl Use {
    fn below(self, key: &str) -> Self {
        match (self, key) {
            (_, "env") => Self::Env,
            (Self::Variable, "value") | (_, "command" | "args") => Self::Expanded,
            _ => Self::Text,
        }
    }

    fn render(self, value: &str) -> String {
        match self {
            Self::Expanded => escape(value),
            Self::Text | Self::Env | Self::Variable => value.to_owned(),
        }
    }
}

/// `[${archestra.command}, more]` is one list.
fn splice(items: &mut Vec<Node>, usage: Use) {
    if usage != Use::Expanded || !items.iter().any(|item| matches!(item.kind, Kind::List(_))) {
        return;
    }
    *items = std::mem::take(items)
        .into_iter()
        .flat_map(|item| match item.kind {
            Kind::List(words) => words,
            Kind::Null | Kind::Scalar(_) | Kind::Map(_) => vec![item],
        })
        .collect();
}

fn scalar(text: String, line: u64) -> Node {
    Node { line, kind: Kind::Scalar(text.into()) }
}

fn from_value(value: &Value, line: u64) -> Node {
    let kind = match value {
        Value::Object(members) => Kind::Map(
            members
                .iter()
                .map(|(key, value)| Member { key: key.clone(), line, node: from_value(value, line) })
                .collect(),
        ),
        Value::Array(items) => Kind::List(items.iter().map(|item| from_value(item, line)).collect()),
        Value::Null => Kind::Null,
        Value::Bool(_) | Value::Number(_) | Value::String(_) => Kind::Scalar(value.clone()),
    };
    Node { line, kind }
}

#[cfg(test)]
mod tests;
