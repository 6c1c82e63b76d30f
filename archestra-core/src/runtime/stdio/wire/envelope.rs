//! The outermost object of a message, read in one pass; what is not needed is only checked.

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt, marker::PhantomData};

/// A string that is borrowed where it holds no escapes.
#[derive(Debug)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// A JSON-RPC message; `P` is what is read of its parameters.
#[derive(Debug)]
pub(super) struct Envelope<'a, P> {
    pub(super) version: Option<Cow<'a, str>>,
    pub(super) id: Option<&'a RawValue>,
    pub(super) null_id: bool,
    pub(super) method: Option<Text<'a>>,
    pub(super) params: Option<P>,
    pub(super) result: Option<&'a RawValue>,
    pub(super) error: Option<&'a RawValue>,
}

const KEYS: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];

impl<'de, P: Deserialize<'de>> Deserialize<'de> for Envelope<'de, P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EnvelopeVisitor<P>(PhantomData<P>);
        impl<'de, P: Deserialize<'de>> Visitor<'de> for EnvelopeVisitor<P> {
            type Value = Envelope<'de, P>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut envelope = Envelope {
                    version: None,
                    id: None,
                    null_id: false,
                    method: None,
                    params: None,
                    result: None,
                    error: None,
                };
                let mut seen = [false; KEYS.len()];
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    match decisive(&key.0, &KEYS, &mut seen)? {
                        Some("jsonrpc") => envelope.version = map.next_value::<Option<Text<'de>>>()?.map(|text| text.0),
                        Some("id") => {
                            envelope.id = map.next_value()?;
                            envelope.null_id = envelope.id.is_none();
                        }
                        Some("method") => envelope.method = Some(map.next_value()?),
                        Some("params") => envelope.params = map.next_value()?,
                        Some("result") => envelope.result = Some(map.next_value()?),
                        Some("error") => envelope.error = Some(map.next_value()?),
                        _ => ignore(&mut map)?,
                    }
                }
                Ok(envelope)
            }
        }
        deserializer.deserialize_map(EnvelopeVisitor(PhantomData))
    }
}

/// What is read of a client's parameters.
#[derive(Debug)]
pub(super) struct ClientParams<'a> {
    pub(super) progress_token: Option<&'a RawValue>,
    pub(super) request_id: Option<&'a RawValue>,
}

impl<'de> Deserialize<'de> for ClientParams<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ParamsVisitor;
        impl<'de> Visitor<'de> for ParamsVisitor {
            type Value = ClientParams<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`params` to be an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut params = ClientParams { progress_token: None, request_id: None };
                let mut seen = [false; 2];
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    match decisive(&key.0, &["_meta", "requestId"], &mut seen)? {
                        Some("_meta") => {
                            params.progress_token =
                                map.next_value::<Option<ClientMeta<'de>>>()?.and_then(|meta| meta.progress_token);
                        }
                        Some("requestId") => params.request_id = map.next_value()?,
                        _ => ignore(&mut map)?,
                    }
                }
                Ok(params)
            }
        }
        deserializer.deserialize_map(ParamsVisitor)
    }
}

struct ClientMeta<'a> {
    progress_token: Option<&'a RawValue>,
}

impl<'de> Deserialize<'de> for ClientMeta<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MetaVisitor;
        impl<'de> Visitor<'de> for MetaVisitor {
            type Value = ClientMeta<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`params._meta` to be an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut meta = ClientMeta { progress_token: None };
                let mut seen = [false; 1];
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    match decisive(&key.0, &["progressToken"], &mut seen)? {
                        Some(_) => meta.progress_token = map.next_value()?,
                        None => ignore(&mut map)?,
                    }
                }
                Ok(meta)
            }
        }
        deserializer.deserialize_map(MetaVisitor)
    }
}

/// Raw, so that what is passed on is known to be UTF-8.
fn ignore<'de, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
    map.next_value::<&'de RawValue>().map(|_| ())
}

/// Which of the decisive `keys` this is; refuses one that was seen and one that some reader would take for it.
fn decisive<'k, E: Error, const N: usize>(
    key: &str,
    keys: &[&'k str; N],
    seen: &mut [bool; N],
) -> Result<Option<&'k str>, E> {
    for (known, seen) in keys.iter().zip(seen) {
        if key == *known {
            if *seen {
                return Err(E::custom(format_args!("`{known}` appears more than once")));
            }
            *seen = true;
            return Ok(Some(known));
        }
        if folds_to(key, known) {
            return Err(E::custom(format_args!("a key differs from `{known}` only by case")));
        }
    }
    Ok(None)
}

/// Whether a reader that ignores case, as Go's `encoding/json` does, takes one key for the other.
fn folds_to(key: &str, known: &str) -> bool {
    let fold = |letter: char| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        _ => letter.to_ascii_lowercase(),
    };
    key.len() >= known.len() && key.chars().map(fold).eq(known.chars().map(fold))
}
