//! A YAML document as a tree whose keys and values know their lines.

use archestra_core::Finding;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;
use std::fmt;

/// The field that all findings about a document are about.
pub(super) const FIELD: &str = "selfHosted.deploymentYaml";

/// The longest document. A Deployment that Kubernetes keeps is not much longer.
const MAX_BYTES: usize = 256 * 1024;

/// A value and where it is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) line: u64,
    pub(super) kind: Kind,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Null,
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<Member>),
}

/// A key with its value, and where the key is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Member {
    pub(super) key: String,
    pub(super) line: u64,
    pub(super) node: Node,
}

/// One step down.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// To the value of a key.
    Key(String),
    /// To an item: by what its `name` is, or else by its place.
    Item(usize, Option<String>),
}

/// From the root to a value.
pub(super) type Path = Vec<Step>;

/// A path as people write it: `spec.template.spec.containers[0].image`.
pub(super) fn dotted(path: &[Step]) -> String {
    path.iter().fold(String::new(), |mut text, step| {
        match step {
            Step::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(key);
            }
            Step::Item(n, _) => text.push_str(&format!("[{n}]")),
        }
        text
    })
}

/// A finding about a line.
pub(super) fn finding(line: Option<u64>, reason: impl fmt::Display, remedy: impl Into<String>) -> Finding {
    let reason = match line {
        Some(line) if line > 0 => format!("line {line}: {reason}"),
        Some(_) | None => reason.to_string(),
    };
    Finding::new(FIELD, reason, remedy)
}

impl Node {
    /// Reads a document.
    pub(super) fn parse(text: &str) -> Result<Self, Finding> {
        if text.len() > MAX_BYTES {
            return Err(finding(
                None,
                format!("Too long: must have at most {MAX_BYTES} bytes, and has {}", text.len()),
                "keep only what differs from the generated Deployment",
            ));
        }
        let options = serde_saphyr::options! { with_snippet: false };
        let raw: Spanned<Raw> = serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| finding(None, format!("not YAML: {error}"), "correct the line that it names"))?;
        let node = Self::of(raw, text, Place::Anywhere);
        match node.kind {
            Kind::Map(_) => Ok(node),
            Kind::Null | Kind::Scalar(_) | Kind::List(_) => Err(finding(
                Some(node.line),
                "not a mapping of keys to values",
                "write a Deployment, or the part of one that differs: `spec: {template: …}`",
            )),
        }
    }

    fn of(raw: Spanned<Raw>, text: &str, place: Place) -> Self {
        let line = raw.referenced.line();
        let verbatim = |value: Value| match place {
            // What an environment holds is text, and `1.10` is not 1.1.
            Place::Value => {
                raw.defined.span().byte_offset().zip(raw.defined.span().byte_len()).map_or(value, |(at, len)| {
                    let (at, len) =
                        (usize::try_from(at).unwrap_or(usize::MAX), usize::try_from(len).unwrap_or(usize::MAX));
                    at.checked_add(len).and_then(|end| text.get(at..end)).map_or(Value::Null, Value::from)
                })
            }
            Place::Anywhere | Place::Env | Place::Variable => value,
        };
        let kind = match raw.value {
            Raw::Null => Kind::Null,
            Raw::Bool(value) => Kind::Scalar(verbatim(value.into())),
            Raw::Number(value) => Kind::Scalar(verbatim(value.into())),
            Raw::Text(value) => Kind::Scalar(value.into()),
            Raw::List(items) => {
                let place = if place == Place::Env { Place::Variable } else { Place::Anywhere };
                Kind::List(items.into_iter().map(|item| Self::of(item, text, place)).collect())
            }
            Raw::Map(members) => Kind::Map(
                members
                    .into_iter()
                    .map(|(key, value)| Member {
                        line: key.referenced.line(),
                        node: Self::of(value, text, place.below(&key.value)),
                        key: key.value,
                    })
                    .collect(),
            ),
        };
        Self { line, kind }
    }

    /// As JSON, with nulls and directives.
    pub(super) fn to_value(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Scalar(value) => value.clone(),
            Kind::List(items) => items.iter().map(Self::to_value).collect(),
            Kind::Map(members) => {
                Value::Object(members.iter().map(|one| (one.key.clone(), one.node.to_value())).collect())
            }
        }
    }

    /// As JSON, without nulls and directives, and with every item where it was.
    pub(super) fn plain(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Scalar(value) => value.clone(),
            Kind::List(items) => items.iter().map(Self::plain).collect(),
            Kind::Map(members) => Value::Object(
                members
                    .iter()
                    .filter(|one| !matches!(one.node.kind, Kind::Null) && !one.key.starts_with('$'))
                    .map(|one| (one.key.clone(), one.node.plain()))
                    .collect::<Map<_, _>>(),
            ),
        }
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match &self.kind {
            Kind::Map(members) => members.iter().find(|one| one.key == key).map(|one| &one.node),
            Kind::Null | Kind::Scalar(_) | Kind::List(_) => None,
        }
    }

    /// The value at the end of these keys.
    pub(super) fn at(&self, keys: &[&str]) -> Option<&Self> {
        keys.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The items, if this is a list.
    pub(super) fn items(&self) -> &[Self] {
        match &self.kind {
            Kind::List(items) => items,
            Kind::Null | Kind::Scalar(_) | Kind::Map(_) => &[],
        }
    }

    /// The text, if this is one.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar(Value::String(text)) => Some(text),
            Kind::Null | Kind::Scalar(_) | Kind::List(_) | Kind::Map(_) => None,
        }
    }

    /// The line of what a path leads to, or of the last step that is here.
    pub(super) fn line_of(&self, path: &[Step]) -> Option<u64> {
        let mut node = self;
        let mut line = None;
        for step in path {
            let next = match (step, &node.kind) {
                (Step::Key(key), Kind::Map(members)) => {
                    members.iter().find(|one| one.key == *key).map(|one| (one.line, &one.node))
                }
                (Step::Item(n, name), Kind::List(items)) => {
                    let named =
                        |item: &&Self| name.is_some() && item.get("name").and_then(Self::text) == name.as_deref();
                    let found = match name {
                        Some(_) => items.iter().find(named),
                        None => items.get(*n),
                    };
                    found.map(|item| (item.line, item))
                }
                (Step::Key(_) | Step::Item(..), _) => None,
            };
            let Some((at, below)) = next else { break };
            (line, node) = (Some(at), below);
        }
        line
    }
}

/// Where a value stands, as far as it decides how scalars are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Anywhere,
    /// Under `env`.
    Env,
    /// An item of `env`.
    Variable,
    /// The `value` of an item of `env`.
    Value,
}

impl Place {
    fn below(self, key: &str) -> Self {
        match (self, key) {
            (Self::Variable, "value") => Self::Value,
            (_, "env") => Self::Env,
            _ => Self::Anywhere,
        }
    }
}

enum Raw {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<String>, Spanned<Self>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Raw, E> {
        // YAML reads `1e3` and `08` as fractions, though they are none.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "whole, and in the range where every whole number has a float"
        )]
        let number = if value.fract() == 0.0 && value.abs() < 9e15 {
            Some((value as i64).into())
        } else {
            Number::from_f64(value)
        };
        number.map(Raw::Number).ok_or_else(|| E::custom("a number that is none"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut members: Vec<(Spanned<String>, Spanned<Raw>)> = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            if members.iter().any(|(other, _)| other.value == key.value) {
                return Err(A::Error::custom(format!("duplicate mapping key: {}", key.value)));
            }
            members.push((key, map.next_value()?));
        }
        Ok(Raw::Map(members))
    }
}

#[cfg(test)]
mod tests;
