//! References are paths that every backend can keep, and values are never shown.

use super::{SecretBundle, SecretRef, SecretValue};
use crate::secret::Accepts;
use proptest::prelude::*;

fn is_reference(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 512
        && text.split('/').all(|segment| {
            !matches!(segment, "" | "." | "..")
                && segment.chars().all(|c| c.is_ascii_alphanumeric() || ['.', '_', '-'].contains(&c))
        })
}

proptest! {
    #[test]
    fn a_text_is_a_reference_exactly_when_it_is_a_path(text in prop_oneof!["[a-z./_-]{0,12}", "[a-z]{500,520}", "[a-z0-9._-]{1,5}(/[a-z0-9._-]{1,5}){0,3}", any::<String>()]) {
        prop_assert_eq!(text.parse::<SecretRef>().is_ok(), is_reference(&text), "{:?}", text);
        if let Ok(reference) = text.parse::<SecretRef>() {
            prop_assert_eq!(reference.as_str(), &text);
            let json = serde_json::to_string(&reference).unwrap();
            prop_assert_eq!(serde_json::from_str::<SecretRef>(&json).unwrap(), reference);
        }
    }

    #[test]
    fn a_bundle_survives_as_plaintext(pairs in prop::collection::btree_map(any::<String>(), any::<String>(), 0..5)) {
        let bundle: SecretBundle = pairs.into_iter().collect();
        let plain = bundle.to_plaintext();
        prop_assert_eq!(plain.capacity(), plain.len(), "nothing grew and left a copy behind");
        prop_assert_eq!(SecretBundle::from_plaintext(&plain).unwrap(), bundle);
    }

    #[test]
    fn values_are_never_shown(value in "[A-Z]{12}") {
        let bundle = SecretBundle::from_iter([("key", value.as_str())]);
        let shown = format!("{:?} {bundle:?}", SecretValue::new(value.as_str()));
        prop_assert!(!shown.contains(&value));
        let error = SecretBundle::from_plaintext(format!("{{\"key\": [\"{value}\"]}}").as_bytes()).unwrap_err();
        let shown = format!("{error} {error:?}");
        prop_assert!(!shown.contains(&value));
    }
}

#[test]
fn a_reference_survives_as_plaintext_and_no_value_is_taken_for_one() {
    let at = SecretValue::kept_at("mcp/tickets#token".parse().unwrap());
    let bundle: SecretBundle = [("a", at), ("b", "{\"vault\":\"mcp/tickets#token\"}".into())].into_iter().collect();
    let plain = bundle.to_plaintext();
    assert!(plain.starts_with(br#"{"a":{"vault":"mcp/tickets#token"},"b":""#));
    let read = SecretBundle::from_plaintext(&plain).unwrap();
    assert_eq!(read, bundle);
    assert_eq!(read.external().map(|(key, at)| (key, at.as_str())).collect::<Vec<_>>(), [("a", "mcp/tickets#token")]);
    for wrong in [r#"{"vault":"a/../b#k"}"#, "{}", r#"{"vault":"a#k","x":"y"}"#, r#"{"other":"a#k"}"#, "5", "null"] {
        SecretBundle::from_plaintext(format!("{{\"a\":{wrong}}}").as_bytes()).unwrap_err();
    }
}

#[test]
fn references_climb_nowhere() {
    for text in ["", "/", "a/", "/a", "a//b", "..", "a/../b", "./a", "a b", "a\\b", "ä", "a\0"] {
        text.parse::<SecretRef>().unwrap_err();
    }
    for text in ["a", "...", "entry/0190/x.y_z-1"] {
        text.parse::<SecretRef>().unwrap();
    }
}

#[test]
fn new_references_differ_and_have_an_owner() {
    let (a, b) = (SecretRef::unique("entry", 1).unwrap(), SecretRef::unique("entry", 1).unwrap());
    assert_ne!(a, b);
    assert!(a.as_str().starts_with("entry/1/"));
    SecretRef::unique("entry", "a b").unwrap_err();
}

#[test]
fn a_value_that_is_kept_elsewhere_is_not_taken_for_one_that_is_here() {
    let at = SecretValue::kept_at("mcp/tickets#token".parse().unwrap());
    assert_eq!((at.expose(), at.is_blank()), ("", false));
    assert_eq!(at.external().unwrap().key(), "token");
    assert_ne!(at, SecretValue::new(""));
    assert_ne!(at, SecretValue::kept_at("mcp/tickets#other".parse().unwrap()));
    let bundle: SecretBundle = [("a", at)].into_iter().collect();
    assert!(Accepts::Values.check(&bundle).unwrap_err().to_string().starts_with("a: secrets are stored here"));
    Accepts::References.check(&bundle).unwrap();
    let here: SecretBundle = [("a", "canary")].into_iter().collect();
    let refused = Accepts::References.check(&here).unwrap_err().to_string();
    assert!(refused.contains("put the value into Vault") && !refused.contains("canary"), "{refused}");
    Accepts::Values.check(&here).unwrap();
}
