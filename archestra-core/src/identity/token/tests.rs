//! Tokens: what is one, what it says, and that nothing shows it.

use super::{PlainToken, Token, TokenHash};
use crate::Validate;
use proptest::prelude::*;
use serde_json::json;

#[test]
fn new_tokens_are_long_and_different_and_parse() {
    let (a, b) = (PlainToken::generate().unwrap(), PlainToken::generate().unwrap());
    assert_ne!(a.expose(), b.expose());
    assert_ne!(a.hash(), b.hash());
    assert_eq!(a.expose().len(), "arch_".len() + 43);
    let parsed = PlainToken::parse(a.expose()).unwrap();
    assert!(parsed == a && parsed.hash() == TokenHash::of(a.expose()));
}

#[test]
fn nothing_shows_a_token() {
    let token = PlainToken::generate().unwrap();
    assert!(!format!("{token:?} {:?} {}", token.hash(), token.hash()).contains(&token.expose()[5..]));
    let error = PlainToken::parse("arch_s3cret").unwrap_err();
    assert!(!format!("{error} {error:?}").contains("s3cret"));
}

proptest! {
    #[test]
    fn a_text_is_a_token_exactly_when_it_has_the_form(text in prop_oneof!["arch_[A-Za-z0-9_-]{30,34}", "arch_[a-z]{250,260}", "(arch_)?[ -~]{0,40}", any::<String>()]) {
        let fits = text.strip_prefix("arch_").is_some_and(|secret| {
            (32..=256).contains(&secret.len()) && secret.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        });
        prop_assert_eq!(PlainToken::parse(&text).is_ok(), fits);
    }

    #[test]
    fn hashes_survive_as_text(text in any::<String>()) {
        let hash = TokenHash::of(&text);
        prop_assert_eq!(serde_json::from_value::<TokenHash>(serde_json::to_value(hash).unwrap()).unwrap(), hash);
    }
}

#[test]
fn what_is_no_hash_is_refused() {
    for text in [String::new(), "ab".repeat(31), "zz".repeat(32), "+a".repeat(32), "é".repeat(32)] {
        serde_json::from_value::<TokenHash>(json!(text)).unwrap_err();
    }
    let known = TokenHash::of("abc").to_string();
    assert_eq!(known, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

#[test]
fn a_token_has_a_name_a_future_and_an_audience_that_fits() {
    let token = |fields: serde_json::Value| {
        let mut token = json!({
            "id": "0190a000-0000-7000-8000-000000000001", "name": "laptop", "hash": "ab".repeat(32),
            "owner": "organization", "bootstrap": false, "createdAt": "2026-11-20T00:00:00Z",
        });
        token.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let token: Token = serde_json::from_value(token).unwrap();
        let fields: Vec<_> = token.findings().into_iter().map(|finding| finding.field).collect();
        fields
    };
    let consumer = "0190a000-0000-7000-8000-000000000002";
    assert!(token(json!({"expiresAt": "2026-11-20T00:00:01Z", "consumer": consumer})).is_empty());
    for name in ["a", "a b", &"n".repeat(256)] {
        assert!(token(json!({ "name": name })).is_empty(), "{name:?}");
    }
    for name in ["", " ", " a", "a ", "a\nb", &"n".repeat(257)] {
        assert_eq!(token(json!({ "name": name })), ["name"]);
    }
    assert_eq!(token(json!({"expiresAt": "2026-11-20T00:00:00Z"})), ["expiresAt"]);
    assert_eq!(token(json!({"bootstrap": true, "consumer": consumer})), ["consumer"]);
    assert_eq!(token(json!({"scopes": ["a b"]})), ["scopes[0]"]);

    let (user, client) = (json!({"user": consumer}), json!({"client": consumer}));
    assert!(token(json!({"owner": client, "consumer": consumer})).is_empty());
    assert_eq!(token(json!({"owner": client})), ["consumer"]);
    let end = "2026-11-20T01:00:00Z";
    for owner in [&user, &client] {
        assert!(token(json!({"owner": owner, "grant": consumer, "consumer": consumer, "expiresAt": end})).is_empty());
        assert_eq!(token(json!({"owner": owner, "grant": consumer})), ["consumer", "expiresAt"]);
    }
    for owner in [json!("organization"), json!({"team": consumer})] {
        let fields = json!({"owner": owner, "grant": consumer, "consumer": consumer, "expiresAt": end});
        assert_eq!(token(fields), ["owner"]);
    }
}

#[test]
fn a_token_survives_json_and_what_was_stored_before_is_static_and_good_for_everything() {
    let id = "0190a000-0000-7000-8000-000000000001";
    let mut stored = json!({
        "id": id, "name": "laptop", "hash": "ab".repeat(32), "owner": {"user": id}, "bootstrap": false,
        "createdAt": "2026-11-20T00:00:00Z",
    });
    let before: Token = serde_json::from_value(stored.clone()).unwrap();
    assert!(before.scopes.is_empty() && before.grant.is_none());
    assert_eq!(serde_json::to_value(&before).unwrap(), stored);
    let more = json!({
        "owner": {"client": id}, "consumer": id, "scopes": ["mcp"], "grant": id, "expiresAt": "2026-11-20T01:00:00Z",
    });
    stored.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let token: Token = serde_json::from_value(stored.clone()).unwrap();
    assert_eq!(serde_json::to_value(&token).unwrap(), stored);
}
