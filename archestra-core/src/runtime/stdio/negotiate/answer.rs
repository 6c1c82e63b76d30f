//! Reads what a process answers to `server/discover` and `initialize`.

use super::{Era, MODERN_VERSION, Negotiated, NegotiationError};
use serde::Deserialize;
use serde_json::value::RawValue;

const UNSUPPORTED_VERSION: i64 = -32022;
/// The errors that only a modern server knows: a header or `_meta` mismatch, a missing client capability.
const MODERN_ERRORS: [i64; 2] = [-32020, -32021];

const META_SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";

/// A response of the process.
#[derive(Deserialize)]
pub(super) struct Answer<'a> {
    #[serde(borrow)]
    pub(super) id: &'a RawValue,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<AnswerError<'a>>,
}

#[derive(Deserialize)]
struct AnswerError<'a> {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

impl<'a> Answer<'a> {
    pub(super) fn read(frame: &'a [u8]) -> Option<Self> {
        let answer: Self = serde_json::from_slice(frame).ok()?;
        (answer.result.is_some() || answer.error.is_some()).then_some(answer)
    }

    /// A version that the error names instead of the one that was `asked` for.
    pub(super) fn other_version(&self, asked: &str, acceptable: impl Fn(&str) -> bool) -> Option<String> {
        #[derive(Deserialize)]
        struct Data {
            supported: Vec<String>,
        }
        let data: Data = serde_json::from_str(self.error.as_ref()?.data?.get()).ok()?;
        data.supported.into_iter().filter(|version| version != asked && acceptable(version)).max()
    }
}

/// What an answer to `server/discover` shows.
pub(super) enum Verdict {
    Modern(Negotiated),
    /// Modern, but to be asked again in this version.
    OtherVersion(String),
    Legacy,
}

/// Recognizes a modern server by its result, or by an error that only modern servers know.
pub(super) fn judge(frame: &[u8]) -> Verdict {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Discovered<'a> {
        supported_versions: Vec<String>,
        #[serde(borrow)]
        capabilities: Option<&'a RawValue>,
        #[serde(default)]
        instructions: Option<String>,
        #[serde(borrow)]
        server_info: Option<&'a RawValue>,
        #[serde(borrow, rename = "_meta")]
        meta: Option<&'a RawValue>,
    }
    let Some(answer) = Answer::read(frame) else {
        return Verdict::Legacy;
    };
    if let Some(error) = &answer.error {
        if error.code == UNSUPPORTED_VERSION {
            return answer.other_version(MODERN_VERSION, is_modern).map_or(Verdict::Legacy, Verdict::OtherVersion);
        }
        if MODERN_ERRORS.contains(&error.code) {
            return Verdict::Modern(Negotiated {
                era: Era::Modern,
                protocol_version: MODERN_VERSION.to_owned(),
                server_info: None,
                capabilities: empty_object(),
                instructions: None,
                result: None,
            });
        }
        return Verdict::Legacy;
    }
    let Some(result) = answer.result else {
        return Verdict::Legacy;
    };
    let Ok(discovered) = serde_json::from_str::<Discovered<'_>>(result.get()) else {
        return Verdict::Legacy;
    };
    let mut versions = discovered.supported_versions;
    versions.retain(|version| is_modern(version));
    let version = versions.iter().find(|version| *version == MODERN_VERSION).or_else(|| versions.iter().max());
    let Some(version) = version else {
        return Verdict::Legacy;
    };
    let server_info =
        discovered.meta.and_then(server_info_in).or_else(|| discovered.server_info.map(ToOwned::to_owned));
    Verdict::Modern(Negotiated {
        era: Era::Modern,
        protocol_version: version.clone(),
        server_info,
        capabilities: discovered.capabilities.map_or_else(empty_object, ToOwned::to_owned),
        instructions: discovered.instructions,
        result: Some(result.to_owned()),
    })
}

fn server_info_in(meta: &RawValue) -> Option<Box<RawValue>> {
    let mut meta: std::collections::HashMap<String, Box<RawValue>> = serde_json::from_str(meta.get()).ok()?;
    meta.remove(META_SERVER_INFO)
}

/// Reads the answer to `initialize`.
pub(super) fn read_initialize(frame: &[u8]) -> Result<Negotiated, NegotiationError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Initialized<'a> {
        protocol_version: String,
        #[serde(borrow)]
        capabilities: Option<&'a RawValue>,
        #[serde(borrow)]
        server_info: Option<&'a RawValue>,
        #[serde(default)]
        instructions: Option<String>,
    }
    let refused =
        |code: i64, message: &str| NegotiationError::Refused { code, message: message.chars().take(200).collect() };
    let answer = Answer::read(frame).ok_or_else(|| refused(0, "the answer is not a JSON-RPC response"))?;
    if let Some(error) = &answer.error {
        return Err(refused(error.code, &error.message));
    }
    let raw = answer.result.ok_or_else(|| refused(0, "the answer holds no result"))?;
    let initialized: Initialized<'_> = serde_json::from_str(raw.get())
        .map_err(|error| refused(0, &format!("the result is not an InitializeResult: {error}")))?;
    Ok(Negotiated {
        era: Era::Legacy,
        protocol_version: initialized.protocol_version,
        server_info: initialized.server_info.map(ToOwned::to_owned),
        capabilities: initialized.capabilities.map_or_else(empty_object, ToOwned::to_owned),
        instructions: initialized.instructions,
        result: Some(raw.to_owned()),
    })
}

/// Versions are dates; 2026-07-28 is the first of the modern era.
pub(super) fn is_modern(version: &str) -> bool {
    version >= MODERN_VERSION && version.starts_with(|first: char| first.is_ascii_digit())
}

fn empty_object() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).unwrap_or_default()
}
