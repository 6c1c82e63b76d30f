//! Rotation: which refresh token is good, which is sent again, and which was stolen; and what grants may say.

use super::*;
use crate::secret::{KeyRing, Purpose};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const ID: &str = "0190a000-0000-7000-8000-000000000001";

fn grace() -> TimeDelta {
    TimeDelta::seconds(60)
}

fn keys(text: &str) -> Derived {
    KeyRing::parse(text).unwrap().derive(Purpose::RefreshTokens)
}

fn one_key() -> String {
    KeyRing::generate().unwrap().to_text().to_string()
}

fn started() -> (RefreshToken, Grant) {
    let (token, created_at) = (RefreshToken::begin().unwrap(), DateTime::UNIX_EPOCH);
    let refresh = Some(RefreshFamily::of(&token, Some(created_at + TimeDelta::days(30))));
    let grant = Grant {
        id: GrantId::new(),
        client: ClientId::new(),
        user: Some(UserId::new()),
        consumer: ConsumerId::new(),
        scopes: BTreeSet::new(),
        refresh,
        expires_at: None,
        created_at,
    };
    (token, grant)
}

/// The grant once `token` has been refreshed at this time.
fn rotate(grant: &Grant, token: &RefreshToken, keys: &Derived, now: DateTime<Utc>) -> (RefreshToken, Grant) {
    let next = token.successor(keys);
    let family = grant.refresh.as_ref().unwrap();
    let refresh = Some(family.rotated(&next, now, family.expires_at));
    (next, Grant { refresh, ..grant.clone() })
}

proptest! {
    #[test]
    fn of_all_tokens_of_a_family_the_newest_is_good_and_the_one_before_for_a_moment(pauses in prop::collection::vec(0_i64..200, 1..12), wait in 0_i64..200) {
        let keys = keys(&one_key());
        let (token, mut grant) = started();
        let (mut tokens, mut now) = (vec![token], grant.created_at);
        for pause in pauses {
            now += TimeDelta::seconds(pause);
            let (next, rotated) = rotate(&grant, tokens.last().unwrap(), &keys, now);
            prop_assert_eq!(grant.presented(&next, now, grace()), Presented::Reused, "nobody has it yet");
            tokens.push(next);
            grant = rotated;
        }
        now += TimeDelta::seconds(wait);
        let family = grant.refresh.as_ref().unwrap();
        prop_assert_eq!(family.generation, tokens.len() as u64 - 1);
        for (age, token) in tokens.iter().rev().enumerate() {
            let expected = match age {
                0 => Presented::Current,
                1 if wait < 60 => Presented::Again,
                _ => Presented::Reused,
            };
            prop_assert_eq!(grant.presented(token, now, grace()), expected, "{} generations old", age);
            prop_assert_eq!(token.family(), family.family);
            let answer = family.answer_again(token, &keys);
            prop_assert_eq!(answer.as_ref(), (age == 1).then(|| tokens.last().unwrap()));
        }
    }
}

#[test]
fn a_token_of_another_family_is_foreign_and_one_that_has_ended_is_told_from_a_stolen_one() {
    let keys = keys(&one_key());
    let (token, grant) = started();
    let now = grant.created_at;
    assert_eq!(grant.presented(&started().0, now, grace()), Presented::Foreign);
    assert_eq!(Grant { refresh: None, ..grant.clone() }.presented(&token, now, grace()), Presented::Foreign);

    let later = now + TimeDelta::days(31);
    assert_eq!(grant.presented(&token, later, grace()), Presented::Expired);
    let ended = Grant { expires_at: Some(now + TimeDelta::seconds(1)), ..grant.clone() };
    assert_eq!(ended.presented(&token, now, grace()), Presented::Current);
    assert_eq!(ended.presented(&token, now + TimeDelta::seconds(1), grace()), Presented::Expired);
    assert!(ended.is_over(later) && !grant.is_over(later));

    let (_, rotated) = rotate(&grant, &token, &keys, later);
    assert_eq!(rotated.presented(&token, later, grace()), Presented::Expired);
    assert_eq!(rotated.presented(&token, later, TimeDelta::zero()), Presented::Reused);
}

#[test]
fn the_same_answer_is_given_under_a_newer_key_and_not_without_the_old_one() {
    let (old, new) = (one_key(), one_key());
    let both = format!("{new}{old}");
    let (token, grant) = started();
    let (next, rotated) = rotate(&grant, &token, &keys(&old), grant.created_at);
    let family = rotated.refresh.unwrap();
    assert_eq!(family.answer_again(&token, &keys(&both)), Some(next));
    assert_eq!(family.answer_again(&token, &keys(&new)), None);
}

#[test]
fn a_consent_covers_what_was_allowed_and_nothing_more() {
    let scopes = |scopes: &[&str]| scopes.iter().map(|scope| (*scope).to_owned()).collect::<BTreeSet<_>>();
    let consent = |to: &[&str]| Consent {
        id: ConsentId::new(),
        user: UserId::new(),
        client: ClientId::new(),
        consumer: ConsumerId::new(),
        scopes: scopes(to),
        given_at: DateTime::UNIX_EPOCH,
    };
    for (given, asked, covered) in [
        (&["a", "b"][..], &["a"][..], true),
        (&["a", "b"], &["a", "b"], true),
        (&["a"], &["a", "b"], false),
        (&["a"], &[], false),
        (&[], &["a"], true),
        (&[], &[], true),
    ] {
        assert_eq!(consent(given).covers(&scopes(asked)), covered, "{given:?} {asked:?}");
    }
}

#[test]
fn what_could_never_be_used_is_refused() {
    let (_, grant) = started();
    let fields = |grant: Grant| -> Vec<_> { grant.findings().into_iter().map(|finding| finding.field).collect() };
    assert!(fields(grant.clone()).is_empty());
    let at = Some(grant.created_at);
    let mut family = grant.refresh.clone().unwrap();
    family.expires_at = at;
    assert_eq!(fields(Grant { expires_at: at, ..grant.clone() }), ["expiresAt"]);
    assert_eq!(fields(Grant { refresh: Some(family), ..grant.clone() }), ["refresh.expiresAt"]);
    assert_eq!(fields(Grant { user: None, ..grant.clone() }), ["refresh"]);
    assert!(fields(Grant { user: None, refresh: None, ..grant.clone() }).is_empty());
    assert_eq!(fields(Grant { scopes: ["a b".to_owned()].into(), ..grant }), ["scopes[0]"]);
}

#[test]
#[expect(clippy::needless_pass_by_value, reason = "what is stored reads best in place")]
fn both_survive_json_and_hold_no_token() {
    fn survives<T: Serialize + DeserializeOwned>(stored: Value) {
        let value: T = serde_json::from_value(stored.clone()).unwrap();
        assert_eq!(serde_json::to_value(&value).unwrap(), stored);
    }
    let hash = "ab".repeat(32);
    survives::<Grant>(json!({
        "id": ID, "client": ID, "user": ID, "consumer": ID, "scopes": ["mcp"],
        "refresh": {
            "family": hash, "current": hash, "previous": {"hash": hash, "at": "2026-11-20T00:00:00Z"},
            "generation": 7, "expiresAt": "2026-12-20T00:00:00Z",
        },
        "expiresAt": "2027-11-20T00:00:00Z", "createdAt": "2026-11-20T00:00:00Z",
    }));
    survives::<Grant>(json!({
        "id": ID, "client": ID, "consumer": ID, "scopes": [], "createdAt": "2026-11-20T00:00:00Z",
    }));
    survives::<Consent>(json!({
        "id": ID, "user": ID, "client": ID, "consumer": ID, "scopes": ["mcp"], "givenAt": "2026-11-20T00:00:00Z",
    }));
    let (token, grant) = started();
    let text = format!("{grant:?} {} {token:?}", serde_json::to_string(&grant).unwrap());
    let (family, own) = token.expose().strip_prefix("archr_").unwrap().split_once('.').unwrap();
    assert!(!text.contains(family) && !text.contains(own));
}
