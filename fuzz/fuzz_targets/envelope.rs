//! The JSON-RPC envelope of a client's body: what we read is what `serde_json` reads, and edits keep it a message.
#![no_main]

use archestra_fuzz::{assert_json, is_json};
use archestra_gateway::mcp::{
    envelope::{self, EnvelopeError, Message, Params},
    json::ScanError,
    splice::{Member, MetaEdit, ModernMeta, Piece, RequestEdits, TokenEdit},
    version::ProtocolVersion,
};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use std::collections::HashMap;

const NAME: &str = "na\"me\n";

fuzz_target!(|data: &[u8]| {
    let message = match envelope::parse(data) {
        Ok(message) => message,
        Err(refused) => {
            match refused.error {
                EnvelopeError::NotUtf8 => assert!(std::str::from_utf8(data).is_err()),
                EnvelopeError::Json(ScanError::Syntax { .. }) => assert!(!is_json(data), "refused, but it is JSON"),
                _ => {}
            }
            if let Some(id) = refused.id {
                assert_json(id.as_str().as_bytes());
            }
            return;
        }
    };
    assert_json(data);
    let members: HashMap<String, &RawValue> = serde_json::from_slice(data).expect("an accepted message is an object");
    let body = Bytes::copy_from_slice(data);
    match message {
        Message::Request(request) => {
            assert_eq!(request.id.as_str(), members["id"].get());
            assert_method(&request.method, &members);
            assert_params(&request.params, &members);
            for edits in edits(&request.params) {
                let edits = RequestEdits { id: Some(Piece::Number(7)), ..edits };
                let edited = edits.apply(&body, &request).expect("the edits fit");
                let Ok(Message::Request(again)) = envelope::parse(&edited) else {
                    panic!("no request any more: {}", String::from_utf8_lossy(&edited))
                };
                assert_eq!((again.id.as_str(), &again.method), ("7", &request.method));
                assert_edited(&edits, &request.params, &again.params);
            }
        }
        Message::Notification(notification) => {
            assert!(!members.contains_key("id"));
            assert_method(&notification.method, &members);
            assert_params(&notification.params, &members);
            for edits in edits(&notification.params) {
                let edited = edits.apply_to_notification(&body, &notification).expect("the edits fit");
                let Ok(Message::Notification(again)) = envelope::parse(&edited) else {
                    panic!("no notification any more: {}", String::from_utf8_lossy(&edited))
                };
                assert_eq!(again.method, notification.method);
                assert_edited(&edits, &notification.params, &again.params);
            }
        }
        Message::Response(response) => {
            assert!(!members.contains_key("method"));
            if let Some(id) = response.id {
                assert_eq!(id.as_str(), members["id"].get());
            }
        }
    }
});

fn assert_method(method: &str, members: &HashMap<String, &RawValue>) {
    assert_eq!(serde_json::from_str::<String>(members["method"].get()).expect("a string"), method);
}

fn assert_params(params: &Params<'_>, members: &HashMap<String, &RawValue>) {
    let Some(raw) = params.raw else {
        assert!(members.get("params").is_none_or(|params| params.get() == "null"));
        return;
    };
    assert_eq!(raw.as_str(), members["params"].get());
    // An unpaired surrogate in a key that nothing here looks at is fine with us, and not with `serde_json`.
    let Ok(inner) = serde_json::from_str::<HashMap<String, &RawValue>>(raw.as_str()) else { return };
    for (key, value) in [("name", &params.name), ("uri", &params.uri), ("cursor", &params.cursor)] {
        if let Some(text) = value {
            assert_eq!(serde_json::from_str::<String>(inner[key].get()).expect("a string"), text.value);
        }
    }
    if let Some(arguments) = params.arguments {
        assert_eq!(arguments.as_str(), inner["arguments"].get());
    }
}

fn edits(params: &Params<'_>) -> [RequestEdits<'static>; 4] {
    let has_name = params.name.is_some() || params.reference.as_ref().is_some_and(|of| of.name.is_some());
    let modern = ModernMeta {
        version: ProtocolVersion::LATEST,
        client_capabilities: "{}",
        client_info: r#"{"name":"fuzz","version":"1"}"#,
        log_level: Some("debug"),
    };
    let common = RequestEdits { name: has_name.then_some(NAME), ..RequestEdits::default() };
    [
        common,
        RequestEdits { progress_token: TokenEdit::Set(Piece::Number(9)), meta: MetaEdit::Strip, ..common },
        RequestEdits { progress_token: TokenEdit::Remove, meta: MetaEdit::Modern(modern), ..common },
        RequestEdits {
            progress_token: TokenEdit::Set(Piece::Quoted("t\"")),
            meta: MetaEdit::Modern(modern),
            params: const { &[Member { key: "fuzzed", value: Piece::Raw("[]") }] },
            ..common
        },
    ]
}

fn assert_edited(edits: &RequestEdits<'_>, before: &Params<'_>, after: &Params<'_>) {
    if edits.name.is_some() {
        let name = after.name.as_ref().or_else(|| after.reference.as_ref()?.name.as_ref());
        assert_eq!(name.expect("the name is still there").value, NAME);
    }
    assert_eq!(before.arguments.map(|raw| raw.as_str()), after.arguments.map(|raw| raw.as_str()));
    let meta = after.meta.as_ref();
    let token = meta.and_then(|meta| meta.progress_token).map(|token| token.as_str());
    match edits.progress_token {
        TokenEdit::Keep => {}
        TokenEdit::Remove => assert_eq!(token, None),
        TokenEdit::Set(Piece::Number(_)) => assert_eq!(token, Some("9")),
        TokenEdit::Set(_) => assert_eq!(token, Some("\"t\\\"\"")),
    }
    let version = meta.and_then(|meta| meta.protocol_version.as_ref()).map(|version| &*version.value);
    match edits.meta {
        MetaEdit::Keep => {}
        MetaEdit::Strip => assert_eq!(version, None),
        MetaEdit::Modern(modern) => assert_eq!(version, Some(modern.version.as_str())),
    }
}
