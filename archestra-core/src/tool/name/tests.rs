//! Properties of exposed names.

use super::{ExposedName, MAX_NAME, SEPARATOR, expose, slug};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-zA-Z0-9 _./:-]{0,80}",
        2 => any::<String>(),
        1 => "[a-z]{50,70}",
        1 => "[\u{3040}-\u{30ff}]{1,20}",
        1 => "[_ -]{0,6}",
    ]
}

fn is_valid(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

fn names(names: &[&str]) -> BTreeSet<ExposedName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

proptest! {
    #[test]
    fn any_name_is_one_that_every_client_accepts(server in prop::option::of(text()), tool in text()) {
        let name = expose(server.as_deref(), &tool, &BTreeSet::new());
        prop_assert!(is_valid(name.as_str()), "{name}");
    }

    #[test]
    fn names_are_unique_however_many_are_alike(server in prop::option::of(text()), tools in prop::collection::vec(text(), 1..12), again in 1_usize..4) {
        let mut taken = BTreeSet::new();
        for tool in tools.iter().cycle().take(tools.len() * again) {
            let name = expose(server.as_deref(), tool, &taken);
            prop_assert!(is_valid(name.as_str()));
            prop_assert!(taken.insert(name));
        }
    }

    #[test]
    fn the_same_question_has_the_same_answer(server in prop::option::of(text()), tool in text(), others in prop::collection::vec(text(), 0..4)) {
        let mut taken = BTreeSet::new();
        for other in &others {
            taken.insert(expose(server.as_deref(), other, &taken));
        }
        let first = expose(server.as_deref(), &tool, &taken);
        prop_assert_eq!(&first, &expose(server.as_deref(), &tool, &taken.clone()));
    }

    #[test]
    fn the_prefix_stays_whole_where_there_is_room(server in "[a-z]{1,53}", tool in "[a-z_]{1,100}") {
        prop_assume!(!slug(&tool).is_empty());
        let prefix = format!("{server}{SEPARATOR}");
        let first = expose(Some(&server), &tool, &BTreeSet::new());
        prop_assert!(first.as_str().starts_with(&prefix));
        let second = expose(Some(&server), &tool, &BTreeSet::from([first]));
        prop_assert!(second.as_str().starts_with(&prefix), "{second}");
    }

    #[test]
    fn two_servers_that_slugify_alike_never_collide(words in prop::collection::vec("[a-z]{1,6}", 1..4), tool in text()) {
        let (a, b) = (words.join(" "), words.join("_").to_uppercase());
        prop_assert_eq!(slug(&a), slug(&b));
        let first = expose(Some(&a), &tool, &BTreeSet::new());
        let second = expose(Some(&b), &tool, &BTreeSet::from([first.clone()]));
        prop_assert_ne!(first, second);
    }

    #[test]
    fn a_suffix_does_not_depend_on_what_came_first(server in text(), tool in "[a-z]{1,20}", other in "[a-z]{1,20}") {
        let name = expose(Some(&server), &tool, &BTreeSet::new());
        let taken = expose(Some(&server), &tool, &BTreeSet::from([name.clone()]));
        let unrelated = expose(Some(&other), "unrelated", &BTreeSet::new());
        prop_assume!(unrelated != taken && unrelated != name);
        prop_assert_eq!(taken, expose(Some(&server), &tool, &BTreeSet::from([name, unrelated])));
    }

    #[test]
    fn a_slug_is_stable_and_holds_no_separator(text in text()) {
        let once = slug(&text);
        prop_assert_eq!(&slug(&once), &once);
        prop_assert!(!once.contains(SEPARATOR));
        prop_assert!(once.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-'));
    }

    #[test]
    fn a_name_is_parsed_exactly_when_it_is_one(text in prop_oneof![text(), "[A-Za-z0-9_.-]{0,70}"]) {
        prop_assert_eq!(text.parse::<ExposedName>().is_ok(), is_valid(&text));
        let json = serde_json::to_string(&text).unwrap();
        match serde_json::from_str::<ExposedName>(&json) {
            Ok(name) => prop_assert_eq!(serde_json::to_string(&name).unwrap(), json),
            Err(_) => prop_assert!(!is_valid(&text)),
        }
    }
}

#[test]
fn names_read_as_people_expect() {
    let none = BTreeSet::new();
    for (server, tool, name) in [
        (Some("demo"), "echo", "demo__echo"),
        (Some("My Server"), "Get.Weather", "my_server__get_weather"),
        (Some("a__b"), "c__d", "a_b__c_d"),
        (Some("GitHub (cloud)"), "repos/list", "github_cloud__repos_list"),
        (None, "Get.Weather", "Get.Weather"),
        (None, "getWeather", "getWeather"),
    ] {
        assert_eq!(expose(server, tool, &none).as_str(), name);
    }
}

#[test]
fn what_has_no_letter_of_ours_is_told_apart_by_its_hash() {
    let none = BTreeSet::new();
    let (a, b) = (expose(Some("demo"), "天気", &none), expose(Some("demo"), "時刻", &none));
    assert!(a.as_str().starts_with("demo__tool-") && b.as_str().starts_with("demo__tool-"), "{a} {b}");
    assert_ne!(a, b);
    assert!(expose(None, "天気", &none).as_str().starts_with("tool-"));
    assert!(expose(Some("天気"), "echo", &none).as_str().starts_with("server__echo-"));
}

#[test]
fn long_names_are_cut_and_told_apart() {
    let none = BTreeSet::new();
    let long = "t".repeat(62);
    let (a, b) = (expose(Some("s"), &format!("{long}a"), &none), expose(Some("s"), &format!("{long}b"), &none));
    assert_ne!(a, b);
    assert_eq!((a.as_str().len(), b.as_str().len()), (MAX_NAME, MAX_NAME));
    assert_eq!(expose(Some("s"), &"t".repeat(61), &none).as_str(), format!("s__{}", "t".repeat(61)));
    assert_eq!(expose(None, &"t".repeat(64), &none).as_str(), "t".repeat(64));
    assert_eq!(expose(None, &"t".repeat(65), &none).as_str().len(), MAX_NAME);
}

#[test]
fn a_newcomer_gets_the_suffix() {
    let name = expose(Some("My Server"), "echo", &names(&["my_server__echo"]));
    assert!(name.as_str().starts_with("my_server__echo-"), "{name}");
    assert_eq!(name.as_str().len(), "my_server__echo-".len() + 8);
}
