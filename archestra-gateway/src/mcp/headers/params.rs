//! The `Mcp-Param-*` headers of one tool: compiled once from its input schema, checked and made per call.

use std::borrow::Cow;

use http::HeaderMap;

use super::super::error::RpcError;
use super::super::json::{Kind, Raw};
use super::schema::{Annotated, AnnotationError, annotations};
use super::{decode_value, encode_value, mismatch, single};

/// Integers beyond this lose digits in some readers.
const MAX_SAFE_INTEGER: f64 = 9_007_199_254_740_991.0;

/// Which arguments of a tool travel as headers too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderParams {
    annotated: Box<[Annotated]>,
}

impl HeaderParams {
    /// Reads the annotations of an input schema, given as JSON text; nothing if there are none.
    ///
    /// # Errors
    /// An annotation breaks a rule: the tool must not be listed.
    pub fn compile(input_schema: &str) -> Result<Option<Self>, AnnotationError> {
        let annotated = annotations(input_schema)?;
        Ok((!annotated.is_empty()).then(|| Self { annotated: annotated.into() }))
    }

    /// The names of the headers, in lower case.
    pub fn header_names(&self) -> impl Iterator<Item = &str> {
        self.annotated.iter().map(|annotated| annotated.header.as_str())
    }

    /// Checks that the headers of a call say what its arguments say.
    ///
    /// # Errors
    /// A header is missing, superfluous, malformed or different.
    pub fn validate(&self, headers: &HeaderMap, arguments: Option<Raw<'_>>) -> Result<(), RpcError> {
        for annotated in &self.annotated {
            let shown = &annotated.shown;
            let path = || annotated.path.join(".");
            let sent = single(headers, shown, annotated.header.as_str())?;
            let argument = argument(arguments, &annotated.path)
                .map_err(|AmbiguousArgument| mismatch(format!("argument `{}` appears more than once", path())))?;
            match (sent, argument) {
                (None, None) => {}
                (None, Some(_)) => return Err(mismatch(format!("{shown} is required for argument `{}`", path()))),
                (Some(_), None) => {
                    return Err(mismatch(format!("{shown} is given but argument `{}` is not", path())));
                }
                (Some(sent), Some(argument)) => {
                    let sent =
                        decode_value(sent).ok_or_else(|| mismatch(format!("{shown} is not valid Base64 of UTF-8")))?;
                    if !argument.equals(&sent) {
                        return Err(mismatch(format!("{shown} does not match argument `{}`", path())));
                    }
                }
            }
        }
        Ok(())
    }

    /// Puts the headers for a call into `headers`.
    ///
    /// # Errors
    /// An annotated argument appears more than once, so that no header could be right.
    pub fn emit(&self, headers: &mut HeaderMap, arguments: Option<Raw<'_>>) -> Result<(), RpcError> {
        for annotated in &self.annotated {
            let argument = argument(arguments, &annotated.path).map_err(|AmbiguousArgument| {
                mismatch(format!("argument `{}` appears more than once", annotated.path.join(".")))
            })?;
            if let Some(argument) = argument {
                headers.insert(annotated.header.clone(), encode_value(&argument.as_text()));
            }
        }
        Ok(())
    }
}

struct AmbiguousArgument;

/// A value that can travel in a header.
enum Argument<'a> {
    Text(Cow<'a, str>),
    Number(&'a str),
    Bool(&'static str),
}

impl<'a> Argument<'a> {
    fn equals(&self, sent: &str) -> bool {
        match self {
            Self::Text(text) => text == sent,
            Self::Bool(word) => *word == sent,
            Self::Number(number) => *number == sent || same_number(number, sent),
        }
    }

    fn as_text(&self) -> Cow<'a, str> {
        match self {
            Self::Text(text) => text.clone(),
            Self::Bool(word) => Cow::Borrowed(*word),
            Self::Number(number) => decimal(number),
        }
    }
}

/// The value at `path`; absent, `null` and values that no header can carry are the same.
fn argument<'a>(arguments: Option<Raw<'a>>, path: &[String]) -> Result<Option<Argument<'a>>, AmbiguousArgument> {
    let Some(mut value) = arguments else { return Ok(None) };
    for step in path {
        match member(value, step)? {
            Some(next) => value = next,
            None => return Ok(None),
        }
    }
    Ok(match value.kind() {
        Kind::String => value.to_text().map(|text| Argument::Text(text.value)),
        Kind::Number => Some(Argument::Number(value.as_str())),
        Kind::True => Some(Argument::Bool("true")),
        Kind::False => Some(Argument::Bool("false")),
        Kind::Null | Kind::Object | Kind::Array => None,
    })
}

fn member<'a>(object: Raw<'a>, wanted: &str) -> Result<Option<Raw<'a>>, AmbiguousArgument> {
    if object.kind() != Kind::Object {
        return Ok(None);
    }
    let mut cursor = object.cursor();
    let mut found = None;
    let Ok(mut members) = cursor.open_object() else { return Ok(None) };
    // The text was scanned before, so the only failure left is a key that is no text: ambiguous to some readers.
    while let Some(key) = cursor.next_key(&mut members).map_err(|_| AmbiguousArgument)? {
        let value = cursor.skip().map_err(|_| AmbiguousArgument)?;
        if key.value == wanted && found.replace(value).is_some() {
            return Err(AmbiguousArgument);
        }
    }
    Ok(found)
}

fn same_number(left: &str, right: &str) -> bool {
    match (integer(left), integer(right)) {
        (Some(left), Some(right)) => left == right,
        _ => false,
    }
}

/// The number as an integer, whichever way it is written.
fn integer(number: &str) -> Option<i64> {
    if let Ok(integer) = number.parse() {
        return Some(integer);
    }
    let is_json = Raw::parse(number).is_ok_and(|raw| raw.kind() == Kind::Number && raw.as_str() == number);
    let float: f64 = if is_json { number.parse().ok()? } else { return None };
    (float.fract() == 0.0 && float.abs() <= MAX_SAFE_INTEGER).then_some(float as i64)
}

/// The decimal form of an integer; other numbers stay as they are written.
fn decimal(number: &str) -> Cow<'_, str> {
    match integer(number) {
        Some(_) if number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') => Cow::Borrowed(number),
        Some(integer) => Cow::Owned(integer.to_string()),
        None => Cow::Borrowed(number),
    }
}
