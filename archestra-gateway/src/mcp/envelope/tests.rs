//! Tests of the envelope: what is accepted, what is refused, and that nothing smuggles past it.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::json::tests::any_json;
use super::*;

fn request(body: &str) -> Request<'_> {
    match parse(body.as_bytes()) {
        Ok(Message::Request(request)) => request,
        other => panic!("{body}: {other:?}"),
    }
}

fn refused(body: &str) -> EnvelopeError {
    parse(body.as_bytes()).map(|_| ()).expect_err(body).error
}

const CALL: &str = r#"{"jsonrpc":"2.0","id":"a-1","method":"tools/call","params":{"name":"srv__echo","arguments":{"name":"inner","x":[1,2]},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"elicitation":{}},"io.modelcontextprotocol/clientInfo":{"name":"c"},"io.modelcontextprotocol/logLevel":"info","progressToken":7,"traceparent":"00-a-b-01"}}}"#;

#[test]
fn reads_a_modern_call() {
    let call = request(CALL);
    assert_eq!(call.id.as_str(), "\"a-1\"");
    assert_eq!(call.method, "tools/call");
    let at = |span: Span| &CALL[span.start..span.end];
    let name = call.params.name.unwrap();
    assert!(matches!(name.value, Cow::Borrowed("srv__echo")));
    assert_eq!(at(name.span), "\"srv__echo\"");
    assert_eq!(call.params.arguments.unwrap().as_str(), r#"{"name":"inner","x":[1,2]}"#);
    let meta = call.params.meta.unwrap();
    assert_eq!(meta.protocol_version.unwrap().value, "2026-07-28");
    assert_eq!(meta.client_capabilities.unwrap().as_str(), r#"{"elicitation":{}}"#);
    assert_eq!(meta.client_info.unwrap().as_str(), r#"{"name":"c"}"#);
    assert_eq!(meta.log_level.unwrap().value, "info");
    assert_eq!(meta.traceparent.unwrap().value, "00-a-b-01");
    assert_eq!(at(meta.progress_token.unwrap().span()), "7");
    assert_eq!(at(call.params.raw.unwrap().span()).as_bytes()[0], b'{');
}

#[test]
fn reads_notifications_and_responses() {
    let body = br#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":3}}"#;
    let Message::Notification(cancelled) = parse(body).unwrap() else { panic!() };
    assert_eq!(cancelled.params.request_id.unwrap().as_str(), "3");

    let body = br#"{"jsonrpc":"2.0","id":5,"result":{"content":[],"isError":true}}"#;
    let Message::Response(response) = parse(body).unwrap() else { panic!() };
    assert_eq!(response.id.unwrap().to_number(), Some(5));
    assert!(matches!(response.payload, Payload::Result(result) if result.is_error));

    for body in [
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"no"}}"#,
        r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"no"}}"#,
    ] {
        let Message::Response(response) = parse(body.as_bytes()).unwrap() else { panic!() };
        assert!(response.id.is_none());
        assert!(matches!(response.payload, Payload::Error(error) if error.code == -32000));
    }
}

#[test]
fn escaped_keys_are_the_keys_they_spell() {
    let call = request(
        r#"{"jsonrpc":"2.0","\u0069d":1,"m\u0065thod":"tools/call","params":{"\u006eame":"a\u0062","_me\u0074a":{"progress\u0054oken":"t"}}}"#,
    );
    assert_eq!(call.method, "tools/call");
    assert_eq!(call.params.name.unwrap().value, "ab");
    assert_eq!(call.params.meta.unwrap().progress_token.unwrap().as_str(), "\"t\"");
    assert_eq!(
        refused(r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"name":"a","\u006eame":"b"}}"#),
        EnvelopeError::Duplicate { key: "name" }
    );
}

#[test]
fn duplicates_of_what_matters_are_refused() {
    for (body, key) in [
        (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"m"}"#, "id"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","method":"n"}"#, "method"),
        (r#"{"jsonrpc":"2.0","jsonrpc":"2.0","id":1,"method":"m"}"#, "jsonrpc"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{},"params":{"name":"x"}}"#, "params"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","params":null,"params":{"name":"x"}}"#, "params"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"name":null,"name":"x"}}"#, "name"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{},"_meta":{}}}"#, "_meta"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":null,"_meta":{}}}"#, "_meta"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"arguments":{},"arguments":{}}}"#, "arguments"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"ref":{"name":"a","name":"b"}}}"#, "name"),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"progressToken":1,"progressToken":2}}}"#,
            "progressToken",
        ),
        (r#"{"jsonrpc":"2.0","id":1,"result":{},"result":{}}"#, "result"),
        (r#"{"jsonrpc":"2.0","id":1,"result":{"isError":false,"isError":true}}"#, "isError"),
        (r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"code":2,"message":""}}"#, "code"),
    ] {
        assert_eq!(refused(body), EnvelopeError::Duplicate { key }, "{body}");
    }
    request(r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"x":1,"x":2,"arguments":{"name":1,"name":2}}}"#);
}

#[test]
fn keys_that_differ_by_case_are_refused() {
    for (body, key) in [
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"name":"a","Name":"b"}}"#, "name"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"NAME":"b"}}"#, "name"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"task\u0049D":"b"}}"#, "taskId"),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"m\",\"params\":{\"ta\u{17f}\u{212a}Id\":\"b\"}}", "taskId"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","Params":{}}"#, "params"),
        (r#"{"jsonrpc":"2.0","id":1,"ID":2,"method":"m"}"#, "id"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"ref":{"Name":"b"}}}"#, "name"),
    ] {
        assert_eq!(refused(body), EnvelopeError::Lookalike { key }, "{body}");
    }
    request(r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"names":1,"nam":2,"näme":3,"arguments":{"Name":1}}}"#);
}

#[test]
fn ids_are_strings_or_integers() {
    for id in ["1", "-1", "0", "-0", "\"\"", "\"x\\u0000\"", "9007199254740993", "123456789012345678901234567890"] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"m"}}"#);
        assert_eq!(request(&body).id.as_str(), id);
    }
    for id in ["null", "1.0", "1e3", "1E3", "true", "{}", "[1]"] {
        assert_eq!(refused(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"m"}}"#)), EnvelopeError::Id, "{id}");
    }
    let long = "1".repeat(MAX_ID_LENGTH + 1);
    assert_eq!(refused(&format!(r#"{{"jsonrpc":"2.0","id":{long},"method":"m"}}"#)), EnvelopeError::Id);
}

#[test]
fn what_is_no_single_message_is_refused() {
    assert_eq!(refused("[]"), EnvelopeError::Batch);
    assert_eq!(refused(r#"[{"jsonrpc":"2.0","id":1,"method":"m"}]"#), EnvelopeError::Batch);
    for body in ["1", "\"x\"", "null", "true"] {
        assert_eq!(refused(body), EnvelopeError::NotAnObject);
    }
    for body in [
        "{}",
        r#"{"id":1,"method":"m"}"#,
        r#"{"jsonrpc":2.0,"id":1,"method":"m"}"#,
        r#"{"jsonrpc":"1.0","id":1,"method":"m"}"#,
    ] {
        assert_eq!(refused(body), EnvelopeError::Version, "{body}");
    }
    for body in [
        r#"{"jsonrpc":"2.0","id":1}"#,
        r#"{"jsonrpc":"2.0","result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"m","result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":""}}"#,
    ] {
        assert_eq!(refused(body), EnvelopeError::Shape, "{body}");
    }
    assert_eq!(refused(r#"{"jsonrpc":"2.0","id":1,"method":3}"#), EnvelopeError::Method);
    for error in ["3", "{}", r#"{"code":"1","message":""}"#, r#"{"code":1.5,"message":""}"#, r#"{"code":1}"#] {
        assert_eq!(refused(&format!(r#"{{"jsonrpc":"2.0","id":1,"error":{error}}}"#)), EnvelopeError::Error, "{error}");
    }
    for body in [
        "",
        "{",
        r#"{"jsonrpc":"2.0","id":1,"method":"m"} x"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"m"}{}"#,
        "\u{feff}{}",
    ] {
        assert!(
            matches!(refused(body), EnvelopeError::Json(ScanError::Syntax { .. }) | EnvelopeError::NotAnObject),
            "{body}"
        );
    }
    assert_eq!(parse(b"{\"jsonrpc\":\"2.0\",\"id\":\"\xff\"}").unwrap_err().error, EnvelopeError::NotUtf8);
}

#[test]
fn wrong_types_name_the_parameter() {
    for (params, error) in [
        ("[1]", EnvelopeError::Params),
        ("\"x\"", EnvelopeError::Params),
        (r#"{"name":3}"#, EnvelopeError::Field { key: "name", expected: "a string" }),
        (r#"{"arguments":[]}"#, EnvelopeError::Field { key: "arguments", expected: "an object" }),
        (r#"{"_meta":3}"#, EnvelopeError::Meta { key: "_meta", expected: "an object" }),
        (
            r#"{"_meta":{"io.modelcontextprotocol/protocolVersion":3}}"#,
            EnvelopeError::Meta { key: "io.modelcontextprotocol/protocolVersion", expected: "a string" },
        ),
        (
            r#"{"_meta":{"io.modelcontextprotocol/clientCapabilities":null}}"#,
            EnvelopeError::Meta { key: "io.modelcontextprotocol/clientCapabilities", expected: "an object" },
        ),
    ] {
        assert_eq!(
            refused(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{params}}}"#)),
            error,
            "{params}"
        );
    }
    let call = request(r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"name":null,"arguments":null,"_meta":null}}"#);
    assert!(call.params.name.is_none() && call.params.arguments.is_none() && call.params.meta.is_none());
}

#[test]
fn a_refusal_keeps_the_id_wherever_it_stands() {
    for body in [
        r#"{"jsonrpc":"2.0","id":9,"method":"m","params":{"name":3}}"#,
        r#"{"jsonrpc":"2.0","method":"m","params":{"name":3},"id":9}"#,
        r#"{"method":"m","id":9}"#,
    ] {
        assert_eq!(parse(body.as_bytes()).unwrap_err().id.unwrap().as_str(), "9", "{body}");
    }
    assert!(parse(br#"{"jsonrpc":"2.0","id":9,"error":3}"#).unwrap_err().id.is_none(), "nobody answers an answer");
}

#[test]
fn hostile_bodies_are_survived() {
    let nested = |open: &str, close: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{"arguments":{{"a":{}1{}}}}}}}"#,
            open.repeat(100_000),
            close.repeat(100_000)
        )
    };
    assert!(matches!(refused(&nested("[", "]")), EnvelopeError::Json(ScanError::TooDeep { .. })));
    assert!(matches!(refused(&nested("{\"a\":", "}")), EnvelopeError::Json(ScanError::TooDeep { .. })));
    assert!(matches!(refused(&"[".repeat(100_000)), EnvelopeError::Json(ScanError::TooDeep { .. })));
    assert!(matches!(
        refused(r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"name":"\ud800"}}"#),
        EnvelopeError::Json(ScanError::Surrogate { .. })
    ));
    request(r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"arguments":{"x":"\ud800","\udfff":1e999999}}}"#);
    assert!(matches!(refused("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"m\0\"}"), EnvelopeError::Json(_)));
    let nul = request(r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"name":"a\u0000b"}}"#);
    assert_eq!(nul.params.name.unwrap().value, "a\0b");
    let many: String = (0..200_000).map(|n| format!("\"k{n}\":0,")).collect();
    request(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{{many}"name":"x"}}}}"#));
}

proptest! {
    #[test]
    fn any_request_is_read_as_serde_json_reads_it(
        id in prop_oneof![any::<i64>().prop_map(Value::from), "[a-z\"\\\\é]{0,12}".prop_map(Value::from)],
        method in any::<String>(),
        name in proptest::option::of(any::<String>()),
        arguments in proptest::option::of(prop::collection::hash_map("[a-z]{0,4}", any_json(), 0..4)),
        token in proptest::option::of(any::<i32>()),
        extra in any_json(),
        pretty in any::<bool>(),
    ) {
        let mut params = json!({"zzz": extra});
        if let Some(name) = &name { params["name"] = json!(name); }
        if let Some(arguments) = &arguments { params["arguments"] = json!(arguments); }
        if let Some(token) = token { params["_meta"] = json!({"progressToken": token, "q": extra}); }
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let body = if pretty { serde_json::to_string_pretty(&message) } else { serde_json::to_string(&message) }.unwrap();
        let read = request(&body);
        prop_assert_eq!(serde_json::from_str::<Value>(read.id.as_str()).unwrap(), id);
        prop_assert_eq!(&*read.method, &method);
        prop_assert_eq!(read.params.name.as_ref().map(|text| text.value.as_ref()), name.as_deref());
        if let Some(text) = &read.params.name {
            prop_assert_eq!(serde_json::from_str::<String>(&body[text.span.start..text.span.end]).unwrap(), &*text.value);
        }
        let decoded = read.params.arguments.map(|raw| serde_json::from_str::<Value>(raw.as_str()).unwrap());
        prop_assert_eq!(decoded, arguments.map(|arguments| json!(arguments)));
        let read_token = read.params.meta.and_then(|meta| meta.progress_token).map(|raw| raw.as_str().to_owned());
        prop_assert_eq!(read_token, token.map(|token| token.to_string()));
    }

    #[test]
    fn noise_is_refused_without_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let parsed = parse(&body);
        if serde_json::from_slice::<Value>(&body).is_err() {
            prop_assert!(parsed.is_err());
        }
    }

    #[test]
    fn truncation_and_damage_never_panic(cut in 0..CALL.len(), with in any::<u8>()) {
        prop_assert!(parse(&CALL.as_bytes()[..cut]).is_err());
        let mut damaged = CALL.as_bytes().to_vec();
        damaged[cut] = with;
        if parse(&damaged).is_ok() {
            prop_assert!(serde_json::from_slice::<Value>(&damaged).is_ok());
        }
    }
}
