//! Names, references, ids and tokens: what is accepted keeps to its form and comes back the same.
#![no_main]

use archestra_core::{
    identity::{Permission, PlainToken},
    runtime::WorkloadId,
    secret::SecretRef,
    tool::{MAX_NAME, expose, slug},
};
use libfuzzer_sys::fuzz_target;
use std::{collections::BTreeSet, fmt, str::FromStr};

fuzz_target!(|text: &str| {
    let (server, tool) = text.split_once('\n').unwrap_or(("server", text));
    let mut taken = BTreeSet::new();
    for server in [Some(server), None, Some(server), None, Some("")] {
        let name = expose(server, tool, &taken);
        assert!((1..=MAX_NAME).contains(&name.as_str().len()), "{name}");
        assert!(name.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)), "{name}");
        assert_eq!(name, expose(server, tool, &taken), "the same tool gets the same name");
        assert!(taken.insert(name), "a name is given twice");
    }
    let slugged = slug(text);
    assert!(!slugged.contains("__") && slug(&slugged) == slugged, "{slugged}");

    same::<SecretRef>(text);
    same::<WorkloadId>(text);
    same::<Permission>(text);
    if let Ok(reference) = text.parse::<SecretRef>() {
        assert!(!reference.as_str().contains("..") || !reference.as_str().split('/').any(|part| part == ".."));
        assert!(!reference.as_str().starts_with('/'));
    }
    if let Ok(token) = PlainToken::parse(text) {
        assert_eq!(token.expose(), text);
        assert!(!format!("{token:?} {:?} {}", token.hash(), token.hash()).contains(text));
    }
});

fn same<T: FromStr + fmt::Display + PartialEq + fmt::Debug>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string(), text);
        assert_eq!(value.to_string().parse::<T>().ok(), Some(value));
    }
}
