//! Finds the `x-mcp-header` annotations of a tool's input schema, and refuses the misplaced ones.

use http::HeaderName;
use serde_json::{Map, Value};

use super::super::version::header;

const ANNOTATION: &str = "x-mcp-header";

/// Why a tool cannot be offered: the message names the property and the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnnotationError {
    /// The schema is not JSON, or not an object.
    #[error("the input schema is not a JSON object")]
    Schema,
    /// The annotation is not on a property that `properties` alone lead to.
    #[error("`x-mcp-header` stands where it cannot be reached through `properties` alone")]
    Unreachable,
    /// The annotation is no header name.
    #[error("`x-mcp-header` of `{property}` must be a non-empty HTTP token")]
    Token {
        /// The property's path.
        property: String,
    },
    /// Two annotations have the same name.
    #[error("`x-mcp-header` of `{property}` is used more than once, ignoring case")]
    Duplicate {
        /// The property's path.
        property: String,
    },
    /// The property's type cannot travel in a header.
    #[error("`x-mcp-header` of `{property}` needs the type string, integer or boolean")]
    Type {
        /// The property's path.
        property: String,
    },
}

/// One annotated property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Annotated {
    /// The whole header name.
    pub(super) header: HeaderName,
    /// How it is written in messages.
    pub(super) shown: String,
    /// The keys that lead to the value in `arguments`.
    pub(super) path: Vec<String>,
}

/// All annotations of a schema, given as JSON text.
pub(super) fn annotations(schema: &str) -> Result<Vec<Annotated>, AnnotationError> {
    // Nearly every schema has none; an escape may hide the word, so those are read in full.
    if !schema.contains(ANNOTATION) && !schema.contains("\\u") {
        return Ok(Vec::new());
    }
    let schema: Map<String, Value> = serde_json::from_str(schema).map_err(|_| AnnotationError::Schema)?;
    if schema.contains_key(ANNOTATION) {
        return Err(AnnotationError::Unreachable);
    }
    let mut found = Vec::new();
    on_chain(&schema, &mut Vec::new(), &mut found)?;
    Ok(found)
}

/// Walks a schema that is the root, or that `properties` alone lead to.
fn on_chain(
    schema: &Map<String, Value>,
    path: &mut Vec<String>,
    found: &mut Vec<Annotated>,
) -> Result<(), AnnotationError> {
    for (keyword, value) in schema {
        match (keyword.as_str(), value) {
            (ANNOTATION, annotation) => found.push(annotated(schema, annotation, path, found)?),
            ("properties", Value::Object(properties)) => {
                for (name, property) in properties {
                    let Value::Object(property) = property else { continue };
                    path.push(name.clone());
                    on_chain(property, path, found)?;
                    path.pop();
                }
            }
            (keyword, value) => off_chain(keyword, value)?,
        }
    }
    Ok(())
}

/// Looks for annotations in the value of any other keyword.
fn off_chain(keyword: &str, value: &Value) -> Result<(), AnnotationError> {
    match (keyword, value) {
        // Data, in which the word means nothing.
        ("default" | "const" | "enum" | "examples", _) => Ok(()),
        (ANNOTATION, _) => Err(AnnotationError::Unreachable),
        // Maps from names to schemas: here the word is a name.
        ("properties" | "patternProperties" | "dependentSchemas" | "$defs" | "definitions", Value::Object(schemas)) => {
            schemas.values().try_for_each(|schema| off_chain("", schema))
        }
        (_, Value::Object(schema)) => schema.iter().try_for_each(|(keyword, value)| off_chain(keyword, value)),
        (_, Value::Array(items)) => items.iter().try_for_each(|item| off_chain("", item)),
        _ => Ok(()),
    }
}

fn annotated(
    schema: &Map<String, Value>,
    annotation: &Value,
    path: &[String],
    found: &[Annotated],
) -> Result<Annotated, AnnotationError> {
    let property = || path.join(".");
    let name = annotation
        .as_str()
        .filter(|name| !name.is_empty() && name.bytes().all(is_token))
        .ok_or_else(|| AnnotationError::Token { property: property() })?;
    let header = HeaderName::from_bytes(format!("{}{name}", header::PARAM_PREFIX).as_bytes())
        .map_err(|_| AnnotationError::Token { property: property() })?;
    if found.iter().any(|other| other.header == header) {
        return Err(AnnotationError::Duplicate { property: property() });
    }
    if !has_primitive_type(schema.get("type")) {
        return Err(AnnotationError::Type { property: property() });
    }
    Ok(Annotated { header, shown: format!("Mcp-Param-{name}"), path: path.to_vec() })
}

/// A primitive type, which may allow `null` beside it: then the header is left out.
fn has_primitive_type(kind: Option<&Value>) -> bool {
    let primitive = |kind: &Value| matches!(kind.as_str(), Some("string" | "integer" | "boolean"));
    match kind {
        Some(Value::Array(kinds)) => {
            let mut kinds = kinds.iter().filter(|kind| kind.as_str() != Some("null"));
            kinds.next().is_some_and(primitive) && kinds.next().is_none()
        }
        Some(kind) => primitive(kind),
        None => false,
    }
}

const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}
