//! Tests of the modern header rules.

use http::HeaderName;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::envelope::{self, Message};
use super::super::error::code;
use super::super::json::Raw;
use super::*;

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        })
        .collect()
}

fn body(method: &str, mut params: Value) -> String {
    params["_meta"] = json!({meta::PROTOCOL_VERSION: "2026-07-28", meta::CLIENT_CAPABILITIES: {}});
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string()
}

fn validate(headers: &HeaderMap, body: &str) -> Result<ProtocolVersion, i64> {
    let Ok(Message::Request(request)) = envelope::parse(body.as_bytes()) else { panic!("{body}") };
    validate_modern(headers, &request).map_err(|error| error.code(Era::Modern))
}

const VERSION: (&str, &str) = ("mcp-protocol-version", "2026-07-28");

#[test]
fn a_complete_request_passes() {
    for (method, params, name) in [
        ("tools/call", json!({"name": "échö"}), Some("=?base64?w6ljaMO2?=")),
        ("tools/call", json!({"name": "t"}), Some("t")),
        ("tools/call", json!({"name": "t"}), Some("=?base64?dA==?=")),
        ("resources/read", json!({"uri": "file:///a b"}), Some("file:///a b")),
        ("tasks/get", json!({"taskId": "k"}), Some("k")),
        ("tools/list", json!({}), None),
    ] {
        let mut pairs = vec![VERSION, ("mcp-method", method)];
        pairs.extend(name.map(|name| ("mcp-name", name)));
        assert_eq!(validate(&headers(&pairs), &body(method, params)), Ok(ProtocolVersion::V2026_07_28), "{method}");
    }
}

#[test]
fn missing_doubled_and_different_headers_are_refused() {
    let call = body("tools/call", json!({"name": "t"}));
    for pairs in [
        &[][..],
        &[VERSION],
        &[VERSION, ("mcp-method", "tools/call")],
        &[VERSION, ("mcp-name", "t")],
        &[("mcp-method", "tools/call"), ("mcp-name", "t")],
        &[("mcp-protocol-version", "2025-11-25"), ("mcp-method", "tools/call"), ("mcp-name", "t")],
        &[VERSION, ("mcp-method", "tools/list"), ("mcp-name", "t")],
        &[VERSION, ("mcp-method", "Tools/call"), ("mcp-name", "t")],
        &[VERSION, ("mcp-method", "tools/call"), ("mcp-name", "T")],
        &[VERSION, ("mcp-method", "tools/call"), ("mcp-name", "=?base64?dQ==?=")],
        &[VERSION, ("mcp-method", "tools/call"), ("mcp-name", "=?base64?%%?=")],
        &[VERSION, ("mcp-method", "tools/call"), ("mcp-name", "=?base64?/w==?=")],
        &[VERSION, ("mcp-method", "tools/call"), ("mcp-name", "t\u{e9}")],
        &[VERSION, ("mcp-method", "tools/call"), ("mcp-name", "t"), ("mcp-name", "t")],
        &[VERSION, VERSION, ("mcp-method", "tools/call"), ("mcp-name", "t")],
    ] {
        assert_eq!(validate(&headers(pairs), &call), Err(code::HEADER_MISMATCH), "{pairs:?}");
    }
}

#[test]
fn incomplete_meta_is_malformed() {
    let all = headers(&[VERSION, ("mcp-method", "tools/list")]);
    for meta in
        [json!(null), json!({}), json!({meta::PROTOCOL_VERSION: "2026-07-28"}), json!({meta::CLIENT_CAPABILITIES: {}})]
    {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}).to_string();
        let Ok(Message::Request(request)) = envelope::parse(body.as_bytes()) else { panic!() };
        let error = validate_modern(&all, &request).unwrap_err();
        assert_eq!((error.code(Era::Modern), error.http_status(Era::Modern).as_u16()), (-32602, 400), "{body}");
    }
}

#[test]
fn revisions_that_are_not_served_modern_are_refused() {
    for version in ["2031-01-01", "2025-11-25", "x"] {
        let body = body("tools/list", json!({})).replace("2026-07-28", version);
        let headers = headers(&[("mcp-protocol-version", version), ("mcp-method", "tools/list")]);
        assert_eq!(validate(&headers, &body), Err(code::UNSUPPORTED_PROTOCOL_VERSION), "{version}");
    }
}

#[test]
fn a_call_without_a_name_is_bad_parameters() {
    let headers = headers(&[VERSION, ("mcp-method", "tools/call"), ("mcp-name", "t")]);
    assert_eq!(validate(&headers, &body("tools/call", json!({}))), Err(code::INVALID_PARAMS));
}

#[test]
fn the_era_shows_in_body_or_header() {
    let era = |pairs: &[(&str, &str)], body: &str| {
        let Ok(Message::Request(request)) = envelope::parse(body.as_bytes()) else { panic!() };
        era_of(&headers(pairs), &request)
    };
    let plain = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    assert_eq!(era(&[], plain), Era::Legacy);
    assert_eq!(era(&[("mcp-protocol-version", "2025-11-25")], plain), Era::Legacy);
    assert_eq!(era(&[("mcp-protocol-version", "2031-01-01")], plain), Era::Legacy);
    assert_eq!(era(&[VERSION], plain), Era::Modern);
    assert_eq!(era(&[], &body("tools/list", json!({}))), Era::Modern);
    assert_eq!(era(&[VERSION], r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#), Era::Legacy);
}

#[test]
fn values_are_wrapped_as_the_specification_shows() {
    for (value, header) in [
        ("us-west1", "us-west1"),
        ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
        (" padded ", "=?base64?IHBhZGRlZCA=?="),
        ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
        ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ("=?base64?open", "=?base64?open"),
        ("", ""),
    ] {
        assert_eq!(encode_value(value), header, "{value:?}");
        assert_eq!(decode_value(header).as_deref(), Some(value));
    }
}

#[test]
fn our_headers_pass_our_own_check() {
    let call = body("tools/call", json!({"name": "näme"}));
    let mut made = headers(&[("mcp-name", "stale")]);
    emit_modern(&mut made, ProtocolVersion::LATEST, "tools/call", Some("näme")).unwrap();
    assert_eq!(validate(&made, &call), Ok(ProtocolVersion::LATEST));
    emit_modern(&mut made, ProtocolVersion::LATEST, "tools/list", None).unwrap();
    assert!(!made.contains_key("mcp-name"));
    assert!(emit_modern(&mut made, ProtocolVersion::LATEST, "a\nb", None).is_err());
}

fn schema() -> Value {
    json!({"type": "object", "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "limits": {"type": "object", "properties": {"max": {"type": ["integer", "null"], "x-mcp-header": "Max"}}},
        "dry": {"type": "boolean", "x-mcp-header": "Dry", "default": {"x-mcp-header": 3}},
        "x-mcp-header": {"type": "number"},
        "free": {"anyOf": [{"type": "string"}]}
    }})
}

#[test]
fn annotations_are_compiled() {
    assert_eq!(HeaderParams::compile(r#"{"type":"object"}"#), Ok(None));
    assert_eq!(HeaderParams::compile(r#"{"description":"x-mcp-header \u0041"}"#), Ok(None));
    let params = HeaderParams::compile(&schema().to_string()).unwrap().unwrap();
    let mut names: Vec<&str> = params.header_names().collect();
    names.sort_unstable();
    assert_eq!(names, ["mcp-param-dry", "mcp-param-max", "mcp-param-region"]);
}

#[test]
fn broken_annotations_are_reported() {
    let property = |schema: Value| json!({"type": "object", "properties": {"p": schema}});
    for (schema, wanted) in [
        (property(json!({"type": "string", "x-mcp-header": ""})), "token"),
        (property(json!({"type": "string", "x-mcp-header": 3})), "token"),
        (property(json!({"type": "string", "x-mcp-header": "a b"})), "token"),
        (property(json!({"type": "string", "x-mcp-header": "a\r\nb: c"})), "token"),
        (property(json!({"type": "string", "x-mcp-header": "é"})), "token"),
        (property(json!({"type": "number", "x-mcp-header": "P"})), "type"),
        (property(json!({"type": "object", "x-mcp-header": "P"})), "type"),
        (property(json!({"type": ["string", "integer"], "x-mcp-header": "P"})), "type"),
        (property(json!({"x-mcp-header": "P"})), "type"),
        (property(json!({"items": {"type": "string", "x-mcp-header": "P"}})), "reached"),
        (property(json!({"anyOf": [{"type": "string", "x-mcp-header": "P"}]})), "reached"),
        (property(json!({"not": {"properties": {"q": {"type": "string", "x-mcp-header": "P"}}}})), "reached"),
        (json!({"$defs": {"d": {"type": "string", "x-mcp-header": "P"}}}), "reached"),
        (json!({"type": "object", "x-mcp-header": "P"}), "reached"),
        (
            json!({"properties": {"a": {"type": "string", "x-mcp-header": "P"}, "b": {"type": "string", "x-mcp-header": "p"}}}),
            "more than once",
        ),
        (json!(["x-mcp-header"]), "object"),
    ] {
        let error = HeaderParams::compile(&schema.to_string()).unwrap_err().to_string();
        assert!(error.to_lowercase().contains(wanted), "{schema}: {error}");
    }
}

fn check(pairs: &[(&str, &str)], arguments: &str) -> Result<(), i64> {
    let params = HeaderParams::compile(&schema().to_string()).unwrap().unwrap();
    let arguments = Raw::parse(arguments).unwrap();
    params.validate(&headers(pairs), Some(arguments)).map_err(|error| error.code(Era::Modern))
}

#[test]
fn mirrored_arguments_must_agree() {
    const BAD: Result<(), i64> = Err(code::HEADER_MISMATCH);
    let region = ("mcp-param-region", "eu");
    for (pairs, arguments, wanted) in [
        (&[region][..], r#"{"region":"eu"}"#, Ok(())),
        (&[region], r#"{"reg\u0069on":"e\u0075"}"#, Ok(())),
        (&[("mcp-param-region", "=?base64?ZXU=?=")], r#"{"region":"eu"}"#, Ok(())),
        (&[], r#"{"region":null,"limits":{"max":null},"other":1}"#, Ok(())),
        (&[], "{}", Ok(())),
        (&[], r#"{"limits":3}"#, Ok(())),
        (&[("mcp-param-max", "42")], r#"{"limits":{"max":42}}"#, Ok(())),
        (&[("mcp-param-max", "42.0")], r#"{"limits":{"max":42}}"#, Ok(())),
        (&[("mcp-param-max", "42")], r#"{"limits":{"max":4.2e1}}"#, Ok(())),
        (&[("mcp-param-dry", "true")], r#"{"dry":true}"#, Ok(())),
        (&[("mcp-param-unknown", "x")], "{}", Ok(())),
        (&[], r#"{"region":"eu"}"#, BAD),
        (&[region], "{}", BAD),
        (&[region], r#"{"region":null}"#, BAD),
        (&[region], r#"{"region":"us"}"#, BAD),
        (&[region, region], r#"{"region":"eu"}"#, BAD),
        (&[region], r#"{"region":"us","region":"eu"}"#, BAD),
        (&[("mcp-param-max", "43")], r#"{"limits":{"max":42}}"#, BAD),
        (&[("mcp-param-max", "inf")], r#"{"limits":{"max":1e999}}"#, BAD),
        (&[("mcp-param-max", "9007199254740993")], r#"{"limits":{"max":9007199254740992.0}}"#, BAD),
        (&[("mcp-param-dry", "True")], r#"{"dry":true}"#, BAD),
        (&[("mcp-param-dry", "=?base64?!?=")], r#"{"dry":true}"#, BAD),
    ] {
        assert_eq!(check(pairs, arguments), wanted, "{pairs:?} {arguments}");
    }
}

#[test]
fn calls_without_arguments_need_no_headers() {
    let params = HeaderParams::compile(&schema().to_string()).unwrap().unwrap();
    assert!(params.validate(&HeaderMap::new(), None).is_ok());
    let mut made = HeaderMap::new();
    params.emit(&mut made, None).unwrap();
    assert!(made.is_empty());
}

#[test]
fn integers_are_emitted_in_decimal() {
    let params = HeaderParams::compile(&schema().to_string()).unwrap().unwrap();
    for (number, header) in [("42", "42"), ("-7", "-7"), ("42.0", "42"), ("1e2", "100"), ("4.5", "4.5")] {
        let arguments = format!(r#"{{"limits":{{"max":{number}}}}}"#);
        let mut made = HeaderMap::new();
        params.emit(&mut made, Some(Raw::parse(&arguments).unwrap())).unwrap();
        assert_eq!(made["mcp-param-max"], header);
    }
}

proptest! {
    #[test]
    fn any_text_travels(value in any::<String>()) {
        let encoded = encode_value(&value);
        let decoded = decode_value(encoded.to_str().unwrap());
        prop_assert_eq!(decoded.as_deref(), Some(value.as_str()));
    }

    #[test]
    fn what_is_emitted_is_valid(region in proptest::option::of(any::<String>()), max in proptest::option::of(any::<i64>()), dry in proptest::option::of(any::<bool>())) {
        let arguments = json!({"region": region, "limits": {"max": max}, "dry": dry}).to_string();
        let arguments = Raw::parse(&arguments).unwrap();
        let params = HeaderParams::compile(&schema().to_string()).unwrap().unwrap();
        let mut made = HeaderMap::new();
        params.emit(&mut made, Some(arguments)).unwrap();
        prop_assert!(params.validate(&made, Some(arguments)).is_ok());
        prop_assert_eq!(made.len(), usize::from(region.is_some()) + usize::from(max.is_some()) + usize::from(dry.is_some()));
    }

    #[test]
    fn any_schema_text_is_survived(text in any::<String>(), schema in super::super::json::tests::any_json()) {
        drop(HeaderParams::compile(&text));
        drop(HeaderParams::compile(&json!({"x-mcp-header": schema, "properties": {"x-mcp-header": schema}}).to_string()));
    }
}
