//! Servers' answers made into those of the other era: always a JSON-RPC response, under the id that was asked for.
#![no_main]

use archestra_fuzz::{assert_json, choose};
use archestra_gateway::mcp::{
    envelope::{self, Message},
    response::{Asked, Payload, Response, reidentify, to_legacy, to_modern},
    splice::Piece,
};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((choice, body)) = choose(data) else { return };
    let body = Bytes::copy_from_slice(body);
    let Ok(Message::Response(response)) = envelope::parse(&body) else { return };
    let asked = [Asked::ToolCall, Asked::Cacheable, Asked::Other][usize::from(choice) % 3];
    let id = Some(Piece::Raw("\"ours\""));

    let same = reidentify(&body, &response, Piece::Raw("\"ours\"")).expect("the response was parsed from the body");
    read(&same);
    let modern = to_modern(&body, &response, asked, id).expect("the response was parsed from the body");
    let read_back = read(&modern);
    if let Payload::Result(result) = &read_back.payload {
        assert!(!result.raw.as_str().starts_with('{') || result.result_type.is_some());
    }
    let legacy = to_legacy(&body, &response, asked, id).expect("the response was parsed from the body");
    if let Payload::Result(result) = &read(&legacy).payload {
        assert!(result.result_type.is_none() && result.ttl_ms.is_none() && result.cache_scope.is_none());
    }
    // There and back again is still a response.
    read(&to_legacy(&modern, &read_back, asked, id).expect("the response was parsed from the body"));
    assert_json(&to_modern(&body, &response, asked, None).expect("the response was parsed from the body"));
});

fn read(bytes: &Bytes) -> Response<'_> {
    match envelope::parse(bytes) {
        Ok(Message::Response(response)) => {
            assert_eq!(response.id.expect("it has an id").as_str(), "\"ours\"");
            response
        }
        other => panic!("no response any more: {} {other:?}", String::from_utf8_lossy(bytes)),
    }
}
