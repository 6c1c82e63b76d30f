//! The suite of [`SecretStore`].

use super::{RACERS, fails, pair_suite, race, suite, works};
use crate::{
    Error, ErrorKind,
    secret::{Expect, MAX_BUNDLE, SecretBundle, SecretStore, SecretVersion},
    testing::fixtures::{bundle, secret_ref},
};
use std::sync::Arc;

suite! {
    $
    /// One `#[test]` for each case of the [secret store suite](crate::testing::conformance::secret_store): a module name and
    /// an expression that yields an `Arc` of an empty store.
    secret_store_conformance, secret_store, secret::SecretStore, [
        returns_what_was_written,
        keeps_values_byte_for_byte,
        an_absent_reference_is_not_found,
        a_write_replaces_the_whole_bundle,
        versions_grow,
        stale_expectations_conflict,
        what_was_written_can_move,
        removal_is_complete_and_repeatable,
        a_removed_reference_can_be_written_again,
        lists_what_is_below_a_prefix,
        references_are_told_apart_byte_for_byte,
        one_of_many_creators_wins,
        one_of_many_writers_with_one_expectation_wins,
        readers_see_whole_bundles,
        what_is_too_large_is_refused,
        shows_no_value,
        answers_its_check,
    ]
}

pair_suite! {
    $
    /// One `#[test]` for each case of the [secret store suite](crate::testing::conformance::secret_store) that needs two
    /// handles: a module name and an expression that yields a pair of `Arc`s on the same, empty store.
    secret_store_pair_conformance, secret_store, secret::SecretStore, [
        another_handle_reads_what_was_written,
        writers_on_both_handles_race,
    ]
}

async fn read(store: &Arc<dyn SecretStore>, path: &str) -> (SecretBundle, SecretVersion) {
    let stored = works(store.get(&secret_ref(path)).await, "what was written can be read");
    (stored.bundle, stored.version)
}

async fn write(store: &Arc<dyn SecretStore>, path: &str, values: &[(&str, &str)]) -> SecretVersion {
    works(store.put(&secret_ref(path), &bundle(values), Expect::Any).await, "a bundle can be written")
}

/// What was written comes back under another reference, where expectations hold as for any write.
pub async fn what_was_written_can_move(store: &Arc<dyn SecretStore>) {
    write(store, "entry/a/1", &[("a", "1"), ("b", "2")]).await;
    let written = works(store.written(&secret_ref("entry/a/1")).await, "what was written can be read").bundle;
    let moved = store.rewrite(&secret_ref("entry/a/2"), &written, Expect::Absent).await;
    let version = works(moved, "what was written can be written elsewhere");
    assert_eq!(read(store, "entry/a/2").await, (written.clone(), version), "what was moved comes back");
    let again = store.rewrite(&secret_ref("entry/a/2"), &written, Expect::Absent).await;
    fails(again, ErrorKind::Conflict, "what is there already is not written over");
}

/// A bundle comes back as it was written, with the version that the write returned.
pub async fn returns_what_was_written(store: &Arc<dyn SecretStore>) {
    let written = bundle(&[("token", "t0k"), ("env.API_KEY", "k3y")]);
    let version =
        works(store.put(&secret_ref("entry/a/1"), &written, Expect::Absent).await, "a new bundle can be written");
    assert_eq!(read(store, "entry/a/1").await, (written, version), "a bundle comes back as written, with its version");
}

/// Keys and values are kept as they are: any Unicode, line ends, empty and long values.
pub async fn keeps_values_byte_for_byte(store: &Arc<dyn SecretStore>) {
    let long = "0123456789abcdef".repeat(2048);
    let written = bundle(&[
        ("pull.registry.example.com:5000.robot$ci", "p@ss \"word\" 'with' \\ everything"),
        ("field.x-api-key", " blanks at both ends "),
        ("pem", "-----BEGIN KEY-----\r\nAAAA\n-----END KEY-----\n"),
        ("unicode", "p\u{e4}ssw\u{f6}rd \u{1F511} \u{0} \u{7f} \u{feff}"),
        ("json", "{\"data\": {\"data\": null}}"),
        ("empty", ""),
        ("long", &long),
    ]);
    works(store.put(&secret_ref("installation/A.b_c-d/1"), &written, Expect::Absent).await, "every text can be stored");
    let (read, _) = read(store, "installation/A.b_c-d/1").await;
    for (key, value) in written.iter() {
        assert!(read.get(key) == Some(value), "the value of {key} comes back byte for byte");
    }
    assert_eq!(read.len(), written.len(), "a bundle comes back with the keys it had");
}

/// What is not there is `NotFound`, never an empty bundle.
pub async fn an_absent_reference_is_not_found(store: &Arc<dyn SecretStore>) {
    write(store, "entry/present/1", &[("a", "b")]).await;
    for path in ["entry/absent/1", "entry/present", "entry/present/1/below", "entry"] {
        fails(store.get(&secret_ref(path)).await, ErrorKind::NotFound, "an absent reference is not found");
    }
}

/// A write replaces the bundle whole: no key of the one before is left.
pub async fn a_write_replaces_the_whole_bundle(store: &Arc<dyn SecretStore>) {
    write(store, "entry/a/1", &[("old", "1"), ("both", "1")]).await;
    let version = write(store, "entry/a/1", &[("both", "2"), ("new", "2")]).await;
    assert_eq!(
        read(store, "entry/a/1").await,
        (bundle(&[("both", "2"), ("new", "2")]), version),
        "a write replaces the whole bundle"
    );
}

/// Each write returns a greater version, and a write that expects the present one succeeds.
pub async fn versions_grow(store: &Arc<dyn SecretStore>) {
    let mut version = write(store, "entry/a/1", &[("n", "0")]).await;
    for n in ["1", "2", "3"] {
        let next = works(
            store.put(&secret_ref("entry/a/1"), &bundle(&[("n", n)]), Expect::Version(version)).await,
            "a write that expects the present version succeeds",
        );
        assert!(next > version, "each write makes a greater version: {next:?} after {version:?}");
        version = next;
    }
    assert_eq!(read(store, "entry/a/1").await, (bundle(&[("n", "3")]), version), "the newest version is read");
}

/// An expectation that does not hold is a conflict and changes nothing.
pub async fn stale_expectations_conflict(store: &Arc<dyn SecretStore>) {
    let first = write(store, "entry/a/1", &[("n", "1")]).await;
    let second = write(store, "entry/a/1", &[("n", "2")]).await;
    let refused = [
        ("entry/a/1", Expect::Absent, "a write that expects nothing conflicts with what is there"),
        ("entry/a/1", Expect::Version(first), "a write that expects an older version conflicts"),
        (
            "entry/a/1",
            Expect::Version(SecretVersion(second.0 + 1)),
            "a write that expects a version still to come conflicts",
        ),
        ("entry/absent/1", Expect::Version(first), "a write that expects a version of what is absent conflicts"),
    ];
    for (path, expect, promise) in refused {
        fails(store.put(&secret_ref(path), &bundle(&[("n", "refused")]), expect).await, ErrorKind::Conflict, promise);
    }
    assert_eq!(read(store, "entry/a/1").await, (bundle(&[("n", "2")]), second), "a conflict changes nothing");
    fails(store.get(&secret_ref("entry/absent/1")).await, ErrorKind::NotFound, "a conflict creates nothing");
}

/// A removed bundle is gone from reads and lists; removing it again succeeds; its neighbours stay.
pub async fn removal_is_complete_and_repeatable(store: &Arc<dyn SecretStore>) {
    for path in ["entry/a/1", "entry/a/1/below", "entry/a/10"] {
        write(store, path, &[("n", "1")]).await;
    }
    write(store, "entry/a/1", &[("n", "2")]).await;
    for promise in ["a bundle can be removed", "removing what is absent succeeds"] {
        works(store.remove(&secret_ref("entry/a/1")).await, promise);
    }
    works(store.remove(&secret_ref("entry/never/was")).await, "removing what never was succeeds");
    fails(store.get(&secret_ref("entry/a/1")).await, ErrorKind::NotFound, "a removed bundle is not found");
    let left = works(store.list("entry/a").await, "references can be listed");
    assert_eq!(left, ["entry/a/1/below", "entry/a/10"].map(secret_ref), "only what was named is removed");
}

/// A reference that was removed can be created again, and holds only the new bundle.
pub async fn a_removed_reference_can_be_written_again(store: &Arc<dyn SecretStore>) {
    write(store, "entry/a/1", &[("old", "1")]).await;
    works(store.remove(&secret_ref("entry/a/1")).await, "a bundle can be removed");
    let version = works(
        store.put(&secret_ref("entry/a/1"), &bundle(&[("new", "2")]), Expect::Absent).await,
        "a removed reference is absent",
    );
    assert_eq!(
        read(store, "entry/a/1").await,
        (bundle(&[("new", "2")]), version),
        "a new bundle holds nothing of the removed one"
    );
}

/// A list holds the references that are the prefix or below it, sorted, and takes every sign of the prefix as it is.
pub async fn lists_what_is_below_a_prefix(store: &Arc<dyn SecretStore>) {
    let all = [
        "entry/a",
        "entry/a-b/1",
        "entry/a.b/1",
        "entry/a/1",
        "entry/a/2/deep/er",
        "entry/aXb/1",
        "entry/a_b/1",
        "other/a/1",
    ];
    for path in all.iter().rev() {
        write(store, path, &[("n", "1")]).await;
    }
    let expected: [(&str, &[&str]); 8] = [
        ("", &all),
        ("entry", &all[..7]),
        ("entry/a", &["entry/a", "entry/a/1", "entry/a/2/deep/er"]),
        ("entry/a/2", &["entry/a/2/deep/er"]),
        ("entry/a_b", &["entry/a_b/1"]),
        ("entry/a.b", &["entry/a.b/1"]),
        ("ent", &[]),
        ("nothing/here", &[]),
    ];
    for (prefix, paths) in expected {
        let mut wanted: Vec<_> = paths.iter().map(|path| secret_ref(path)).collect();
        wanted.sort();
        assert_eq!(
            works(store.list(prefix).await, "references can be listed"),
            wanted,
            "references below {prefix:?}, sorted"
        );
    }
}

/// References that differ in case are different.
pub async fn references_are_told_apart_byte_for_byte(store: &Arc<dyn SecretStore>) {
    write(store, "entry/Case/1", &[("n", "upper")]).await;
    write(store, "entry/case/1", &[("n", "lower")]).await;
    assert_eq!(
        read(store, "entry/Case/1").await.0,
        bundle(&[("n", "upper")]),
        "references that differ in case are different"
    );
    assert_eq!(
        works(store.list("entry/case").await, "references can be listed"),
        [secret_ref("entry/case/1")],
        "prefixes that differ in case are different"
    );
}

/// Of many parallel creators exactly one succeeds.
pub async fn one_of_many_creators_wins(store: &Arc<dyn SecretStore>) {
    let outcomes =
        race(
            (0..RACERS).map(|n| {
                let store = Arc::clone(store);
                async move {
                    store.put(&secret_ref("lease/a/1"), &bundle(&[("writer", &n.to_string())]), Expect::Absent).await
                }
            }),
        )
        .await;
    let version = one_wins(outcomes, "of several creators exactly one succeeds");
    assert_eq!(read(store, "lease/a/1").await.1, version, "the version is that of the creator that succeeded");
}

/// Of many parallel writers with the same expectation exactly one succeeds.
pub async fn one_of_many_writers_with_one_expectation_wins(store: &Arc<dyn SecretStore>) {
    contend(store, store).await;
}

/// What one handle writes, another one reads.
pub async fn another_handle_reads_what_was_written(first: &Arc<dyn SecretStore>, second: &Arc<dyn SecretStore>) {
    for n in ["1", "2"] {
        let version = write(first, "entry/a/1", &[("n", n)]).await;
        assert_eq!(
            read(second, "entry/a/1").await,
            (bundle(&[("n", n)]), version),
            "what one handle wrote, another one reads"
        );
    }
    works(second.remove(&secret_ref("entry/a/1")).await, "a bundle can be removed");
    fails(
        first.get(&secret_ref("entry/a/1")).await,
        ErrorKind::NotFound,
        "what one handle removed, another one does not find",
    );
}

/// Of many parallel writers with the same expectation exactly one succeeds, whatever handle they use.
pub async fn writers_on_both_handles_race(first: &Arc<dyn SecretStore>, second: &Arc<dyn SecretStore>) {
    contend(first, second).await;
}

async fn contend(first: &Arc<dyn SecretStore>, second: &Arc<dyn SecretStore>) {
    let version = write(first, "token/a/1", &[("writer", "none")]).await;
    let outcomes = race((0..RACERS).map(|n| {
        let store = Arc::clone(if n % 2 == 0 { first } else { second });
        async move {
            store.put(&secret_ref("token/a/1"), &bundle(&[("writer", &n.to_string())]), Expect::Version(version)).await
        }
    }))
    .await;
    let won = one_wins(outcomes, "of several writers with the same expectation exactly one succeeds");
    assert_eq!(read(first, "token/a/1").await.1, won, "writers that lost wrote nothing");
}

fn one_wins(outcomes: Vec<Result<SecretVersion, Error>>, promise: &str) -> SecretVersion {
    let mut won = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok(version) => won.push(version),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{promise}; a loser got {error:?}"),
        }
    }
    assert_eq!(won.len(), 1, "{promise}");
    won[0]
}

/// A reader sees a bundle before or after a write, never a mixture.
pub async fn readers_see_whole_bundles(store: &Arc<dyn SecretStore>) {
    write(store, "entry/a/1", &[("left", "0"), ("right", "0")]).await;
    race((0..RACERS).map(|n| {
        let store = Arc::clone(store);
        async move {
            if n % 4 == 0 {
                let text = n.to_string();
                write(&store, "entry/a/1", &[("left", &text), ("right", &text)]).await;
            }
            let (bundle, _) = read(&store, "entry/a/1").await;
            assert!(
                bundle.len() == 2 && bundle.get("left") == bundle.get("right"),
                "a reader never sees a mixture of two bundles"
            );
        }
    }))
    .await;
}

/// A bundle of the greatest size is kept; a larger one is refused with the field, the bound and a remedy, and changes nothing.
pub async fn what_is_too_large_is_refused(store: &Arc<dyn SecretStore>) {
    let reference = secret_ref("entry/a/1");
    let largest = bundle(&[("key", &"x".repeat(MAX_BUNDLE - 3))]);
    let version = works(store.put(&reference, &largest, Expect::Absent).await, "the largest bundle can be written");
    let larger = bundle(&[("small", ""), ("key", &"x".repeat(MAX_BUNDLE - 7))]);
    let refused = store.put(&reference, &larger, Expect::Any).await;
    match fails(refused, ErrorKind::Invalid, "a larger bundle is refused") {
        Error::Invalid(findings) => {
            let [finding] = &findings[..] else { panic!("a larger bundle is refused with one finding") };
            assert_eq!(finding.field, "key", "the finding names the largest value");
            assert!(finding.reason.contains(&MAX_BUNDLE.to_string()), "the finding says how much is kept");
            assert!(!finding.remedy.is_empty(), "the finding says what to do");
        }
        _ => unreachable!("its kind says so"),
    }
    let (kept, at) = read(store, "entry/a/1").await;
    assert!(kept == largest && at == version, "what is refused changes nothing");
}

/// No value is in any error or debug output.
pub async fn shows_no_value(store: &Arc<dyn SecretStore>) {
    const CANARY: &str = "canary-4711-do-not-print";
    let (reference, secret) = (secret_ref("entry/a/1"), bundle(&[("token", CANARY)]));
    let version = works(store.put(&reference, &secret, Expect::Absent).await, "a bundle can be written");
    let mut seen = Vec::new();
    for expect in [Expect::Absent, Expect::Version(SecretVersion(version.0 + 9))] {
        let error =
            fails(store.put(&reference, &secret, expect).await, ErrorKind::Conflict, "a stale expectation conflicts");
        seen.push(format!("{error} {error:?}"));
    }
    let error =
        fails(store.get(&secret_ref("entry/a/2")).await, ErrorKind::NotFound, "an absent reference is not found");
    seen.push(format!("{error} {error:?}"));
    seen.push(format!("{:?}", works(store.get(&reference).await, "what was written can be read")));
    seen.push(format!("{:?}", works(store.list("").await, "references can be listed")));
    seen.push(format!("{store:?}"));
    for text in seen {
        assert!(!text.contains(CANARY), "no error and no debug output holds a value");
    }
}

/// A backend that is there says so.
pub async fn answers_its_check(store: &Arc<dyn SecretStore>) {
    works(store.check().await, "a backend that is there says so");
}
