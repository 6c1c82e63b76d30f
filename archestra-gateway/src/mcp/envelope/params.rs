//! The parameters that the gateway looks at, and the protocol fields of `_meta`; everything else is passed over.

use super::super::json::{Cursor, Kind, Raw, ScanError, Span, Text};
use super::super::version::meta;
use super::{EnvelopeError, Problem, lookalike};

/// The looked-at members of `params`.
#[derive(Debug, Clone, Default)]
pub struct Params<'a> {
    /// The whole object; nothing if the message has none.
    pub raw: Option<Raw<'a>>,
    /// `name` of a tool or prompt.
    pub name: Option<Text<'a>>,
    /// `uri` of a resource.
    pub uri: Option<Text<'a>>,
    /// `taskId`.
    pub task_id: Option<Text<'a>>,
    /// `cursor` of a list.
    pub cursor: Option<Text<'a>>,
    /// `arguments`, never decoded here.
    pub arguments: Option<Raw<'a>>,
    /// `requestState` of a retried request.
    pub request_state: Option<Text<'a>>,
    /// `inputResponses` of a retried request.
    pub input_responses: Option<Raw<'a>>,
    /// `requestId` of `notifications/cancelled`.
    pub request_id: Option<Raw<'a>>,
    /// `progressToken` of `notifications/progress`.
    pub progress_token: Option<Raw<'a>>,
    /// `ref` of `completion/complete`.
    pub reference: Option<Reference<'a>>,
    /// `_meta`.
    pub meta: Option<Meta<'a>>,
    pub(crate) null_meta: Option<Span>,
}

/// What `completion/complete` completes for.
#[derive(Debug, Clone)]
pub struct Reference<'a> {
    /// The whole object.
    pub raw: Raw<'a>,
    /// `name` of a prompt.
    pub name: Option<Text<'a>>,
    /// `uri` of a resource template.
    pub uri: Option<Text<'a>>,
}

/// The looked-at members of `params._meta`.
#[derive(Debug, Clone)]
pub struct Meta<'a> {
    /// The whole object.
    pub raw: Raw<'a>,
    /// The revision of a modern request.
    pub protocol_version: Option<Text<'a>>,
    /// What the modern client can do; an object.
    pub client_capabilities: Option<Raw<'a>>,
    /// Who the modern client says it is; an object.
    pub client_info: Option<Raw<'a>>,
    /// Which log messages the modern client wants.
    pub log_level: Option<Text<'a>>,
    /// The token under which progress is reported; a string or a number.
    pub progress_token: Option<Raw<'a>>,
    /// Which `subscriptions/listen` request a notification belongs to.
    pub subscription_id: Option<Raw<'a>>,
    /// W3C trace context.
    pub traceparent: Option<Text<'a>>,
    /// W3C trace context.
    pub tracestate: Option<Text<'a>>,
    /// W3C baggage.
    pub baggage: Option<Text<'a>>,
}

const KEYS: [&str; 11] = [
    "name",
    "uri",
    "taskId",
    "cursor",
    "arguments",
    "requestState",
    "inputResponses",
    "requestId",
    "progressToken",
    "ref",
    "_meta",
];

/// Which known keys of an object have been met.
#[derive(Debug, Default)]
struct Met(u32);

impl Met {
    fn once(&mut self, keys: &[&'static str], key: &str, problem: &mut Problem) {
        let Some(at) = keys.iter().position(|known| *known == key) else { return };
        if self.0 & (1 << at) != 0 {
            problem.note(EnvelopeError::Duplicate { key: keys[at] });
        }
        self.0 |= 1 << at;
    }
}

impl<'a> Params<'a> {
    pub(super) fn read(cursor: &mut Cursor<'a>, problem: &mut Problem) -> Result<Self, ScanError> {
        let mut params = Self::default();
        let mut met = Met::default();
        let whole = cursor.clone();
        let mut members = cursor.open_object()?;
        while let Some(key) = cursor.next_key(&mut members)? {
            met.once(&KEYS, &key.value, problem);
            match &*key.value {
                "name" => params.name = text_field(cursor, "name", problem)?,
                "uri" => params.uri = text_field(cursor, "uri", problem)?,
                "taskId" => params.task_id = text_field(cursor, "taskId", problem)?,
                "cursor" => params.cursor = text_field(cursor, "cursor", problem)?,
                "arguments" => params.arguments = object_field(cursor, "arguments", problem)?,
                "requestState" => params.request_state = text_field(cursor, "requestState", problem)?,
                "inputResponses" => params.input_responses = object_field(cursor, "inputResponses", problem)?,
                "requestId" => params.request_id = Some(cursor.skip()?),
                "progressToken" => params.progress_token = Some(cursor.skip()?),
                "ref" => params.reference = Reference::read(cursor, problem)?,
                "_meta" if cursor.kind() == Some(Kind::Null) => params.null_meta = Some(cursor.skip()?.span()),
                "_meta" => params.meta = Meta::read(cursor, problem)?,
                unknown => {
                    if let Some(key) = lookalike(unknown, &KEYS) {
                        problem.note(EnvelopeError::Lookalike { key });
                    }
                    cursor.skip()?;
                }
            }
        }
        params.raw = Some(whole.until(cursor));
        Ok(params)
    }
}

impl<'a> Reference<'a> {
    fn read(cursor: &mut Cursor<'a>, problem: &mut Problem) -> Result<Option<Self>, ScanError> {
        const KEYS: [&str; 3] = ["type", "name", "uri"];
        let raw = cursor.skip()?;
        match raw.kind() {
            Kind::Object => {}
            Kind::Null => return Ok(None),
            _ => {
                problem.note(EnvelopeError::Field { key: "ref", expected: "an object" });
                return Ok(None);
            }
        }
        let mut reference = Self { raw, name: None, uri: None };
        let mut met = Met::default();
        let mut cursor = raw.cursor();
        let mut members = cursor.open_object()?;
        while let Some(key) = cursor.next_key(&mut members)? {
            met.once(&KEYS, &key.value, problem);
            match &*key.value {
                "name" => reference.name = text_field(&mut cursor, "ref.name", problem)?,
                "uri" => reference.uri = text_field(&mut cursor, "ref.uri", problem)?,
                unknown => {
                    if let Some(key) = lookalike(unknown, &KEYS).filter(|known| *known != unknown) {
                        problem.note(EnvelopeError::Lookalike { key });
                    }
                    cursor.skip()?;
                }
            }
        }
        Ok(Some(reference))
    }
}

const META_KEYS: [&str; 9] = [
    meta::PROTOCOL_VERSION,
    meta::CLIENT_CAPABILITIES,
    meta::CLIENT_INFO,
    meta::LOG_LEVEL,
    meta::PROGRESS_TOKEN,
    meta::SUBSCRIPTION_ID,
    meta::TRACEPARENT,
    meta::TRACESTATE,
    meta::BAGGAGE,
];

impl<'a> Meta<'a> {
    fn read(cursor: &mut Cursor<'a>, problem: &mut Problem) -> Result<Option<Self>, ScanError> {
        if cursor.kind() != Some(Kind::Object) {
            cursor.skip()?;
            problem.note(EnvelopeError::Meta { key: "_meta", expected: "an object" });
            return Ok(None);
        }
        let whole = cursor.clone();
        let mut members = cursor.open_object()?;
        let mut met = Met::default();
        let mut fields = Self::empty();
        while let Some(key) = cursor.next_key(&mut members)? {
            met.once(&META_KEYS, &key.value, problem);
            match &*key.value {
                meta::PROTOCOL_VERSION => {
                    fields.protocol_version = meta_text(cursor, meta::PROTOCOL_VERSION, problem)?;
                }
                meta::CLIENT_CAPABILITIES => {
                    fields.client_capabilities = meta_object(cursor, meta::CLIENT_CAPABILITIES, problem)?;
                }
                meta::CLIENT_INFO => fields.client_info = meta_object(cursor, meta::CLIENT_INFO, problem)?,
                meta::LOG_LEVEL => fields.log_level = meta_text(cursor, meta::LOG_LEVEL, problem)?,
                meta::PROGRESS_TOKEN => {
                    let token = cursor.skip()?;
                    if !matches!(token.kind(), Kind::String | Kind::Number) {
                        problem
                            .note(EnvelopeError::Meta { key: meta::PROGRESS_TOKEN, expected: "a string or a number" });
                    }
                    fields.progress_token = Some(token);
                }
                meta::SUBSCRIPTION_ID => fields.subscription_id = Some(cursor.skip()?),
                // Tracing is a courtesy: what is malformed is passed on unread.
                meta::TRACEPARENT => fields.traceparent = cursor.skip()?.to_text(),
                meta::TRACESTATE => fields.tracestate = cursor.skip()?.to_text(),
                meta::BAGGAGE => fields.baggage = cursor.skip()?.to_text(),
                _ => {
                    cursor.skip()?;
                }
            }
        }
        fields.raw = whole.until(cursor);
        Ok(Some(fields))
    }

    const fn empty() -> Self {
        Self {
            raw: Raw::NULL,
            protocol_version: None,
            client_capabilities: None,
            client_info: None,
            log_level: None,
            progress_token: None,
            subscription_id: None,
            traceparent: None,
            tracestate: None,
            baggage: None,
        }
    }
}

/// A string; `null` counts as absent.
fn text_field<'a>(
    cursor: &mut Cursor<'a>,
    key: &'static str,
    problem: &mut Problem,
) -> Result<Option<Text<'a>>, ScanError> {
    match cursor.kind() {
        Some(Kind::String) => return cursor.text().map(Some),
        Some(Kind::Null) => {}
        _ => problem.note(EnvelopeError::Field { key, expected: "a string" }),
    }
    cursor.skip()?;
    Ok(None)
}

/// An object; `null` counts as absent.
fn object_field<'a>(
    cursor: &mut Cursor<'a>,
    key: &'static str,
    problem: &mut Problem,
) -> Result<Option<Raw<'a>>, ScanError> {
    let value = cursor.skip()?;
    match value.kind() {
        Kind::Object => return Ok(Some(value)),
        Kind::Null => {}
        _ => problem.note(EnvelopeError::Field { key, expected: "an object" }),
    }
    Ok(None)
}

fn meta_text<'a>(
    cursor: &mut Cursor<'a>,
    key: &'static str,
    problem: &mut Problem,
) -> Result<Option<Text<'a>>, ScanError> {
    if cursor.kind() == Some(Kind::String) {
        return cursor.text().map(Some);
    }
    cursor.skip()?;
    problem.note(EnvelopeError::Meta { key, expected: "a string" });
    Ok(None)
}

fn meta_object<'a>(
    cursor: &mut Cursor<'a>,
    key: &'static str,
    problem: &mut Problem,
) -> Result<Option<Raw<'a>>, ScanError> {
    let value = cursor.skip()?;
    if value.kind() == Kind::Object {
        return Ok(Some(value));
    }
    problem.note(EnvelopeError::Meta { key, expected: "an object" });
    Ok(None)
}
