//! Who owns which fields of an object, and server-side apply.

use super::{
    kinds::Kind,
    refusal::Refusal,
    schema::{Shape, key_of, shape},
};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// A step from a value into it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Field(String),
    /// The item of a list with this key.
    Key(String),
    /// This value of a set.
    Item(String),
}

type Path = Vec<Step>;

/// What one manager owns.
#[derive(Debug, Clone, PartialEq)]
struct Manager {
    name: String,
    applies: bool,
    subresource: String,
    time: String,
    fields: BTreeSet<Path>,
}

/// Who owns what of one object.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Managers(Vec<Manager>);

/// Who writes, when, and through which subresource.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    pub(super) name: String,
    pub(super) subresource: String,
    pub(super) time: String,
}

/// Fields that nobody owns, since the API server itself keeps them.
const UNOWNED: &[&str] = &[
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "generateName",
    "selfLink",
];

impl Managers {
    /// Those that a written object says there are. Where it says nothing about them, they are what they were.
    pub(super) fn given(self, object: &Value) -> Self {
        let given = object.pointer("/metadata/managedFields").and_then(Value::as_array);
        let Some(entries) = given.filter(|entries| !entries.is_empty()) else { return self };
        let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        // An entry without a name is how whoever wants none of them says so.
        let named = entries.iter().filter(|entry| !text(entry, "manager").is_empty());
        let managers = named.map(|entry| {
            let mut fields = BTreeSet::new();
            paths_in(&entry["fieldsV1"], &mut Vec::new(), &mut fields);
            let given = Manager {
                name: text(entry, "manager"),
                applies: entry["operation"] == "Apply",
                subresource: text(entry, "subresource"),
                time: text(entry, "time"),
                fields,
            };
            // A time may be written in more than one way.
            let same = |known: &&Manager| Manager { time: given.time.clone(), ..(*known).clone() } == given;
            self.0.iter().find(same).cloned().unwrap_or(given)
        });
        Self(managers.collect())
    }

    /// Notes that somebody wrote an object without applying it: what has changed is theirs now.
    pub(super) fn wrote(&mut self, kind: &Kind, before: &Value, after: &Value, writer: &Writer) {
        let (old, new) = (paths_of(kind, before), paths_of(kind, after));
        let changed: BTreeSet<Path> = new
            .iter()
            .filter(|path| !old.contains(*path) || find(kind, before, path) != find(kind, after, path))
            .cloned()
            .collect();
        for manager in &mut self.0 {
            manager.fields.retain(|path| new.contains(path) && (!changed.contains(path) || is_member(path)));
        }
        self.add(writer, false, changed, false);
        self.0.retain(|manager| !manager.fields.is_empty());
    }

    fn add(&mut self, writer: &Writer, applies: bool, fields: BTreeSet<Path>, replace: bool) {
        let same = |manager: &&mut Manager| {
            manager.name == writer.name && manager.applies == applies && manager.subresource == writer.subresource
        };
        match self.0.iter_mut().find(same) {
            Some(manager) => {
                let before = manager.fields.clone();
                if replace {
                    manager.fields = fields;
                } else {
                    manager.fields.extend(fields);
                }
                if manager.fields != before {
                    manager.time.clone_from(&writer.time);
                }
            }
            None => self.0.push(Manager {
                name: writer.name.clone(),
                applies,
                subresource: writer.subresource.clone(),
                time: writer.time.clone(),
                fields,
            }),
        }
    }

    /// What an object becomes when somebody applies a configuration to it.
    pub(super) fn apply(
        &mut self,
        kind: &Kind,
        live: &Value,
        applied: &Value,
        writer: &Writer,
        force: bool,
    ) -> Result<Value, Refusal> {
        let wanted = paths_of(kind, applied);
        let mut conflicts = Vec::new();
        let is_me = |manager: &Manager| {
            manager.name == writer.name && manager.applies && manager.subresource == writer.subresource
        };
        for path in wanted.iter().filter(|path| !is_member(path)) {
            if find(kind, live, path) == find(kind, applied, path) {
                continue;
            }
            for manager in self.0.iter_mut().filter(|manager| !is_me(manager)) {
                if manager.fields.contains(path) {
                    if force {
                        manager.fields.remove(path);
                    } else {
                        conflicts.push((manager.name.clone(), text_of(path)));
                    }
                }
            }
        }
        if !conflicts.is_empty() {
            let name = applied["metadata"]["name"].as_str().unwrap_or_default();
            return Err(Refusal::owned(kind, name, &conflicts));
        }
        let mut merged = live.clone();
        merge(kind.name, "", &mut merged, applied);
        let owned =
            self.0.iter().find(|manager| is_me(manager)).map(|manager| manager.fields.clone()).unwrap_or_default();
        let others: Vec<&Path> =
            self.0.iter().filter(|manager| !is_me(manager)).flat_map(|manager| &manager.fields).collect();
        let mut dropped: Vec<&Path> = owned.difference(&wanted).collect();
        // A whole item goes before its fields, while its key is still there to find it by.
        dropped.sort_by_key(|path| path.len());
        for path in dropped {
            let held = others.iter().any(|other| other.starts_with(path))
                || wanted.iter().any(|other| other.starts_with(path));
            if !held {
                remove(kind, &mut merged, path);
            }
        }
        self.add(writer, true, wanted, true);
        self.0.retain(|manager| !manager.fields.is_empty() || is_me(manager));
        Ok(merged)
    }

    /// The `metadata.managedFields` of it.
    pub(super) fn render(&self, kind: &Kind) -> Value {
        let entries = self.0.iter().map(|manager| {
            let mut entry = json!({
                "manager": manager.name,
                "operation": if manager.applies { "Apply" } else { "Update" },
                "apiVersion": kind.api_version(),
                "time": manager.time,
                "fieldsType": "FieldsV1",
                "fieldsV1": fields_v1(&manager.fields),
            });
            if !manager.subresource.is_empty() {
                entry["subresource"] = manager.subresource.clone().into();
            }
            entry
        });
        entries.collect()
    }
}

fn is_member(path: &Path) -> bool {
    matches!(path.last(), Some(Step::Key(_)))
}

fn text_of(path: &Path) -> String {
    let steps = path.iter().map(|step| match step {
        Step::Field(name) => format!(".{name}"),
        Step::Key(key) => {
            let key: Map<String, Value> = serde_json::from_str(key).unwrap_or_default();
            let parts: Vec<_> = key.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("[{}]", parts.join(","))
        }
        Step::Item(item) => format!("[={item}]"),
    });
    steps.collect()
}

fn fields_v1(fields: &BTreeSet<Path>) -> Value {
    let mut root = Value::Object(Map::new());
    for path in fields {
        let mut place = &mut root;
        for step in path {
            let name = match step {
                Step::Field(name) => format!("f:{name}"),
                Step::Key(key) => format!("k:{key}"),
                Step::Item(item) => format!("v:{item}"),
            };
            place = &mut place[name];
            if place.is_null() {
                *place = Value::Object(Map::new());
            }
        }
        if is_member(path) {
            place["."] = Value::Object(Map::new());
        }
    }
    root
}

/// The paths that `fieldsV1` says.
fn paths_in(fields: &Value, path: &mut Path, paths: &mut BTreeSet<Path>) {
    let Value::Object(fields) = fields else { return };
    if fields.is_empty() || (is_member(path) && fields.contains_key(".")) {
        paths.insert(path.clone());
    }
    for (name, below) in fields {
        let step = match name.split_once(':') {
            Some(("f", name)) => Step::Field(name.to_owned()),
            Some(("k", key)) => Step::Key(key.to_owned()),
            Some(("v", item)) => Step::Item(item.to_owned()),
            _ => continue,
        };
        path.push(step);
        paths_in(below, path, paths);
        path.pop();
    }
}

/// The paths of everything in an object that can be owned.
fn paths_of(kind: &Kind, object: &Value) -> BTreeSet<Path> {
    let mut paths = BTreeSet::new();
    let Value::Object(fields) = object else { return paths };
    for (name, value) in fields {
        if matches!(name.as_str(), "apiVersion" | "kind") {
            continue;
        }
        let mut path = vec![Step::Field(name.clone())];
        if name == "metadata" {
            let Value::Object(metadata) = value else { continue };
            for (name, value) in metadata.iter().filter(|(name, _)| !UNOWNED.contains(&name.as_str())) {
                path.push(Step::Field(name.clone()));
                collect(kind.name, name, shape(kind.name, "metadata", name), value, &mut path, &mut paths);
                path.pop();
            }
        } else {
            collect(kind.name, name, shape(kind.name, "", name), value, &mut path, &mut paths);
        }
    }
    paths
}

fn collect(kind: &str, field: &str, form: Shape, value: &Value, path: &mut Path, paths: &mut BTreeSet<Path>) {
    match (form, value) {
        (_, Value::Null) => {}
        (Shape::Granular, Value::Object(fields)) if !fields.is_empty() => {
            for (name, value) in fields {
                path.push(Step::Field(name.clone()));
                collect(kind, name, shape(kind, field, name), value, path, paths);
                path.pop();
            }
        }
        (Shape::Keyed(keys), Value::Array(items)) if !items.is_empty() => {
            for item in items {
                let Some(key) = key_of(item, keys) else { continue };
                path.push(Step::Key(key));
                paths.insert(path.clone());
                collect(kind, field, Shape::Granular, item, path, paths);
                path.pop();
            }
        }
        (Shape::Set, Value::Array(items)) => {
            for item in items {
                path.push(Step::Item(item.to_string()));
                paths.insert(path.clone());
                path.pop();
            }
        }
        _ => drop(paths.insert(path.clone())),
    }
}

fn keys_at(kind: &Kind, path: &[Step]) -> &'static [(&'static str, Option<&'static str>)] {
    let mut names = path.iter().rev().filter_map(|step| match step {
        Step::Field(name) => Some(name.as_str()),
        Step::Key(_) | Step::Item(_) => None,
    });
    let (field, parent) = (names.next().unwrap_or_default(), names.next().unwrap_or_default());
    match shape(kind.name, parent, field) {
        Shape::Keyed(keys) => keys,
        Shape::Atomic | Shape::Granular | Shape::Set => &[],
    }
}

/// The value at a path.
fn find<'a>(kind: &Kind, object: &'a Value, path: &[Step]) -> Option<&'a Value> {
    let mut value = object;
    for (at, step) in path.iter().enumerate() {
        value = match step {
            Step::Field(name) => value.get(name)?,
            Step::Key(key) => {
                let keys = keys_at(kind, &path[..at]);
                value.as_array()?.iter().find(|item| key_of(item, keys).as_deref() == Some(key))?
            }
            Step::Item(text) => value.as_array()?.iter().find(|item| is_item(item, text))?,
        };
    }
    Some(value)
}

/// Takes the value at a path away, and whatever is empty without it.
fn remove(kind: &Kind, object: &mut Value, path: &[Step]) {
    fn inner(kind: &Kind, value: &mut Value, path: &[Step], at: usize) {
        let last = at + 1 == path.len();
        match (&path[at], value) {
            (Step::Field(name), Value::Object(fields)) => {
                if last {
                    fields.remove(name);
                } else if let Some(child) = fields.get_mut(name) {
                    inner(kind, child, path, at + 1);
                    if is_bare(child) {
                        fields.remove(name);
                    }
                }
            }
            (Step::Key(key), Value::Array(items)) => {
                let keys = keys_at(kind, &path[..at]);
                let Some(found) = items.iter().position(|item| key_of(item, keys).as_deref() == Some(key)) else {
                    return;
                };
                if last {
                    items.remove(found);
                } else {
                    inner(kind, &mut items[found], path, at + 1);
                }
            }
            (Step::Item(text), Value::Array(items)) => items.retain(|item| !is_item(item, text)),
            _ => {}
        }
    }
    if !path.is_empty() {
        inner(kind, object, path, 0);
    }
}

/// Whether a value of a set is this one.
fn is_item(item: &Value, text: &str) -> bool {
    let shown = item.to_string();
    shown == text
}

fn is_bare(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Puts what is applied over what is there.
fn merge(kind: &str, parent: &str, live: &mut Value, applied: &Value) {
    let Value::Object(fields) = applied else {
        *live = applied.clone();
        return;
    };
    if !live.is_object() {
        *live = Value::Object(Map::new());
    }
    let Value::Object(present) = live else { return };
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        let target = present.entry(name.clone()).or_insert(Value::Null);
        match (shape(kind, parent, name), value) {
            (Shape::Atomic, _) => *target = value.clone(),
            (Shape::Keyed(keys), Value::Array(items)) => merge_items(kind, name, target, items, keys),
            (Shape::Set, Value::Array(items)) => {
                let mut all = target.as_array().cloned().unwrap_or_default();
                all.extend(items.iter().filter(|item| !all.contains(item)).cloned().collect::<Vec<_>>());
                *target = all.into();
            }
            _ => merge(kind, name, target, value),
        }
    }
}

/// Merges by key. The order is that of what is applied; what is only there keeps its place behind it.
fn merge_items(kind: &str, field: &str, live: &mut Value, applied: &[Value], keys: &[(&str, Option<&str>)]) {
    let mut rest = live.as_array().cloned().unwrap_or_default();
    let mut all = Vec::new();
    for item in applied {
        let key = key_of(item, keys);
        let found = rest.iter().position(|other| key.is_some() && key_of(other, keys) == key);
        let mut merged = found.map_or(Value::Null, |at| rest.remove(at));
        merge(kind, field, &mut merged, item);
        all.push(merged);
    }
    all.extend(rest);
    *live = all.into();
}
