//! Tests of responses and their translation.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::envelope::{self, Message};
use super::super::json::tests::any_json;
use super::super::splice::Piece;
use super::*;

fn read(message: &Bytes) -> Response<'_> {
    match envelope::parse(message) {
        Ok(Message::Response(response)) => response,
        other => panic!("{other:?}"),
    }
}

fn modern(message: &Value, asked: Asked) -> Value {
    let message = Bytes::from(message.to_string());
    let out = to_modern(&message, &read(&message), asked, Some(Piece::Quoted("mine"))).unwrap();
    serde_json::from_slice(&out).unwrap()
}

fn legacy(message: &Value, asked: Asked) -> Value {
    let message = Bytes::from(message.to_string());
    let out = to_legacy(&message, &read(&message), asked, Some(Piece::Number(12))).unwrap();
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn legacy_results_are_completed() {
    let out = modern(&json!({"jsonrpc": "2.0", "id": 1, "result": {"content": []}}), Asked::ToolCall);
    assert_eq!(out, json!({"jsonrpc": "2.0", "id": "mine", "result": {"content": [], "resultType": "complete"}}));
    let out = modern(&json!({"jsonrpc": "2.0", "id": 1, "result": {}}), Asked::Other);
    assert_eq!(out["result"], json!({"resultType": "complete"}));
    let out = modern(&json!({"jsonrpc": "2.0", "id": 1, "result": {"tools": [], "ttlMs": 5}}), Asked::of("tools/list"));
    assert_eq!(out["result"], json!({"resultType": "complete", "tools": [], "ttlMs": 5, "cacheScope": "private"}));
    let out =
        modern(&json!({"jsonrpc": "2.0", "id": 1, "result": {"resultType": "task", "taskId": "t"}}), Asked::ToolCall);
    assert_eq!(out["result"], json!({"resultType": "task", "taskId": "t"}));
}

#[test]
fn a_result_type_that_is_no_string_is_replaced_and_not_doubled() {
    let message = Bytes::from_static(br#"{"jsonrpc":"2.0","id":1,"result":{"resultType":{"a":1},"x":2}}"#);
    let out = to_modern(&message, &read(&message), Asked::Other, None).unwrap();
    assert_eq!(&*out, br#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","x":2}}"#);
    let out = to_legacy(&message, &read(&message), Asked::Other, None).unwrap();
    assert_eq!(&*out, br#"{"jsonrpc":"2.0","id":1,"result":{"x":2}}"#);
}

#[test]
fn numbers_that_the_modern_era_took_back_are_replaced() {
    let missing = json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -32002, "message": "no such resource", "data": {"uri": "u"}}});
    let out = modern(&missing, Asked::of("resources/read"));
    assert_eq!(out["error"], json!({"code": -32602, "message": "no such resource", "data": {"uri": "u"}}));
    let visit = json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -32042, "message": "sign in", "data": {"elicitations": [{"mode": "url", "url": "https://x/y", "message": "open", "elicitationId": "e"}]}}});
    let out = modern(&visit, Asked::ToolCall);
    assert_eq!(out["result"]["isError"], json!(true));
    assert_eq!(out["result"]["resultType"], json!("complete"));
    assert_eq!(out["result"]["content"][0]["text"], json!("sign in: open: https://x/y"));
    assert_eq!(modern(&visit, Asked::Other)["error"]["code"], json!(-32603));
    let other = json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": "m"}});
    assert_eq!(modern(&other, Asked::ToolCall)["error"], other["error"]);
}

#[test]
fn modern_fields_are_taken_from_results() {
    let out = legacy(
        &json!({"jsonrpc": "2.0", "id": "x", "result": {"resultType": "complete", "ttlMs": 1, "cacheScope": "public", "tools": [{"resultType": "kept"}]}}),
        Asked::Cacheable,
    );
    assert_eq!(out, json!({"jsonrpc": "2.0", "id": 12, "result": {"tools": [{"resultType": "kept"}]}}));
    let only = legacy(&json!({"jsonrpc": "2.0", "id": 1, "result": {"resultType": "complete"}}), Asked::Other);
    assert_eq!(only["result"], json!({}));
}

#[test]
fn results_that_are_not_final_become_errors_that_say_so() {
    let message = json!({"jsonrpc": "2.0", "id": 1, "result": {"resultType": "input_required", "requestState": "s", "inputRequests": {
        "a": {"method": "elicitation/create", "params": {"mode": "url", "url": "https://x/", "message": "connect"}}}}});
    let out = legacy(&message, Asked::ToolCall);
    assert_eq!(out["id"], json!(12));
    assert_eq!(out["result"]["isError"], json!(true));
    assert!(out["result"].get("resultType").is_none());
    let text = out["result"]["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("more input") && text.ends_with(": connect: https://x/"), "{text}");
    assert_eq!(legacy(&message, Asked::Other)["error"]["code"], json!(-32603));
    for kind in ["task", "x.y/new"] {
        let message = json!({"jsonrpc": "2.0", "id": 1, "result": {"resultType": kind}});
        assert_eq!(legacy(&message, Asked::ToolCall)["result"]["isError"], json!(true));
    }
}

#[test]
fn the_modern_numbers_are_kept_from_legacy_callers() {
    for code in [-32020, -32021, -32022] {
        let message = json!({"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": "m"}});
        assert_eq!(legacy(&message, Asked::ToolCall)["error"], json!({"code": -32603, "message": "m"}));
    }
}

#[test]
fn parts_for_retries_and_tasks_are_found() {
    let message = Bytes::from_static(br#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required","requestState":"opa\"que","inputRequests":{"k":{}}}}"#);
    let Payload::Result(result) = read(&message).payload else { panic!() };
    assert!(result.is_input_required());
    assert_eq!(result.request_state.unwrap().value, "opa\"que");
    assert_eq!(result.input_requests.unwrap().as_str(), r#"{"k":{}}"#);
    let message =
        Bytes::from_static(br#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"task","taskId":"t1","ttlMs":null}}"#);
    let Payload::Result(result) = read(&message).payload else { panic!() };
    assert_eq!(result.task_id.unwrap().value, "t1");
}

#[test]
fn an_id_can_be_given_to_any_answer() {
    for message in [
        &br#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}"#[..],
        br#"{"jsonrpc":"2.0","error":{"code":1,"message":""}}"#,
        br#" {"error":{"code":1,"message":""},"jsonrpc":"2.0","id":77}"#,
    ] {
        let message = Bytes::from_static(message);
        let out = reidentify(&message, &read(&message), Piece::Raw("\"q\"")).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&out).unwrap()["id"], json!("q"));
    }
}

#[test]
fn results_that_are_no_objects_pass() {
    let message = json!({"jsonrpc": "2.0", "id": 1, "result": [1]});
    assert_eq!(modern(&message, Asked::Other)["result"], json!([1]));
    assert_eq!(legacy(&message, Asked::Other)["result"], json!([1]));
}

proptest! {
    #[test]
    fn there_and_back_changes_nothing_but_the_id(
        result in prop::collection::hash_map("[a-z\"]{1,6}", any_json(), 0..5),
        pretty in any::<bool>(),
    ) {
        let message = json!({"jsonrpc": "2.0", "id": 3, "result": result});
        let text = if pretty { serde_json::to_string_pretty(&message) } else { serde_json::to_string(&message) }.unwrap();
        let message = Bytes::from(text.clone());
        let there = to_modern(&message, &read(&message), Asked::Cacheable, Some(Piece::Quoted("m"))).unwrap();
        let value: Value = serde_json::from_slice(&there).unwrap();
        prop_assert_eq!(&value["result"]["resultType"], &json!("complete"));
        let back = to_legacy(&there, &read(&there), Asked::Cacheable, Some(Piece::Number(3))).unwrap();
        prop_assert_eq!(serde_json::from_slice::<Value>(&back).unwrap(), serde_json::from_str::<Value>(&text).unwrap());
    }

    #[test]
    fn modern_members_go_from_any_place(order in Just(vec!["resultType", "ttlMs", "cacheScope", "a", "b"]).prop_shuffle(), take in 0..6_usize) {
        let members: Vec<String> = order.iter().take(take).map(|key| format!("{key:?} : {}", if *key == "resultType" { "\"complete\"" } else { "0" })).collect();
        let message = Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{ {} }}}}"#, members.join(" , ")));
        let out = to_legacy(&message, &read(&message), Asked::Other, None).unwrap();
        let out: Value = serde_json::from_slice(&out).unwrap();
        let kept: serde_json::Map<String, Value> = order.iter().take(take).filter(|key| key.len() == 1).map(|key| ((*key).to_owned(), json!(0))).collect();
        prop_assert_eq!(&out["result"], &Value::Object(kept));
    }
}
