//! Newline JSON of processes and of their callers: lines in any chunks, and ids that every reader reads alike.
#![no_main]

use archestra_core::runtime::stdio::{
    Line, LineSplitter,
    wire::{self, ClientMessage, ServerLine},
};
use archestra_fuzz::{assert_json, choose, chunks};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 512;

fuzz_target!(|data: &[u8]| {
    let Some((seed, stream)) = choose(data) else { return };
    let whole = split(&[stream]);
    assert_eq!(whole, split(&chunks(stream, seed)));
    for line in stream.split(|byte| *byte == b'\n') {
        client(line);
        server(line);
    }
});

#[derive(Debug, PartialEq, Eq)]
enum Owned {
    Whole(Vec<u8>),
    TooLong(Vec<u8>, Vec<u8>, u64),
}

fn split(chunks: &[&[u8]]) -> Vec<Owned> {
    let own = |line: Line<'_>| match line {
        Line::Whole(line) => Owned::Whole(line.to_vec()),
        Line::TooLong { head, tail, length } => Owned::TooLong(head.to_vec(), tail.to_vec(), length),
    };
    let (mut splitter, mut lines) = (LineSplitter::new(LIMIT), Vec::new());
    for chunk in chunks {
        splitter.room().extend_from_slice(chunk);
        while let Some(line) = splitter.next_line() {
            lines.push(own(line));
        }
    }
    lines.extend(splitter.finish().map(own));
    lines
}

fn client(line: &[u8]) {
    match wire::parse_client(line) {
        Ok(ClientMessage::Request { id, method, progress_token }) => {
            let token = progress_token.as_ref().map(|token| (token.range(), b"43".as_slice()));
            let spliced = wire::splice(line, [Some((id.range(), b"42".as_slice())), token]);
            let Ok(ClientMessage::Request { id, method: again, progress_token: after }) = wire::parse_client(&spliced)
            else {
                panic!("no request any more: {}", String::from_utf8_lossy(&spliced))
            };
            assert_eq!((id.to_number(), again), (Some(42), method));
            assert_eq!(after.and_then(|token| token.to_number()), progress_token.map(|_| 43));
        }
        Ok(ClientMessage::Notification { request_id, .. }) => {
            if let Some(id) = request_id {
                assert_eq!(&line[id.range()], id.as_str().as_bytes());
            }
        }
        Ok(ClientMessage::Response { id }) => {
            let spliced = wire::splice(line, [Some((id.range(), b"42".as_slice()))]);
            assert!(matches!(wire::parse_client(&spliced), Ok(ClientMessage::Response { id }) if id.as_str() == "42"));
        }
        Err(malformed) => assert_json(&malformed.to_response()),
    }
}

fn server(line: &[u8]) {
    match wire::parse_server_line(line) {
        ServerLine::Response { id, .. } => {
            let spliced = wire::splice(line, [Some((id.range(), b"42".as_slice()))]);
            assert!(
                matches!(wire::parse_server_line(&spliced), ServerLine::Response { id, .. } if id.as_str() == "42")
            );
            // Were the line too long to be kept, its id must be found to be this one, or not at all.
            for kept in [16, 64, 128] {
                let (head, tail) = (&line[..line.len().min(kept)], &line[line.len().saturating_sub(kept)..]);
                if let Some(number) = wire::id_of_overlong(head, tail) {
                    assert_eq!(Some(number), id.to_number(), "another call would be answered");
                }
            }
        }
        ServerLine::Request { id, .. } => assert_eq!(&line[id.range()], id.as_str().as_bytes()),
        ServerLine::Notification { refers_to, .. } => {
            for part in
                [refers_to.progress_token, refers_to.request_id, refers_to.subscription_id].into_iter().flatten()
            {
                assert_eq!(&line[part.range()], part.as_str().as_bytes());
            }
        }
        ServerLine::Blank | ServerLine::NotJson | ServerLine::Unrecognized => {}
    }
}
