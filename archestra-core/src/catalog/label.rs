//! Labels: `key: value` pairs that organize the catalog and select what a consumer in automatic mode is given.

use crate::{Finding, Validate};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeMap};
use std::collections::{BTreeMap, BTreeSet};

const MAX_LEN: usize = 128;

/// Pairs of key and value. A key may have several values; in JSON and YAML a value is a string or a list of strings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Labels(BTreeMap<String, BTreeSet<String>>);

impl Labels {
    /// No labels.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a pair.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.0.entry(key.into()).or_default().insert(value.into());
    }

    /// All pairs, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|(key, values)| values.iter().map(move |value| (key.as_str(), value.as_str())))
    }

    /// Whether this very pair is among them.
    #[must_use]
    pub fn contains(&self, key: &str, value: &str) -> bool {
        self.0.get(key).is_some_and(|values| values.contains(value))
    }

    /// Whether at least one pair of key and value is in both.
    #[must_use]
    pub fn intersects(&self, other: &Self) -> bool {
        let (few, many) = if self.0.len() <= other.0.len() { (self, other) } else { (other, self) };
        few.0.iter().any(|(key, values)| many.0.get(key).is_some_and(|others| !values.is_disjoint(others)))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(iter: I) -> Self {
        let mut labels = Self::new();
        for (key, value) in iter {
            labels.insert(key, value);
        }
        labels
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, values) in &self.0 {
            match values.first() {
                Some(only) if values.len() == 1 => map.serialize_entry(key, only)?,
                _ => map.serialize_entry(key, values)?,
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a text or a list of texts (put numbers in quotes)")]
        enum Value {
            One(String),
            Many(BTreeSet<String>),
        }
        let mut labels = BTreeMap::new();
        for (key, value) in BTreeMap::<String, Value>::deserialize(deserializer)? {
            let values = match value {
                Value::One(value) => BTreeSet::from([value]),
                Value::Many(values) => values,
            };
            if values.is_empty() {
                return Err(de::Error::custom(format_args!("label {key:?} has no value: give it one, or remove it")));
            }
            labels.insert(key, values);
        }
        Ok(Self(labels))
    }
}

impl Validate for Labels {
    fn findings(&self) -> Vec<Finding> {
        let bad = |text: &str| text.trim().is_empty() || text.len() > MAX_LEN || text.chars().any(char::is_control);
        let mut findings = Vec::new();
        for (key, value) in self.iter() {
            if bad(key) || bad(value) {
                findings.push(Finding::new(
                    key,
                    "a label needs a key and a value of 1 to 128 printable bytes",
                    "shorten it, or remove the label",
                ));
            }
        }
        findings
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for Labels {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        BTreeMap::<String, Vec<String>>::schema()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for Labels {}

#[cfg(test)]
mod tests;
