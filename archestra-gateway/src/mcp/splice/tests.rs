//! Tests of edits: bytes outside of them stay as they were, and what comes out is what was meant.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::envelope::{self, Message};
use super::super::json::tests::any_json;
use super::super::version::{ProtocolVersion, meta};
use super::*;

fn edited(message: &str, edits: &RequestEdits<'_>) -> Value {
    let bytes = Bytes::copy_from_slice(message.as_bytes());
    let out = match envelope::parse(message.as_bytes()).unwrap() {
        Message::Request(request) => edits.apply(&bytes, &request).unwrap(),
        Message::Notification(notification) => edits.apply_to_notification(&bytes, &notification).unwrap(),
        Message::Response(_) => panic!("no request: {message}"),
    };
    envelope::parse(&out).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&out)));
    serde_json::from_slice(&out).unwrap()
}

const MODERN: MetaEdit<'_> = MetaEdit::Modern(ModernMeta {
    version: ProtocolVersion::LATEST,
    client_capabilities: "{}",
    client_info: r#"{"name":"archestra","version":"1"}"#,
    log_level: Some("info"),
});

fn modern_meta() -> Value {
    json!({
        meta::PROTOCOL_VERSION: "2026-07-28",
        meta::CLIENT_CAPABILITIES: {},
        meta::CLIENT_INFO: {"name": "archestra", "version": "1"},
        meta::LOG_LEVEL: "info",
    })
}

#[test]
fn no_edits_share_the_bytes() {
    let message = Bytes::from_static(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"m\"}");
    let out = Splice::new().apply(&message).unwrap();
    assert_eq!(out.as_ptr(), message.as_ptr());
}

#[test]
fn edits_may_come_in_any_order_and_touch() {
    let message = Bytes::from_static(b"abcdef");
    let mut splice = Splice::new();
    splice.replace(Span::new(3, 6), Piece::Number(0));
    splice.replace(Span::new(0, 1), Piece::Quoted("\"\n"));
    splice.insert(3, Piece::Raw("1"));
    splice.insert(3, Piece::Raw("2"));
    splice.remove(Span::new(1, 3));
    assert_eq!(splice.apply(&message).unwrap(), Bytes::from_static(b"\"\\\"\\n\"120"));
}

#[test]
fn wrong_edits_are_refused() {
    let message = Bytes::from_static(b"abcdef");
    let mut splice = Splice::new();
    splice.remove(Span::new(0, 3));
    splice.remove(Span::new(2, 4));
    assert_eq!(splice.apply(&message), Err(SpliceError::Overlap { at: 2 }));
    let mut splice = Splice::new();
    splice.remove(Span::new(5, 7));
    assert_eq!(splice.apply(&message), Err(SpliceError::OutOfBounds { at: 7 }));
}

#[test]
fn numbers_are_written_whole() {
    for number in [0, 9, 10, 99, 100, u64::MAX] {
        let mut out = BytesMut::new();
        Piece::Number(number).write(&mut out);
        assert_eq!(out, number.to_string());
        assert_eq!(Piece::Number(number).len(), out.len());
    }
}

#[test]
fn a_call_is_renamed_and_renumbered_and_nothing_else() {
    let message = Bytes::from_static(br#" { "jsonrpc" : "2.0", "id":"x" ,"method":"tools/call","params":{"arguments":{"b":1.0,"a":"\u00e9"},"name":"p__t"}} "#);
    let Ok(Message::Request(request)) = envelope::parse(&message) else { panic!() };
    let edits = RequestEdits { id: Some(Piece::Number(42)), name: Some("t\"2"), ..RequestEdits::default() };
    assert_eq!(
        edits.apply(&message, &request).unwrap(),
        Bytes::from_static(br#" { "jsonrpc" : "2.0", "id":42 ,"method":"tools/call","params":{"arguments":{"b":1.0,"a":"\u00e9"},"name":"t\"2"}} "#)
    );
}

#[test]
fn modern_becomes_legacy() {
    let message = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t","_meta":{{"{}":"2026-07-28","a":1,"{}":{{}},"progressToken":"p","{}":{{}}}}}}}}"#,
        meta::PROTOCOL_VERSION,
        meta::CLIENT_CAPABILITIES,
        meta::CLIENT_INFO
    );
    let edits = RequestEdits { meta: MetaEdit::Strip, ..RequestEdits::default() };
    assert_eq!(edited(&message, &edits)["params"], json!({"name": "t", "_meta": {"a": 1, "progressToken": "p"}}));
    let edits = RequestEdits { progress_token: TokenEdit::Set(Piece::Number(5)), ..edits };
    assert_eq!(edited(&message, &edits)["params"]["_meta"], json!({"a": 1, "progressToken": 5}));
    let edits = RequestEdits { progress_token: TokenEdit::Remove, ..edits };
    assert_eq!(edited(&message, &edits)["params"]["_meta"], json!({"a": 1}));
}

#[test]
fn legacy_becomes_modern_whatever_is_there() {
    let edits =
        RequestEdits { meta: MODERN, progress_token: TokenEdit::Set(Piece::Quoted("t")), ..RequestEdits::default() };
    let mut wanted = modern_meta();
    wanted["progressToken"] = json!("t");
    for message in [
        r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#,
        r#"{"method":"m","id":1,"jsonrpc":"2.0"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"m","params":null}"#,
        r#"{"jsonrpc":"2.0","params": null ,"id":1,"method":"m"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{ }}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":null}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"progressToken":1}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"lie"}}}"#,
        r#"{"jsonrpc":"2.0","method":"m"}"#,
    ] {
        assert_eq!(edited(message, &edits)["params"], json!({"_meta": wanted}), "{message}");
    }
    let message = r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"name":"n","_meta":{"x":1}}}"#;
    wanted["x"] = json!(1);
    assert_eq!(edited(message, &edits)["params"], json!({"name": "n", "_meta": wanted}));
}

#[test]
fn members_join_the_parameters() {
    let extra = [
        Member { key: "requestState", value: Piece::Quoted("s") },
        Member { key: "inputResponses", value: Piece::Raw("{\"a\":{}}") },
    ];
    let plain = RequestEdits { params: &extra, ..RequestEdits::default() };
    let with_meta = RequestEdits { meta: MODERN, ..plain };
    for (message, kept) in [
        (r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#, json!({})),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","params":null}"#, json!({})),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{}}"#, json!({})),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"name":"n"}}"#, json!({"name": "n"})),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"name":"n","_meta":{}}}"#,
            json!({"name": "n", "_meta": {}}),
        ),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":null}}"#, json!({"_meta": null})),
    ] {
        let mut wanted = kept;
        wanted["requestState"] = json!("s");
        wanted["inputResponses"] = json!({"a": {}});
        assert_eq!(edited(message, &plain)["params"], wanted, "{message}");
        wanted["_meta"] = modern_meta();
        assert_eq!(edited(message, &with_meta)["params"], wanted, "{message}");
    }
}

#[test]
fn notifications_are_mapped() {
    let edits = RequestEdits { reported_token: Some(Piece::Raw("\"theirs\"")), ..RequestEdits::default() };
    let progress =
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":7,"progress":0.50}}"#;
    assert_eq!(edited(progress, &edits)["params"], json!({"progressToken": "theirs", "progress": 0.5}));
    let edits = RequestEdits { cancelled_id: Some(Piece::Number(3)), ..RequestEdits::default() };
    let cancelled = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"a"}}"#;
    assert_eq!(edited(cancelled, &edits)["params"], json!({"requestId": 3}));
}

#[test]
fn references_are_renamed_and_absent_members_reported() {
    let edits = RequestEdits { name: Some("raw"), ..RequestEdits::default() };
    let complete = r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"p__x"},"argument":{}}}"#;
    assert_eq!(edited(complete, &edits)["params"]["ref"]["name"], json!("raw"));
    let message = Bytes::from_static(br#"{"jsonrpc":"2.0","id":1,"method":"m"}"#);
    let Ok(Message::Request(request)) = envelope::parse(&message) else { panic!() };
    assert_eq!(edits.apply(&message, &request), Err(SpliceError::Absent { key: "name" }));
}

proptest! {
    #[test]
    fn any_members_can_be_taken_out_and_put_in(
        members in prop::collection::vec((any_json(), any::<bool>()), 0..8),
        put in 0..3_usize,
        pretty in any::<bool>(),
    ) {
        let object: serde_json::Map<String, Value> =
            members.iter().enumerate().map(|(at, (value, out))| (format!("{}{at}", if *out { "out" } else { "in" }), value.clone())).collect();
        let text = if pretty { serde_json::to_string_pretty(&object) } else { serde_json::to_string(&object) }.unwrap();
        let new = [Member { key: "new\"0", value: Piece::Number(1) }, Member { key: "new1", value: Piece::Raw("[]") }];
        let mut splice = Splice::new();
        splice.edit_members(Raw::parse(&text).unwrap(), |key| key.starts_with("out"), &new[..put]).unwrap();
        let out = splice.apply(&Bytes::copy_from_slice(text.as_bytes())).unwrap();
        let mut wanted: serde_json::Map<String, Value> = object.into_iter().filter(|(key, _)| key.starts_with("in")).collect();
        if put > 0 { wanted.insert("new\"0".to_owned(), json!(1)); }
        if put > 1 { wanted.insert("new1".to_owned(), json!([])); }
        prop_assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), Value::Object(wanted));
    }

    #[test]
    fn any_name_and_arguments_survive_a_rewrite(name in any::<String>(), new in any::<String>(), arguments in any_json(), token in proptest::option::of(any::<u32>())) {
        let mut params = json!({"name": name, "arguments": {"v": arguments}});
        if let Some(token) = token { params["_meta"] = json!({"progressToken": token}); }
        let message = json!({"jsonrpc": "2.0", "id": "old", "method": "tools/call", "params": params}).to_string();
        let edits = RequestEdits { id: Some(Piece::Number(8)), name: Some(&new), progress_token: TokenEdit::Set(Piece::Number(3)), meta: MODERN, ..RequestEdits::default() };
        let out = edited(&message, &edits);
        prop_assert_eq!(&out["id"], &json!(8));
        prop_assert_eq!(&out["params"]["name"], &json!(new));
        prop_assert_eq!(&out["params"]["arguments"], &json!({"v": arguments}));
        prop_assert_eq!(&out["params"]["_meta"]["progressToken"], &json!(3));
    }
}
