//! Tests for the envelope reader and the splicer.

use super::{
    ClientMessage, INVALID_REQUEST, SERVER_ERROR, ServerLine, UNFINISHED, error_response, id_of_overlong,
    is_unfinished, parse_client, parse_server_line, response, splice,
};
use proptest::prelude::*;
use serde_json::{Value, json};

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _kind = parse_server_line(&bytes);
        let _message = parse_client(&bytes);
        let _id = id_of_overlong(&bytes, &bytes);
    }

    #[test]
    fn anything_that_looks_like_a_message_is_read_without_panic(text in r#"[{}\[\]":, \\a-z0-9"]{0,60}(id|"id"|"method":"m"|"params":\{|"_meta":\{)?[{}":,\\0-9]{0,20}"#) {
        let _kind = parse_server_line(text.as_bytes());
        let _message = parse_client(text.as_bytes());
        let _id = id_of_overlong(text.as_bytes(), text.as_bytes());
    }

    #[test]
    fn splicing_changes_the_id_and_nothing_else(
        before in "[ \\n\\t]{0,3}",
        text in ".{0,40}",
        id in prop_oneof![any::<i64>().prop_map(Value::from), ".{0,30}".prop_map(Value::from)],
        token in prop_oneof![any::<u32>().prop_map(Value::from), ".{0,30}".prop_map(Value::from)],
        id_first in any::<bool>(),
    ) {
        let params = json!({"name": text, "arguments": {"id": 5, "progressToken": text}, "_meta": {"x": 1, "progressToken": token}});
        let frame = if id_first {
            format!("{before}{{\"id\":{before}{id},\"jsonrpc\":\"2.0\",\"x\":[1],\"method\":\"tools/call\",\"params\":{params}}}")
        } else {
            format!("{before}{{\"params\":{params}{before},\"jsonrpc\":\"2.0\",\"method\":\"tools/call\",\"id\":{id}{before}}}")
        };
        let ClientMessage::Request { id: found, progress_token: Some(progress), method } = parse_client(frame.as_bytes()).unwrap() else {
            panic!("not a request")
        };
        prop_assert_eq!(method, "tools/call");
        prop_assert_eq!(serde_json::from_str::<Value>(found.as_str()).unwrap(), id);
        let spliced = splice(frame.as_bytes(), [Some((found.range(), b"7".as_slice())), Some((progress.range(), b"8".as_slice()))]);
        let mut expected: Value = serde_json::from_str(&frame).unwrap();
        expected["id"] = json!(7);
        expected["params"]["_meta"]["progressToken"] = json!(8);
        prop_assert_eq!(serde_json::from_slice::<Value>(&spliced).unwrap(), expected);
    }

    #[test]
    fn the_id_of_a_line_that_is_too_long_is_the_one_it_has(
        id in any::<u64>(),
        filler in ".{0,60}",
        order in 0usize..4,
    ) {
        let result = json!({"content": [{"text": filler, "id": 3}], "id": 4});
        let line = match order {
            0 => format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}"),
            1 => format!("{{\"result\":{result},\"jsonrpc\":\"2.0\",\"id\":{id}}}"),
            2 => format!("{{\"result\":{result}, \"id\": {id} , \"jsonrpc\": \"2.0\"}}"),
            _ => format!("{{\"id\":{id},\"result\":{result},\"jsonrpc\":\"2.0\"}}\r"),
        };
        let bytes = line.as_bytes();
        let half = bytes.len() / 2;
        prop_assert_eq!(id_of_overlong(&bytes[..half.max(40)], &bytes[half..]), Some(id));
    }
}

#[test]
fn a_nested_id_is_not_taken_for_the_lines_own() {
    for line in [
        r#"{"result":{"text":"x","id":5}}"#,
        r#"{"result":"\"id\":5}"#,
        r#"{"result":{"a":{}},"x\"id":5}"#,
        r#"{"jsonrpc":"2.0","result":{"id":5"#,
    ] {
        assert_eq!(id_of_overlong(line.as_bytes(), line.as_bytes()), None, "{line}");
    }
}

#[test]
fn messages_that_readers_could_disagree_about_are_refused() {
    for (frame, id) in [
        (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"m"}"#, None),
        (r#"{"jsonrpc":"2.0","id":1,"ID":2,"method":"m"}"#, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"\u0069d":2,"method":"m"}"#, None),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","PARAMS":{}}"#, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","paramſ":{}}"#, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{},"_META":{}}}"#, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"ProgressToKen":1}}}"#, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"progressToken":{}}}}"#, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","params":[1]}"#, Some("1")),
        (r#"{"jsonrpc":"2.0","id":null,"method":"m"}"#, None),
        (r#"{"jsonrpc":"2.0","id":{},"method":"m"}"#, None),
        (r#"{"jsonrpc":"1.0","id":"a","method":"m"}"#, Some("\"a\"")),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","result":{}}"#, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1}"#, Some("1")),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"m"}]"#, None),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m"} {}"#, None),
        ("nonsense", None),
    ] {
        let malformed = parse_client(frame.as_bytes()).unwrap_err();
        assert_eq!(malformed.id.as_deref(), id, "{frame}");
        let answer: Value = serde_json::from_slice(&malformed.to_response()).unwrap();
        assert!(answer["error"]["code"].is_i64(), "{frame}");
    }
}

#[test]
fn lines_of_a_server_are_told_apart() {
    let kind = |line: &str| match parse_server_line(line.as_bytes()) {
        ServerLine::Blank => "blank".to_owned(),
        ServerLine::NotJson => "not json".to_owned(),
        ServerLine::Unrecognized => "unrecognized".to_owned(),
        ServerLine::Response { id, result } => format!("response {} {}", id.as_str(), result.is_some()),
        ServerLine::Request { id, method } => format!("request {} {method}", id.as_str()),
        ServerLine::Notification { method, refers_to } => format!(
            "notification {method} {:?} {:?} {:?}",
            refers_to.progress_token.map(|part| &line[part.range()]),
            refers_to.request_id.map(|part| &line[part.range()]),
            refers_to.subscription_id.map(|part| &line[part.range()])
        ),
    };
    for (line, expected) in [
        (" ", "blank"),
        ("Server running on stdio", "not json"),
        ("{\"jsonrpc\":\"2.0\",", "not json"),
        ("[1]", "unrecognized"),
        ("7", "unrecognized"),
        (r#"{"level":"info","msg":"ready"}"#, "unrecognized"),
        (r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"x"}}"#, "unrecognized"),
        (r#"{"jsonrpc":"2.0","id":7,"result":null}"#, "response 7 true"),
        (r#"{"jsonrpc":"2.0","id":7,"error":{"code":1,"message":""}}"#, "response 7 false"),
        (r#"{"id":"a","method":"roots/list"}"#, "request \"a\" roots/list"),
        (r#"{"method":"notifications/x"}"#, "notification notifications/x None None None"),
        (r#"{"method":"n","params":{"progressToken":3}}"#, "notification n Some(\"3\") None None"),
        (r#"{"method":"n","params":{"requestId":"é"}}"#, "notification n None Some(\"\\\"é\\\"\") None"),
        (
            r#"{"method":"n","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":12}}}"#,
            "notification n None None Some(\"12\")",
        ),
        (r#"{"method":"n","params":[1]}"#, "notification n None None None"),
    ] {
        assert_eq!(kind(line), expected, "{line}");
    }
    assert!(matches!(
        parse_server_line(b"{\"id\":1,\"result\":\"\xff\"}"),
        ServerLine::NotJson | ServerLine::Unrecognized
    ));
}

#[test]
fn error_texts_are_escaped() {
    let answer: Value = serde_json::from_slice(&error_response(b"\"a\"", -32000, "a \"quote\"\n")).unwrap();
    assert_eq!(answer, json!({"jsonrpc": "2.0", "id": "a", "error": {"code": -32000, "message": "a \"quote\"\n"}}));
}

#[test]
fn a_multiplexers_last_words_are_told_from_a_servers_errors() {
    let unfinished = |code, text: &str| is_unfinished(&error_response(b"7", code, text));
    assert!(unfinished(SERVER_ERROR, &format!("the server process ended {UNFINISHED}")));
    assert!(!unfinished(SERVER_ERROR, "the disk is full"));
    assert!(!unfinished(INVALID_REQUEST, &format!("no {UNFINISHED}")));
    assert!(!is_unfinished(&response(b"7", &format!("{{\"text\":\"{UNFINISHED}\"}}"))));
}
