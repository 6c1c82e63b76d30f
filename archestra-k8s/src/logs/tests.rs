//! Lines and their timestamps, reading on without telling twice, and what is not shown.

use super::{
    cursor::Cursor,
    is_protocol,
    line::{Lines, MAX_LINE, parse},
};
use archestra_core::runtime::{LogLine, LogSource};
use chrono::{DateTime, Utc};
use futures::FutureExt as _;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().expect("a time")
}

fn line(at_text: &str, text: &str) -> LogLine {
    LogLine { at: at(at_text), source: LogSource::Server, text: text.to_owned() }
}

fn split(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = Lines::new(bytes);
    let mut all = Vec::new();
    while let Some(line) = lines.next().now_or_never().expect("bytes are there").expect("bytes can be read") {
        all.push(line);
    }
    all
}

#[test]
fn lines_are_split_and_cut() {
    assert_eq!(split(b""), Vec::<Vec<u8>>::new());
    assert_eq!(split(b"a\n\nb"), [b"a".to_vec(), b"".to_vec(), b"b".to_vec()]);
    let mut long = vec![b'x'; 3 * MAX_LINE];
    long.extend_from_slice(b"\nnext\n");
    let lines = split(&long);
    assert_eq!(lines.len(), 2);
    assert!(lines[0].len() < MAX_LINE + 100);
    assert_eq!(lines[1], b"next");
}

#[test]
fn timestamps_are_taken_off() {
    let stamp = "2026-11-20T10:00:00.123456789Z";
    assert_eq!(parse(format!("{stamp} hello world\r").as_bytes()), Some(line(stamp, "hello world")));
    assert_eq!(parse(format!("{stamp} ").as_bytes()), Some(line(stamp, "")));
    assert_eq!(parse(stamp.as_bytes()), Some(line(stamp, "")));
    assert_eq!(parse(b"2026-11-20T11:00:00+01:00  two blanks"), Some(line("2026-11-20T10:00:00Z", " two blanks")));
    let without = parse(b"no timestamp here").expect("a line");
    assert_eq!(without.text, "no timestamp here");
    assert_eq!(parse(b"unable to retrieve container logs for containerd://1"), None);
}

#[test]
fn text_is_cut_at_a_character() {
    let text = format!("2026-11-20T10:00:00Z {}", "ä".repeat(MAX_LINE));
    let parsed = parse(text.as_bytes()).expect("a line");
    assert!(parsed.text.len() <= MAX_LINE && parsed.text.len() > MAX_LINE - 4);
    assert_eq!(parse(b"2026-11-20T10:00:00Z \xff\xfe").map(|line| line.text), Some("\u{fffd}\u{fffd}".to_owned()));
}

#[test]
fn reading_on_tells_nothing_twice_and_misses_nothing() {
    let first = [
        line("2026-11-20T10:00:00.5Z", "old"),
        line("2026-11-20T10:00:01.1Z", "a"),
        line("2026-11-20T10:00:01.3Z", "c"),
        // Two streams of one container.
        line("2026-11-20T10:00:01.2Z", "b"),
    ];
    let mut cursor = Cursor::default();
    assert!(first.iter().all(|line| cursor.accept(line)));
    cursor.rewind();
    assert_eq!(cursor.second(), Some(at("2026-11-20T10:00:01Z").timestamp()));
    let again = [
        line("2026-11-20T10:00:01.0Z", "not asked for"),
        line("2026-11-20T10:00:01.1Z", "a"),
        line("2026-11-20T10:00:01.3Z", "c"),
        line("2026-11-20T10:00:01.2Z", "b"),
        line("2026-11-20T10:00:01.3Z", "c"),
        line("2026-11-20T10:00:02Z", "d"),
    ];
    let new: Vec<_> = again.iter().filter(|line| cursor.accept(line)).map(|line| line.text.as_str()).collect();
    assert_eq!(new, ["c", "d"], "the same line written twice at one moment are two lines");
    cursor.rewind();
    assert!(!cursor.accept(&line("2026-11-20T10:00:02Z", "d")));
}

#[test]
fn messages_of_the_protocol_are_recognized() {
    for message in [
        r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        r#" { "method" : "notifications/message", "jsonrpc" : "2.0" } "#,
        &format!(r#"{{"jsonrpc":"2.0","id":1,"result":"{}"#, "x".repeat(MAX_LINE - 38)),
    ] {
        assert!(is_protocol(message), "{message}");
    }
    for text in [
        "",
        "starting",
        r#"{"level":"info"}"#,
        r#"{"jsonrpc":"1.0"}"#,
        r#"{"text":"\"jsonrpc\""}"#,
        r#"got {"jsonrpc":"2.0"}"#,
    ] {
        assert!(!is_protocol(text), "{text}");
    }
}
