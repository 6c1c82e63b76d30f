//! From a document's text to its value. Where a number stands for a text, such as `1.10` as a variable's value, it is kept as it
//! was written.

use crate::unambiguous::{Fields, Reader, Unambiguous};
use serde::de::{DeserializeSeed as _, Error as _, MapAccess};
use serde_json::{Value, value::RawValue};
use serde_saphyr::Spanned;

/// Reads JSON.
pub(super) fn json(text: &str) -> serde_json::Result<Value> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Reader(Written { texts: JsonTexts, place: Place::Elsewhere }).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Reads YAML.
pub(super) fn yaml(text: &str) -> Result<Value, serde_saphyr::Error> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
        Reader(Written { texts: YamlTexts(text), place: Place::Elsewhere }).deserialize(deserializer)
    })
}

/// Where in a document a value is, as far as its meaning depends on it.
#[derive(Clone, Copy)]
enum Place {
    Elsewhere,
    /// Among fields that have a `value` and a `default`.
    Fields,
    /// Among the values that an installation is given.
    Values,
    /// Where a text is meant.
    Text,
}

impl Place {
    fn of(self, key: &str) -> Self {
        match (self, key) {
            (Self::Values, _) | (Self::Fields, "value" | "default") | (_, "password" | "clientSecret") => Self::Text,
            (_, "env" | "static" | "additionalHeaders") => Self::Fields,
            (_, "values") => Self::Values,
            _ => Self::Elsewhere,
        }
    }
}

/// Reads texts as they were written, and everything else as it is.
#[derive(Clone, Copy)]
struct Written<T> {
    texts: T,
    place: Place,
}

impl<T: Texts> Fields for Written<T> {
    fn read<'de, A: MapAccess<'de>>(self, key: &str, entries: &mut A) -> Result<Value, A::Error> {
        match self.place.of(key) {
            Place::Text => self.texts.read(entries),
            place => entries.next_value_seed(Reader(Self { place, ..self })),
        }
    }
}

/// A notation, where it is asked for a text.
trait Texts: Copy {
    /// What is next; a number as the text that it was written as.
    fn read<'de, A: MapAccess<'de>>(self, entries: &mut A) -> Result<Value, A::Error>;
}

#[derive(Clone, Copy)]
struct JsonTexts;

impl Texts for JsonTexts {
    fn read<'de, A: MapAccess<'de>>(self, entries: &mut A) -> Result<Value, A::Error> {
        let raw: Box<RawValue> = entries.next_value()?;
        if raw.get().starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
            return Ok(raw.get().into());
        }
        let read = serde_json::from_str(raw.get());
        read.map(|Unambiguous(value)| value).map_err(A::Error::custom)
    }
}

#[derive(Clone, Copy)]
struct YamlTexts<'a>(&'a str);

impl Texts for YamlTexts<'_> {
    fn read<'de, A: MapAccess<'de>>(self, entries: &mut A) -> Result<Value, A::Error> {
        let Spanned { value: Unambiguous(value), defined, .. } = entries.next_value()?;
        if !value.is_number() {
            return Ok(value);
        }
        let span = defined.span();
        let range = span.byte_offset().zip(span.byte_len()).and_then(|(start, length)| {
            let start = usize::try_from(start).ok()?;
            Some(start..start.checked_add(usize::try_from(length).ok()?)?)
        });
        let written = range.and_then(|range| self.0.get(range)).map(str::trim).filter(|text| is_number(text));
        Ok(written.map_or(value, Value::from))
    }
}

/// Whether this is a number and nothing else, such as the tag in front of one.
fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::{json, yaml};
    use serde_json::{Value, json};

    const WRITTEN: [&str; 8] =
        ["1.10", "5", "-0", "1e3", "0.1000", "12345678901234567890123", "0.30000000000000000001", "-7.50"];

    #[test]
    fn numbers_that_stand_for_texts_are_kept_as_written() {
        for number in WRITTEN {
            let document = format!("{{\"env\": [{{\"name\": \"V\", \"value\": {number}, \"default\": {number}}}]}}");
            for read in [json(&document).unwrap(), yaml(&document).unwrap()] {
                assert_eq!(read["env"][0]["value"], number, "{document}");
                assert_eq!(read["env"][0]["default"], number, "{document}");
            }
        }
        let document = "installations:\n- values: {A: 3.10, \"B\": 0755, C: 0x1F} # 1.5\n  port: 1.50\n";
        let read = yaml(document).unwrap();
        assert_eq!(
            read["installations"][0],
            json!({ "values": { "A": "3.10", "B": "0755", "C": "0x1F" }, "port": 1.5 })
        );
    }

    #[test]
    fn what_comes_by_an_alias_is_read_where_it_was_written() {
        let read = yaml("a: &version 1.10\nenv: [{value: *version}, {<<: {value: 2.20}}]\n").unwrap();
        assert_eq!((&read["env"][0]["value"], &read["a"]), (&json!("1.10"), &json!(1.1)));
        assert_eq!(read["env"][1]["value"], "2.20");
    }

    #[test]
    fn what_is_no_number_is_as_it_was() {
        let text = r#"{"env": [{"value": "1.10"}, {"value": true}, {"value": null}, {"value": {"stored": true}}, {"value": [1.10]}]}"#;
        let plain: Value = serde_json::from_str(text).unwrap();
        assert_eq!(json(text).unwrap(), plain);
        assert_eq!(yaml(text).unwrap(), plain);
        let condition = r#"{"conditions": [{"path": "/a", "operator": "equals", "value": 1.10}]}"#;
        assert_eq!(json(condition).unwrap(), serde_json::from_str::<Value>(condition).unwrap());
    }

    #[test]
    fn doubled_keys_are_refused_within_a_text_too() {
        assert!(json(r#"{"env": [{"value": {"stored": true, "stored": true}}]}"#).is_err());
        assert!(yaml("env: [{value: {stored: true, stored: true}}]").is_err());
        assert!(json(r#"{"values": {"A": 1, "A": 2}}"#).is_err());
    }
}
