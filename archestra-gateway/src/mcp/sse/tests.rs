//! Tests of the event stream decoder and encoder.

use proptest::prelude::*;

use super::*;

fn decode_in(chunks: &[&[u8]], limit: usize) -> Result<Vec<Event>, SseError> {
    let mut decoder = Decoder::new(limit);
    let mut buffer = BytesMut::new();
    let mut events = Vec::new();
    for chunk in chunks {
        buffer.extend_from_slice(chunk);
        while let Some(event) = decoder.decode(&mut buffer)? {
            events.push(event);
        }
    }
    Ok(events)
}

fn decode(body: &str) -> Vec<Event> {
    let whole = decode_in(&[body.as_bytes()], 4096).unwrap();
    let bytes: Vec<&[u8]> = body.as_bytes().chunks(1).collect();
    assert_eq!(decode_in(&bytes, 4096).unwrap(), whole, "{body:?}");
    whole
}

fn data(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| std::str::from_utf8(&event.data).unwrap()).collect()
}

#[test]
fn every_line_ending_works() {
    for ending in ["\n", "\r\n", "\r"] {
        let body = ["event: message", "data: one", "", "data: a", "data:b", "data", "", ""].join(ending);
        let events = decode(&body);
        assert_eq!(data(&events)[0], "one", "{ending:?}");
        assert!(events[0].is_message());
        // A carriage return at the end may be followed by its line feed, but the event is complete.
        assert_eq!(data(&events)[1], "a\nb\n", "{ending:?}");
    }
}

#[test]
fn fields_are_read_as_the_standard_says() {
    let events = decode(
        "\u{feff}: comment\nid: 7\nevent: endpoint\ndata:  two spaces\nretry: 1500\nunknown: x\n\ndata: next\n\n",
    );
    assert_eq!(events[0].event.as_deref(), Some("endpoint"));
    assert!(!events[0].is_message());
    assert_eq!(events[0].id.as_deref(), Some("7"));
    assert_eq!(data(&events), [" two spaces", "next"]);
    assert_eq!(events[1].event, None);
    assert_eq!(events[1].id.as_deref(), Some("7"), "an id stays until another one comes");
}

#[test]
fn events_without_data_are_none_and_empty_data_is_some() {
    assert!(decode("event: x\n\nid: 1\n\n: c\n\n\n\n").is_empty());
    let events = decode("id: prime\ndata:\n\n");
    assert_eq!((events[0].id.as_deref(), events[0].data.len()), (Some("prime"), 0));
    assert!(decode("data: incomplete\n").is_empty());
    assert_eq!(decode("id: a\u{0}b\ndata: x\n\n")[0].id, None);
}

#[test]
fn retry_and_resumption_are_kept() {
    let mut decoder = Decoder::default();
    let mut buffer = BytesMut::from("id: 9\nretry: 250\nretry: soon\n\n");
    assert_eq!(decoder.decode(&mut buffer), Ok(None));
    assert_eq!(decoder.retry(), Some(Duration::from_millis(250)));
    assert_eq!(decoder.last_event_id(), Some("9"));
}

#[test]
fn a_stream_may_end_without_its_blank_line() {
    for rest in ["data: x\n", "data: x", "data: x\r\n"] {
        let mut decoder = Decoder::default();
        let mut buffer = BytesMut::from(rest);
        assert_eq!(decoder.decode(&mut buffer), Ok(None));
        assert_eq!(decoder.finish(&mut buffer).unwrap().unwrap().data, "x");
        assert_eq!(decoder.finish(&mut buffer), Ok(None));
    }
}

#[test]
fn single_line_data_is_not_copied() {
    let mut decoder = Decoder::default();
    let mut buffer = BytesMut::from("data: {\"a\":1}\n\n");
    let at = buffer.as_ptr() as usize + 6;
    assert_eq!(decoder.decode(&mut buffer).unwrap().unwrap().data.as_ptr() as usize, at);
}

#[test]
fn size_is_limited_per_event() {
    let line = format!("data: {}\n", "x".repeat(50));
    assert_eq!(decode_in(&[line.as_bytes(), line.as_bytes()], 100), Err(SseError::TooLarge { limit: 100 }));
    assert_eq!(decode_in(&[&[b'x'; 101]], 100), Err(SseError::TooLarge { limit: 100 }));
    let small = "data: 12345\n\n".repeat(1000);
    assert_eq!(decode_in(&[small.as_bytes()], 20).unwrap().len(), 1000);
}

#[test]
fn messages_with_line_breaks_stay_one_event() {
    let json = b"{\n  \"a\": 1,\r\n\r  \"b\": 2\n}";
    let encoded = encode_message(json, Some("4\n2"));
    assert_eq!(encoded, "event: message\nid: 42\ndata: {\ndata:   \"a\": 1,\ndata: \ndata:   \"b\": 2\ndata: }\n\n");
    let events = decode(std::str::from_utf8(&encoded).unwrap());
    assert_eq!(events.len(), 1);
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&events[0].data).unwrap(),
        serde_json::json!({"a": 1, "b": 2})
    );
    assert!(!is_single_line(json));
}

#[test]
fn the_frame_without_copy_equals_the_encoded_one() {
    let json = b"{\"a\":1}";
    assert!(is_single_line(json));
    assert_eq!(encode_message(json, None), [&MESSAGE_PREFIX[..], json, &MESSAGE_SUFFIX].concat());
}

#[test]
fn keep_alive_and_retry_are_no_events() {
    let body = [&KEEP_ALIVE[..], &encode_retry(Duration::from_secs(3))].concat();
    assert!(decode(std::str::from_utf8(&body).unwrap()).is_empty());
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_however_it_is_split(
        events in prop::collection::vec(("[a-z]{1,8}", "[ -~é\n\r]{0,40}", proptest::option::of("[a-z0-9]{1,6}")), 0..6),
        size in 1..20_usize,
    ) {
        let mut body = Vec::new();
        for (kind, data, id) in &events {
            body.extend_from_slice(&encode_event(kind, id.as_deref(), data.as_bytes()));
            body.extend_from_slice(&KEEP_ALIVE);
        }
        let chunks: Vec<&[u8]> = body.chunks(size).collect();
        let decoded = decode_in(&chunks, 4096).unwrap();
        prop_assert_eq!(decoded.len(), events.len());
        for (event, (kind, data, id)) in decoded.iter().zip(&events) {
            prop_assert_eq!(event.event.as_deref(), Some(kind.as_str()));
            let joined = data.replace("\r\n", "\n").replace('\r', "\n");
            prop_assert_eq!(&event.data[..], joined.as_bytes());
            if id.is_some() { prop_assert_eq!(&event.id, id); }
        }
    }

    #[test]
    fn noise_gives_the_same_events_however_it_is_split(body in "[data:id\nevent\r \u{0}é]{0,120}", size in 1..9_usize) {
        let chunks: Vec<&[u8]> = body.as_bytes().chunks(size).collect();
        prop_assert_eq!(decode_in(&chunks, 4096), decode_in(&[body.as_bytes()], 4096));
    }
}
