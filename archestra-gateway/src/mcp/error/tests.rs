//! Tests of error codes, statuses and rendering.

use serde_json::{Value, json};

use super::super::envelope;
use super::*;

#[test]
fn renders_with_the_callers_id_or_null() {
    let error = RpcError::new(ErrorKind::MethodNotFound, "no \"x\"\nhere").with_data(&json!({"a": 1}));
    let rendered: Value = serde_json::from_slice(&error.render(Id::parse("\"q\\u0031\""), Era::Modern)).unwrap();
    assert_eq!(
        rendered,
        json!({"jsonrpc": "2.0", "id": "q1", "error": {"code": -32601, "message": "no \"x\"\nhere", "data": {"a": 1}}})
    );
    let rendered: Value = serde_json::from_slice(&error.render(None, Era::Legacy)).unwrap();
    assert_eq!(rendered["id"], Value::Null);
}

#[test]
fn modern_statuses_follow_the_specification() {
    for (kind, code, status) in [
        (ErrorKind::Parse, -32700, 400),
        (ErrorKind::InvalidRequest, -32600, 400),
        (ErrorKind::MethodNotFound, -32601, 404),
        (ErrorKind::InvalidParams, -32602, 200),
        (ErrorKind::MalformedMeta, -32602, 400),
        (ErrorKind::ResourceNotFound, -32602, 200),
        (ErrorKind::HeaderMismatch, -32020, 400),
        (ErrorKind::MissingClientCapability, -32021, 400),
        (ErrorKind::UnsupportedVersion, -32022, 400),
        (ErrorKind::Internal, -32603, 200),
        (ErrorKind::Other(7), 7, 200),
    ] {
        assert_eq!(kind.code(Era::Modern), code, "{kind:?}");
        assert_eq!(kind.http_status(Era::Modern), status, "{kind:?}");
    }
}

#[test]
fn each_era_is_spared_the_others_numbers() {
    for kind in [ErrorKind::ResourceNotFound, ErrorKind::UrlElicitationRequired] {
        assert!(![-32002, -32042].contains(&kind.code(Era::Modern)));
    }
    for kind in [ErrorKind::HeaderMismatch, ErrorKind::MissingClientCapability, ErrorKind::UnsupportedVersion] {
        assert!(!(-32099..=-32020).contains(&kind.code(Era::Legacy)));
    }
    assert_eq!(ErrorKind::ResourceNotFound.code(Era::Legacy), -32002);
    assert_eq!(ErrorKind::MethodNotFound.http_status(Era::Legacy), 200);
}

#[test]
fn an_unsupported_version_says_which_are_supported() {
    let error = RpcError::unsupported_version("2031-01-01");
    let data: Value = serde_json::from_str(error.data.as_ref().unwrap().get()).unwrap();
    assert_eq!(data, json!({"supported": ["2026-07-28"], "requested": "2031-01-01"}));
}

#[test]
fn envelope_errors_become_the_right_codes() {
    for (body, code) in [
        (&b"{"[..], -32700),
        (b"\xff", -32700),
        (b"[]", -32600),
        (b"3", -32600),
        (br#"{"jsonrpc":"2.0","id":1,"method":"m","params":[]}"#, -32602),
        (br#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"progressToken":{}}}}"#, -32602),
        (br#"{"jsonrpc":"2.0","id":1,"id":2,"method":"m"}"#, -32600),
    ] {
        let rejected = envelope::parse(body).unwrap_err();
        assert_eq!(RpcError::from(&rejected.error).code(Era::Modern), code, "{}", String::from_utf8_lossy(body));
    }
}
