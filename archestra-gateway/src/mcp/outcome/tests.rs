//! Tests of the outcome scanner against evaluation of the whole body.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::json::tests::any_json;
use super::*;

fn scan<'a>(format: BodyFormat, chunks: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut scanner = OutcomeScanner::new(format);
    chunks.into_iter().for_each(|chunk| scanner.push(chunk));
    scanner.finish()
}

fn scan_json(body: &str) -> Outcome {
    let whole = scan(BodyFormat::Json, [body.as_bytes()]);
    assert_eq!(scan(BodyFormat::Json, body.as_bytes().chunks(1)), whole, "{body}");
    whole
}

/// What the body says, judged on the decoded message.
fn reference(message: &Value) -> Option<Outcome> {
    let message = message.as_object()?;
    if message.contains_key("method") {
        return None;
    }
    if message.get("error").is_some_and(|error| !error.is_null()) {
        return Some(Outcome::ProtocolError);
    }
    let result = message.get("result")?;
    Some(if result.get("isError") == Some(&Value::Bool(true)) { Outcome::ToolError } else { Outcome::Success })
}

#[test]
fn judges_by_exactly_the_right_path() {
    for (body, outcome) in [
        (r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#, Outcome::Success),
        (r#"{"jsonrpc":"2.0","id":1,"result":{"isError":true}}"#, Outcome::ToolError),
        (r#"{"jsonrpc":"2.0","id":1,"result":{"isError" : true , "content":[]}}"#, Outcome::ToolError),
        (r#"{"result":{"isError":false},"id":1}"#, Outcome::Success),
        (r#"{"result":{"isError":"true"}}"#, Outcome::Success),
        (r#"{"result":{"structuredContent":{"isError":true}}}"#, Outcome::Success),
        (r#"{"result":{"content":[{"isError":true}]}}"#, Outcome::Success),
        (r#"{"result":[{"isError":true}]}"#, Outcome::Success),
        (r#"{"result":["isError",true]}"#, Outcome::Success),
        (r#"{"isError":true,"result":{}}"#, Outcome::Success),
        (r#"{"x":{"isError":true},"result":{}}"#, Outcome::Success),
        (r#"{"result":{"a":"\"isError\":true"}}"#, Outcome::Success),
        (r#"{"result":{"a":"isError","b":true}}"#, Outcome::Success),
        (r#"{"result":{"x":{"a":1},"isError":true}}"#, Outcome::ToolError),
        (r#"{"result":{"is\u0045rror":true}}"#, Outcome::ToolError),
        (r#"{"res\u0075lt":{"isError":true}}"#, Outcome::ToolError),
        (r#"{"result":{"isError\u0000":true}}"#, Outcome::Success),
        (r#"{"result":{"isError\n":true}}"#, Outcome::Success),
        (r#"{"result":{"isErrorr":true}}"#, Outcome::Success),
        (r#"{"result":{},"error":null}"#, Outcome::Success),
        (r#"{"error":{"code":1,"message":""}}"#, Outcome::ProtocolError),
        (r#"{"result":{"error":{"code":1}}}"#, Outcome::Success),
        (r#"{"result":null}"#, Outcome::Success),
        (r#"{"method":"x","result":{}}"#, Outcome::Missing),
        (r#"[{"result":{}}]"#, Outcome::Missing),
        (r#"{"result":{"isError":true}"#, Outcome::Missing),
        ("", Outcome::Missing),
        ("<html>", Outcome::Missing),
    ] {
        assert_eq!(scan_json(body), outcome, "{body}");
    }
}

#[test]
fn the_last_response_of_an_event_stream_counts() {
    let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"isError":true}}"#;
    for (body, outcome) in [
        (
            format!("event: message\ndata: {progress}\n\ndata: {{\"id\":1,\"result\":{{\"isError\":true}}}}\n\n"),
            Outcome::ToolError,
        ),
        (
            format!(": hi\r\n\r\ndata: {progress}\r\n\r\nid: 3\r\ndata:{{\"result\":\r\ndata: {{}}}}\r\n\r\n"),
            Outcome::Success,
        ),
        ("data: {\"error\":\rdata: {}}\r\r".to_owned(), Outcome::ProtocolError),
        ("\u{feff}data: {\"result\":{}}\n\n".to_owned(), Outcome::Success),
        ("id: 1\ndata:\n\ndata: {\"result\":{}}\n\n: bye\n\n".to_owned(), Outcome::Success),
        ("datax: {\"result\":{}}\n\n".to_owned(), Outcome::Missing),
        ("data\n\ndatum: {\"error\":{}}\ndata: {\"result\":{}}\n\n".to_owned(), Outcome::Success),
        ("data: {\"result\":{}}".to_owned(), Outcome::Success),
        ("data: {\"result\":{}\n\n".to_owned(), Outcome::Missing),
        (format!("data: {progress}\n\n"), Outcome::Missing),
    ] {
        assert_eq!(scan(BodyFormat::EventStream, [body.as_bytes()]), outcome, "{body:?}");
        assert_eq!(scan(BodyFormat::EventStream, body.as_bytes().chunks(1)), outcome, "{body:?}");
    }
}

/// A message that is likely to have the keys that matter, at the right and at wrong places.
fn any_message() -> impl Strategy<Value = Value> {
    let word = || prop_oneof![Just(json!(true)), Just(json!(false)), Just(Value::Null), any_json()];
    let tricky = (word(), any_json(), any::<bool>()).prop_map(|(flag, other, nested)| {
        let inner =
            json!({"isError": flag, "error": other, "content": [{"isError": true, "text": "\"isError\":true"}]});
        if nested { json!({"structuredContent": inner, "z": {"result": {"isError": true}}}) } else { inner }
    });
    let part = |strategy: BoxedStrategy<Value>| proptest::option::of(strategy);
    (
        part(prop_oneof![3 => tricky, 1 => any_json()].boxed()),
        part(prop_oneof![Just(Value::Null), any_json()].boxed()),
        proptest::option::weighted(0.2, any::<String>()),
        prop::collection::hash_map("[a-zA-Z\"\\\\é]{0,7}", any_json(), 0..3),
    )
        .prop_map(|(result, error, method, extra)| {
            let mut message: serde_json::Map<String, Value> = extra.into_iter().collect();
            for key in ["result", "error", "method"] {
                message.remove(key);
            }
            if let Some(result) = result {
                message.insert("result".to_owned(), result);
            }
            if let Some(error) = error {
                message.insert("error".to_owned(), error);
            }
            if let Some(method) = method {
                message.insert("method".to_owned(), json!(method));
            }
            Value::Object(message)
        })
}

/// The same JSON with every character of its keys and strings escaped that may be.
fn escaped(value: &Value) -> String {
    let quoted = |text: &str| {
        let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
        format!("\"{units}\"")
    };
    match value {
        Value::String(text) => quoted(text),
        Value::Array(items) => format!("[{}]", items.iter().map(escaped).collect::<Vec<_>>().join(" ,")),
        Value::Object(map) => {
            let members: Vec<String> =
                map.iter().map(|(key, value)| format!("{} :{}", quoted(key), escaped(value))).collect();
            format!("{{{}}}", members.join(", "))
        }
        other => other.to_string(),
    }
}

fn split<'a>(body: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
    cuts.sort_unstable();
    cuts.push(body.len());
    let mut start = 0;
    cuts.into_iter().map(|end| &body[std::mem::replace(&mut start, end)..end]).collect()
}

proptest! {
    #[test]
    fn any_split_of_any_message_gives_the_same_answer(
        message in any_message(),
        form in 0..3_u8,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let body = match form {
            0 => message.to_string(),
            1 => serde_json::to_string_pretty(&message).unwrap(),
            _ => escaped(&message),
        };
        let outcome = scan(BodyFormat::Json, split(body.as_bytes(), &cuts));
        prop_assert_eq!(outcome, reference(&message).unwrap_or(Outcome::Missing), "{}", body);
    }

    #[test]
    fn any_split_of_any_stream_gives_the_same_answer(
        messages in prop::collection::vec((any_message(), 0..3_u8), 0..4),
        ending in prop_oneof![Just("\n"), Just("\r\n"), Just("\r")],
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut body = format!(": start{ending}{ending}");
        let mut wanted = Outcome::Missing;
        for (message, form) in &messages {
            let text = match form {
                0 => message.to_string(),
                1 => serde_json::to_string_pretty(message).unwrap(),
                _ => escaped(message),
            };
            body.push_str("event: message");
            body.push_str(ending);
            for line in text.split('\n') {
                body.push_str(&format!("data: {line}{ending}"));
            }
            body.push_str(ending);
            wanted = reference(message).unwrap_or(wanted);
        }
        prop_assert_eq!(scan(BodyFormat::EventStream, split(body.as_bytes(), &cuts)), wanted, "{}", body);
    }

    #[test]
    fn noise_never_panics(body in prop::collection::vec(any::<u8>(), 0..300), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4)) {
        for format in [BodyFormat::Json, BodyFormat::EventStream] {
            prop_assert_eq!(scan(format, split(&body, &cuts)), scan(format, [&body[..]]));
        }
    }
}
