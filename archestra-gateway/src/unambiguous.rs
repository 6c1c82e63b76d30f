//! JSON as every reader understands it: an object that names a key twice is refused, since readers would disagree about it.

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed},
};
use serde_json::{Map, Value};
use std::fmt;

/// A JSON value in which no object names a key twice.
#[derive(Debug)]
pub(crate) struct Unambiguous(pub(crate) Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Reader(Plain).deserialize(deserializer).map(Self)
    }
}

/// How the value of a key is read.
pub(crate) trait Fields: Copy {
    /// Reads what is next, which belongs to `key`.
    fn read<'de, A: de::MapAccess<'de>>(self, key: &str, entries: &mut A) -> Result<Value, A::Error>;
}

/// All values are read alike.
#[derive(Clone, Copy)]
struct Plain;

impl Fields for Plain {
    fn read<'de, A: de::MapAccess<'de>>(self, _: &str, entries: &mut A) -> Result<Value, A::Error> {
        entries.next_value_seed(Reader(self))
    }
}

/// Reads a value in which no object names a key twice.
pub(crate) struct Reader<F>(pub(crate) F);

impl<'de, F: Fields> DeserializeSeed<'de> for Reader<F> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F: Fields> de::Visitor<'de> for Reader<F> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        serde_json::Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number must be finite"))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element_seed(Self(self.0))? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(de::Error::custom(format!("the key {key:?} is there twice")));
            }
            let value = self.0.read(&key, &mut entries)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::Unambiguous;
    use serde_json::{Value, json};

    fn unambiguous(text: &str) -> serde_json::Result<Value> {
        serde_json::from_str::<Unambiguous>(text).map(|Unambiguous(value)| value)
    }

    #[test]
    fn what_is_said_once_is_read_as_it_is() {
        let text = r#"{"a":[1,-2,3.5,null,true,{"b":"c"}],"d":18446744073709551615}"#;
        assert_eq!(unambiguous(text).unwrap(), serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(unambiguous("7").unwrap(), json!(7));
    }

    #[test]
    fn a_key_that_is_there_twice_is_refused_at_any_depth_and_in_any_spelling() {
        for text in [r#"{"a":1,"a":2}"#, r#"{"x":[{"a":1,"b":2,"a":1}]}"#, r#"{"a":1,"\u0061":2}"#] {
            assert!(unambiguous(text).is_err(), "{text}");
        }
    }
}
