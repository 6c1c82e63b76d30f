//! Tests of the JSON cursor against `serde_json` as the reference.

use bytes::BytesMut;
use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// Any JSON value, shallow enough to be quick.
pub(crate) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        // Exact in decimal: `serde_json` does not promise to read back other fractions.
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        any::<String>().prop_map(Value::from),
        "[a-z\\\\\"\u{0}-\u{1f}é世]{0,24}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map("[a-zA-Z_\"\\\\]{0,8}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn accepts(text: &str) -> bool {
    Raw::parse(text).is_ok()
}

#[test]
fn refuses_what_is_not_json() {
    for text in [
        "",
        " ",
        "{",
        "}",
        "[",
        "]",
        "[1,]",
        "[,1]",
        "{\"a\":1,}",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{a:1}",
        "{\"a\":1 \"b\":2}",
        "01",
        "-",
        "1.",
        ".5",
        "1e",
        "1e+",
        "+1",
        "tru",
        "nul",
        "True",
        "NaN",
        "\"",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"\\u12\"",
        "\"\u{1}\"",
        "\"\n\"",
        "\"\0\"",
        "[1}",
        "{\"a\":1]",
        "1 2",
        "null,",
        "'a'",
        "\u{feff}1",
        "[1]]",
        "//x\n1",
        "\u{a0}1",
    ] {
        assert!(!accepts(text), "{text:?}");
        assert!(serde_json::from_str::<Value>(text).is_err(), "{text:?}");
    }
}

#[test]
fn accepts_odd_but_valid_json() {
    for text in ["-0", "-0.0e-0", "1E+9", "\"\\/\\b\\f\\n\\r\\t\\u00e9\"", "[ ]", "{ }", "\t[\r\n1 , {\"\":[]}]\n"] {
        assert!(accepts(text), "{text:?}");
    }
    let huge = "9".repeat(5000);
    assert!(accepts(&huge), "numbers have no size limit here");
}

#[test]
fn depth_is_bounded_and_flat_documents_are_not() {
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(accepts(&deep(MAX_DEPTH as usize)));
    assert!(serde_json::from_str::<Value>(&deep(MAX_DEPTH as usize)).is_ok());
    assert!(matches!(Raw::parse(&deep(MAX_DEPTH as usize + 1)), Err(ScanError::TooDeep { at: 127 })));
    assert!(matches!(Raw::parse(&deep(100_000)), Err(ScanError::TooDeep { .. })));
    assert!(matches!(Raw::parse(&"{\"a\":".repeat(100_000)), Err(ScanError::TooDeep { .. })));
    assert!(accepts(&format!("[{}1]", "[],".repeat(100_000))));
}

#[test]
fn lone_surrogates_pass_undecoded_and_fail_decoded() {
    let lone = r#""a\ud800b""#;
    assert!(accepts(lone));
    assert_eq!(Cursor::new(lone).text(), Err(ScanError::Surrogate { at: 0 }));
    let pair = r#""\ud83d\ude00""#;
    assert_eq!(Cursor::new(pair).text().unwrap().value, "😀");
}

#[test]
fn members_carry_spans_of_the_whole_message() {
    let message = r#" {"a" : "x\n", "\u0062":[1, 2] , "c":{}} "#;
    let mut cursor = Cursor::new(message);
    let mut members = cursor.open_object().unwrap();
    let mut seen = Vec::new();
    while let Some(key) = cursor.next_key(&mut members).unwrap() {
        let value = cursor.skip().unwrap();
        assert_eq!(&message[value.span().start..value.span().end], value.as_str());
        seen.push((key.value.into_owned(), value.as_str()));
    }
    cursor.finish().unwrap();
    assert_eq!(seen, [("a".to_owned(), "\"x\\n\""), ("b".to_owned(), "[1, 2]"), ("c".to_owned(), "{}")]);
}

#[test]
fn spans_of_nested_cursors_count_from_the_message() {
    let message = r#"{"a":{"b":"c"}}"#;
    let mut cursor = Cursor::new(message);
    let mut members = cursor.open_object().unwrap();
    cursor.next_key(&mut members).unwrap().unwrap();
    let inner = cursor.skip().unwrap();
    let mut cursor = inner.cursor();
    let mut members = cursor.open_object().unwrap();
    assert_eq!(cursor.next_key(&mut members).unwrap().unwrap().span, Span::new(6, 9));
    assert_eq!(cursor.text().unwrap().span, Span::new(10, 13));
}

#[test]
fn empty_containers_are_recognised() {
    for (text, empty) in [("{}", true), ("[ \n]", true), ("[0]", false), ("\"\"", false), ("{\"a\":1}", false)] {
        assert_eq!(Raw::parse(text).unwrap().is_empty_container(), empty, "{text}");
    }
}

proptest! {
    #[test]
    fn accepts_what_serde_json_writes(value in any_json()) {
        prop_assert!(accepts(&value.to_string()));
        prop_assert!(accepts(&serde_json::to_string_pretty(&value).unwrap()));
    }

    #[test]
    fn agrees_with_serde_json_on_damaged_documents(value in any_json(), at in any::<prop::sample::Index>(), with in "[\\[\\]{}\",:0-9a-z\\\\ \n-]{0,2}") {
        let text: Vec<char> = value.to_string().chars().collect();
        let at = at.index(text.len() + 1);
        let mut damaged: String = text[..at].iter().collect();
        damaged.push_str(&with);
        damaged.extend(text.iter().skip(at + 1));
        // `RawValue` skips as we do: it does not decode strings or numbers.
        let reference = serde_json::from_str::<&serde_json::value::RawValue>(&damaged).is_ok();
        prop_assert_eq!(accepts(&damaged), reference, "{}", damaged);
    }

    #[test]
    fn never_panics_on_noise(text in any::<String>()) {
        prop_assert_eq!(accepts(&text), serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok());
    }

    #[test]
    fn quoting_round_trips(text in any::<String>()) {
        let mut out = BytesMut::new();
        write_quoted(&mut out, &text);
        prop_assert_eq!(out.len(), quoted_len(&text));
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }

    #[test]
    fn decoded_text_equals_serde_json(text in any::<String>()) {
        let quoted = serde_json::to_string(&text).unwrap();
        let read = Cursor::new(&quoted).text().unwrap();
        prop_assert_eq!(&read.value, &text);
        prop_assert_eq!(read.span, Span::new(0, quoted.len()));
    }
}
