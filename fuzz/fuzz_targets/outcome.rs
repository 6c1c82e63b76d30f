//! The judge of passing bodies: chunks do not matter, and it agrees with the readers that take a body whole.
#![no_main]

use archestra_fuzz::{choose, chunks};
use archestra_gateway::mcp::{
    envelope::{self, Message},
    outcome::{BodyFormat, Outcome, OutcomeScanner},
    response::Payload,
    sse::Decoder,
};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((seed, body)) = choose(data) else { return };
    for format in [BodyFormat::Json, BodyFormat::EventStream] {
        let whole = judge(format, &[body]);
        assert_eq!(whole, judge(format, &chunks(body, seed)));
        assert_eq!(whole, judge(format, &body.chunks(1).collect::<Vec<_>>()));
    }
    if let Ok(message) = envelope::parse(body) {
        assert_eq!(judge(BodyFormat::Json, &[body]), outcome(&message).unwrap_or(Outcome::Missing));
    }
    if let Some(expected) = of_events(body) {
        assert_eq!(judge(BodyFormat::EventStream, &[body]), expected);
    }
});

fn judge(format: BodyFormat, chunks: &[&[u8]]) -> Outcome {
    let mut scanner = OutcomeScanner::new(format);
    for chunk in chunks {
        scanner.push(chunk);
    }
    scanner.finish()
}

fn outcome(message: &Message<'_>) -> Option<Outcome> {
    let Message::Response(response) = message else { return None };
    Some(match &response.payload {
        Payload::Result(result) if result.is_error => Outcome::ToolError,
        Payload::Result(_) => Outcome::Success,
        Payload::Error(_) => Outcome::ProtocolError,
    })
}

/// What an event stream says in which every event is a message.
fn of_events(body: &[u8]) -> Option<Outcome> {
    let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::from(body));
    let mut last = Outcome::Missing;
    while let Some(event) = decoder.finish(&mut buffer).ok()? {
        if let Some(outcome) = outcome(&envelope::parse(&event.data).ok()?) {
            last = outcome;
        }
    }
    Some(last)
}
