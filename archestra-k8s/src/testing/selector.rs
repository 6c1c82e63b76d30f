//! Label and field selectors.

use super::refusal::Refusal;
use serde_json::Value;
use std::collections::BTreeSet;

/// Which objects a list, a watch or a deletion is about.
#[derive(Debug, Clone, Default)]
pub(super) struct Selector {
    labels: Vec<(String, Wanted)>,
    fields: Vec<(String, String, bool)>,
}

#[derive(Debug, Clone)]
enum Wanted {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    Absent,
}

impl Selector {
    pub(super) fn parse(labels: &str, fields: &str) -> Result<Self, Refusal> {
        Ok(Self {
            labels: split(labels).into_iter().map(requirement).collect::<Result<_, _>>()?,
            fields: fields.split(',').filter(|part| !part.trim().is_empty()).map(field).collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        let fits = |(key, wanted): &(String, Wanted)| {
            let value = labels.get(key.as_str()).and_then(Value::as_str);
            match wanted {
                Wanted::In(values) => value.is_some_and(|value| values.contains(value)),
                Wanted::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Wanted::Exists => value.is_some(),
                Wanted::Absent => value.is_none(),
            }
        };
        self.labels.iter().all(fits)
            && self.fields.iter().all(|(path, wanted, equal)| (field_of(object, path) == *wanted) == *equal)
    }
}

fn field_of(object: &Value, path: &str) -> String {
    let value = path.split('.').fold(object, |value, name| &value[name]);
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn field(part: &str) -> Result<(String, String, bool), Refusal> {
    let (path, value, equal) = if let Some((path, value)) = part.split_once("!=") {
        (path, value, false)
    } else if let Some((path, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        (path, value, true)
    } else {
        return Err(Refusal::bad_request(format!(
            "invalid field selector: {part:?} has none of the operators =, ==, !="
        )));
    };
    Ok((path.trim().to_owned(), value.trim().to_owned(), equal))
}

/// Splits at commas that are in no parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_u32, 0);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}

fn requirement(part: &str) -> Result<(String, Wanted), Refusal> {
    let one = |value: &str| BTreeSet::from([value.trim().to_owned()]);
    if let Some((head, values)) = part.split_once('(') {
        let values = values.trim_end_matches(')').split(',').map(|value| value.trim().to_owned()).collect();
        let mut words = head.split_whitespace();
        return match (words.next(), words.next()) {
            (Some(key), Some("in")) => Ok((key.to_owned(), Wanted::In(values))),
            (Some(key), Some("notin")) => Ok((key.to_owned(), Wanted::NotIn(values))),
            _ => Err(Refusal::bad_request(format!("unable to parse requirement: {part:?}"))),
        };
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Ok((key.trim().to_owned(), Wanted::NotIn(one(value))));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Ok((key.trim().to_owned(), Wanted::In(one(value))));
    }
    match part.strip_prefix('!') {
        Some(key) => Ok((key.trim().to_owned(), Wanted::Absent)),
        None if !part.contains(char::is_whitespace) => Ok((part.to_owned(), Wanted::Exists)),
        None => Err(Refusal::bad_request(format!("unable to parse requirement: {part:?}"))),
    }
}
