//! The event stream decoder: chunks do not matter, limits hold, and what the encoder writes comes back.
#![no_main]

use archestra_fuzz::{choose, chunks};
use archestra_gateway::mcp::sse::{Decoder, Event, SseError, encode_message, is_single_line};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 256;

fuzz_target!(|data: &[u8]| {
    let Some((seed, stream)) = choose(data) else { return };
    for limit in [LIMIT, usize::MAX] {
        let whole = decode(limit, &[stream]);
        assert_eq!(whole, decode(limit, &chunks(stream, seed)));
        assert_eq!(whole, decode(limit, &stream.chunks(1).collect::<Vec<_>>()));
        if let (events, None) = &whole {
            assert!(events.iter().all(|event| event.data.len() <= limit));
        }
    }
    let encoded = encode_message(stream, Some("7"));
    let (events, error) = decode(usize::MAX, &[&encoded]);
    let [event] = events.as_slice() else { panic!("one message is {} events", events.len()) };
    assert!(error.is_none() && event.is_message() && event.id.as_deref() == Some("7"));
    if is_single_line(stream) {
        assert_eq!(event.data, stream);
    }
});

fn decode(limit: usize, chunks: &[&[u8]]) -> (Vec<Event>, Option<SseError>) {
    let (mut decoder, mut buffer, mut events) = (Decoder::new(limit), BytesMut::new(), Vec::new());
    for chunk in chunks {
        buffer.extend_from_slice(chunk);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(error) => return (events, Some(error)),
            }
        }
    }
    loop {
        match decoder.finish(&mut buffer) {
            Ok(Some(event)) => events.push(event),
            Ok(None) => return (events, None),
            Err(error) => return (events, Some(error)),
        }
    }
}
