//! The kinds of patch besides server-side apply: JSON merge, strategic merge, and JSON patch.

use super::{
    refusal::Refusal,
    schema::{Shape, key_of, strategic},
};
use serde_json::{Map, Value};

/// RFC 7396: what is null goes, maps merge, everything else is replaced.
pub(super) fn json_merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            json_merge(target.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

/// As [`json_merge`], but lists whose items have a key merge by it, and `$patch` replaces or deletes.
pub(super) fn strategic_merge(kind: &str, parent: &str, target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    let directive = patch.get("$patch").and_then(Value::as_str);
    if directive == Some("replace") || !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else { return };
    for (name, value) in patch {
        if name.starts_with('$') {
            continue;
        }
        if value.is_null() || value.get("$patch").and_then(Value::as_str) == Some("delete") {
            fields.remove(name);
            continue;
        }
        let present = fields.entry(name.clone()).or_insert(Value::Null);
        match (strategic(kind, parent, name), value) {
            (Shape::Keyed(keys), Value::Array(items)) => merge_items(kind, name, present, items, keys),
            (Shape::Set, Value::Array(items)) => {
                let mut all = present.as_array().cloned().unwrap_or_default();
                all.extend(items.iter().filter(|item| !all.contains(item)).cloned().collect::<Vec<_>>());
                *present = all.into();
            }
            _ => strategic_merge(kind, name, present, value),
        }
    }
}

fn merge_items(kind: &str, field: &str, present: &mut Value, items: &[Value], keys: &[(&str, Option<&str>)]) {
    let mut all = present.as_array().cloned().unwrap_or_default();
    if items.iter().any(|item| item["$patch"] == "replace") {
        all.clear();
    }
    for item in items.iter().filter(|item| item["$patch"] != "replace") {
        let key = key_of(item, keys);
        let at = all.iter().position(|other| key.is_some() && key_of(other, keys) == key);
        match (at, item["$patch"] == "delete") {
            (Some(at), true) => drop(all.remove(at)),
            (None, true) => {}
            (Some(at), false) => strategic_merge(kind, field, &mut all[at], item),
            (None, false) => {
                let mut new = Value::Null;
                strategic_merge(kind, field, &mut new, item);
                all.push(new);
            }
        }
    }
    *present = all.into();
}

/// RFC 6902.
pub(super) fn json_patch(target: &mut Value, patch: &Value) -> Result<(), Refusal> {
    let Value::Array(operations) = patch else {
        return Err(Refusal::bad_request("a JSON patch is a list of operations"));
    };
    for operation in operations {
        let path = operation["path"].as_str().unwrap_or_default();
        let from = operation["from"].as_str().unwrap_or_default();
        let lacks = |path: &str| Refusal::new(422, format!("the server rejected our request: no value at {path:?}"));
        match operation["op"].as_str().unwrap_or_default() {
            "add" => insert(target, path, operation["value"].clone())?,
            "remove" => drop(take(target, path).ok_or_else(|| lacks(path))?),
            "replace" => *target.pointer_mut(path).ok_or_else(|| lacks(path))? = operation["value"].clone(),
            "copy" => {
                let value = target.pointer(from).cloned().ok_or_else(|| lacks(from))?;
                insert(target, path, value)?;
            }
            "move" => {
                let value = take(target, from).ok_or_else(|| lacks(from))?;
                insert(target, path, value)?;
            }
            "test" if target.pointer(path) == Some(&operation["value"]) => {}
            "test" => {
                return Err(Refusal::new(422, format!("the server rejected our request: testing {path:?} failed")));
            }
            other => return Err(Refusal::bad_request(format!("{other:?} is no operation of a JSON patch"))),
        }
    }
    Ok(())
}

fn place(path: &str) -> Option<(&str, String)> {
    let (parent, last) = path.rsplit_once('/')?;
    Some((parent, last.replace("~1", "/").replace("~0", "~")))
}

fn insert(target: &mut Value, path: &str, value: Value) -> Result<(), Refusal> {
    let nowhere = || Refusal::new(422, format!("the server rejected our request: {path:?} leads nowhere"));
    if path.is_empty() {
        *target = value;
        return Ok(());
    }
    let (parent, last) = place(path).ok_or_else(nowhere)?;
    match target.pointer_mut(parent) {
        Some(Value::Object(fields)) => drop(fields.insert(last, value)),
        Some(Value::Array(items)) if last == "-" => items.push(value),
        Some(Value::Array(items)) => {
            let at = last.parse().ok().filter(|at| *at <= items.len()).ok_or_else(nowhere)?;
            items.insert(at, value);
        }
        _ => return Err(nowhere()),
    }
    Ok(())
}

fn take(target: &mut Value, path: &str) -> Option<Value> {
    let (parent, last) = place(path)?;
    match target.pointer_mut(parent)? {
        Value::Object(fields) => fields.remove(&last),
        Value::Array(items) => {
            last.parse().ok().filter(|at: &usize| *at < items.len()).map(|at: usize| items.remove(at))
        }
        _ => None,
    }
}
