//! The suite of [`StateStore`].

use super::{RACERS, eventually, pair_suite, race, suite, works};
use crate::state::{StateKey, StateStore};
use bytes::Bytes;
use std::{collections::BTreeSet, sync::Arc, time::Duration};

suite! {
    $
    /// One `#[test]` for each case of the [state store suite](crate::testing::conformance::state_store): a module name and an
    /// expression that yields an `Arc` of an empty store.
    state_store_conformance, state_store, state::StateStore, [
        returns_what_was_put,
        keys_are_told_apart,
        keeps_values_byte_for_byte,
        a_value_is_put_once_if_absent,
        compares_before_it_sets,
        a_value_is_taken_once,
        removal_is_repeatable,
        counters_add_up,
        a_counter_keeps_its_first_time_to_live,
        scans_by_prefix_in_order,
        values_expire,
        an_expired_key_is_absent_for_every_method,
        a_write_sets_a_new_time_to_live,
        one_of_many_takers_gets_the_value,
        one_of_many_putters_succeeds,
        one_of_many_setters_succeeds,
        no_addition_is_lost,
        answers_its_check,
    ]
}

pair_suite! {
    $
    /// One `#[test]` for each case of the [state store suite](crate::testing::conformance::state_store) that needs two
    /// handles: a module name and an expression that yields a pair of `Arc`s on the same, empty store.
    state_store_pair_conformance, state_store, state::StateStore, [
        another_handle_sees_what_was_put,
        takers_on_both_handles_race,
        additions_on_both_handles_add_up,
    ]
}

const SPACE: &str = "conformance";
const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(300);

fn key(name: &str) -> StateKey {
    StateKey::new(SPACE, name)
}

fn value(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn get(store: &Arc<dyn StateStore>, name: &str) -> Option<Bytes> {
    works(store.get(&key(name)).await, "a key can be read")
}

async fn put(store: &Arc<dyn StateStore>, name: &str, text: &str, ttl: Duration) {
    works(store.put(&key(name), value(text), ttl).await, "a value can be put");
}

/// A value comes back as it was put; a second put replaces it; what was never put is `None`.
pub async fn returns_what_was_put(store: &Arc<dyn StateStore>) {
    assert_eq!(get(store, "code").await, None, "what was never put is absent");
    for text in ["first", "second"] {
        put(store, "code", text, LONG).await;
        assert_eq!(get(store, "code").await, Some(value(text)), "what was put last is read");
    }
}

/// Keys of different spaces, and names that differ in case or only at their end, are different.
pub async fn keys_are_told_apart(store: &Arc<dyn StateStore>) {
    let keys = [
        key("code"),
        key("Code"),
        key("code "),
        key("code/1"),
        StateKey::new("conformance/code", "1"),
        StateKey::new("elsewhere", "code"),
        key(""),
    ];
    for (n, key) in keys.iter().enumerate() {
        works(store.put(key, value(&n.to_string()), LONG).await, "a value can be put");
    }
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(
            works(store.get(key).await, "a key can be read"),
            Some(value(&n.to_string())),
            "{key:?} is a key of its own"
        );
    }
}

/// Values are opaque: any bytes, none at all, and up to 64 KiB.
pub async fn keeps_values_byte_for_byte(store: &Arc<dyn StateStore>) {
    let all: Vec<u8> = (0..=255).collect();
    for bytes in [Bytes::from(all.clone()), Bytes::new(), Bytes::from(all.repeat(256))] {
        works(store.put(&key("bytes"), bytes.clone(), LONG).await, "any bytes up to 64 KiB can be put");
        assert!(get(store, "bytes").await == Some(bytes.clone()), "{} bytes come back as they were put", bytes.len());
        let swapped =
            works(store.compare_and_set(&key("bytes"), &bytes, bytes.clone(), LONG).await, "any bytes can be compared");
        assert!(swapped, "a value of {} bytes equals itself", bytes.len());
    }
}

/// `put_if_absent` writes once and says whether it did.
pub async fn a_value_is_put_once_if_absent(store: &Arc<dyn StateStore>) {
    assert!(
        works(store.put_if_absent(&key("jti"), value("first"), LONG).await, "an absent key can be put"),
        "an absent key is put"
    );
    assert!(
        !works(store.put_if_absent(&key("jti"), value("second"), LONG).await, "a present key can be tried"),
        "a present key is not put"
    );
    assert_eq!(get(store, "jti").await, Some(value("first")), "a put that was refused changes nothing");
}

/// `compare_and_set` replaces exactly what is expected, and nothing where nothing is.
pub async fn compares_before_it_sets(store: &Arc<dyn StateStore>) {
    let set = async |expected: &str, text: &str| {
        works(
            store.compare_and_set(&key("lease"), expected.as_bytes(), value(text), LONG).await,
            "a key can be compared",
        )
    };
    assert!(!set("", "x").await, "what is absent equals nothing, not even an empty value");
    assert_eq!(get(store, "lease").await, None, "a comparison that fails writes nothing");
    put(store, "lease", "one", LONG).await;
    assert!(
        !set("two", "x").await && !set("on", "x").await && !set("ones", "x").await,
        "another value is not replaced"
    );
    assert_eq!(get(store, "lease").await, Some(value("one")), "a comparison that fails changes nothing");
    assert!(set("one", "two").await, "the expected value is replaced");
    assert_eq!(get(store, "lease").await, Some(value("two")), "the expected value is replaced");
}

/// `take` reads and removes.
pub async fn a_value_is_taken_once(store: &Arc<dyn StateStore>) {
    put(store, "code", "grant", LONG).await;
    put(store, "other", "stays", LONG).await;
    assert_eq!(
        works(store.take(&key("code")).await, "a value can be taken"),
        Some(value("grant")),
        "a taker gets the value"
    );
    assert_eq!(works(store.take(&key("code")).await, "an absent key can be taken"), None, "what was taken is gone");
    assert_eq!(get(store, "code").await, None, "what was taken is gone");
    assert_eq!(get(store, "other").await, Some(value("stays")), "only what was named is taken");
}

/// Removing works whether something is there or not.
pub async fn removal_is_repeatable(store: &Arc<dyn StateStore>) {
    put(store, "flow", "state", LONG).await;
    for _ in 0..2 {
        works(store.remove(&key("flow")).await, "a key can be removed, whether it is there or not");
        assert_eq!(get(store, "flow").await, None, "what was removed is gone");
    }
}

/// A counter begins with what is added first, goes up and down, and begins anew once removed.
pub async fn counters_add_up(store: &Arc<dyn StateStore>) {
    for (amount, sum) in [(5, 5), (1, 6), (-10, -4), (0, -4), (i64::from(u32::MAX), i64::from(u32::MAX) - 4)] {
        assert_eq!(
            works(store.add(&key("calls"), amount, LONG).await, "a counter can be added to"),
            sum,
            "an addition returns the new sum"
        );
    }
    assert_eq!(
        works(store.add(&key("others"), 1, LONG).await, "a counter can be added to"),
        1,
        "counters are independent"
    );
    works(store.remove(&key("calls")).await, "a counter can be removed");
    assert_eq!(
        works(store.add(&key("calls"), 2, LONG).await, "a counter can be added to"),
        2,
        "a removed counter begins anew"
    );
}

/// The first addition sets the time to live, and later ones keep it.
pub async fn a_counter_keeps_its_first_time_to_live(store: &Arc<dyn StateStore>) {
    works(store.add(&key("window"), 1_000, SHORT).await, "a counter can be added to");
    eventually("a counter expires by its first time to live, although later additions ask for more", || async {
        works(store.add(&key("window"), 1, LONG).await, "a counter can be added to") < 1_000
    })
    .await;
    let kept = works(store.add(&key("window"), 1, SHORT).await, "a counter can be added to");
    assert_eq!(kept, 2, "an addition that shortens nothing leaves the counter as it is");
}

/// A scan returns the live values of one space below a literal prefix, in byte order.
pub async fn scans_by_prefix_in_order(store: &Arc<dyn StateStore>) {
    let names = ["peer/b", "peer/a", "peer/B", "peer_x", "peer%", "pe", "peer/\u{e4}"];
    for name in names {
        put(store, name, name, LONG).await;
    }
    works(store.put(&StateKey::new("elsewhere", "peer/z"), value("z"), LONG).await, "a value can be put");
    let expected: [(&str, Vec<&str>); 5] = [
        ("peer/", vec!["peer/B", "peer/a", "peer/b", "peer/\u{e4}"]),
        ("peer_", vec!["peer_x"]),
        ("peer%", vec!["peer%"]),
        ("", vec!["pe", "peer%", "peer/B", "peer/a", "peer/b", "peer/\u{e4}", "peer_x"]),
        ("nobody", vec![]),
    ];
    for (prefix, names) in expected {
        let found = works(store.scan(SPACE, prefix).await, "a space can be scanned");
        let wanted: Vec<_> = names.into_iter().map(|name| (name.to_owned(), value(name))).collect();
        assert_eq!(found, wanted, "the values whose names begin with {prefix:?}, by name");
    }
}

/// A value is gone when its time to live has passed, and one that lives long is not.
pub async fn values_expire(store: &Arc<dyn StateStore>) {
    put(store, "short", "s", SHORT).await;
    put(store, "long", "l", LONG).await;
    eventually("a value is gone when its time to live has passed", || async { get(store, "short").await.is_none() })
        .await;
    assert_eq!(get(store, "long").await, Some(value("l")), "a value that lives longer is still there");
    let left = works(store.scan(SPACE, "").await, "a space can be scanned");
    assert_eq!(left, [("long".to_owned(), value("l"))], "a scan does not return what has expired");
}

/// To every method, an expired key is as absent as one that never was.
pub async fn an_expired_key_is_absent_for_every_method(store: &Arc<dyn StateStore>) {
    for name in ["gone", "take", "swap", "put"] {
        put(store, name, "old", SHORT).await;
    }
    eventually("a value is gone when its time to live has passed", || async {
        let mut left = false;
        for name in ["gone", "take", "swap", "put"] {
            left |= get(store, name).await.is_some();
        }
        !left
    })
    .await;
    assert_eq!(
        works(store.take(&key("take")).await, "an expired key can be taken"),
        None,
        "an expired value is not taken"
    );
    assert!(
        !works(store.compare_and_set(&key("swap"), b"old", value("new"), LONG).await, "an expired key can be compared"),
        "an expired value equals nothing"
    );
    assert!(
        works(store.put_if_absent(&key("put"), value("new"), LONG).await, "an expired key can be put"),
        "an expired key is absent"
    );
    assert_eq!(get(store, "put").await, Some(value("new")), "what replaces an expired value is there");
}

/// A write gives the value its own time to live, longer or shorter than the one before.
pub async fn a_write_sets_a_new_time_to_live(store: &Arc<dyn StateStore>) {
    put(store, "longer", "1", SHORT).await;
    put(store, "longer", "2", LONG).await;
    put(store, "swapped", "1", SHORT).await;
    let swapped = works(store.compare_and_set(&key("swapped"), b"1", value("2"), LONG).await, "a key can be compared");
    put(store, "shorter", "1", LONG).await;
    put(store, "shorter", "2", SHORT).await;
    eventually("a write with a shorter time to live shortens it", || async { get(store, "shorter").await.is_none() })
        .await;
    assert_eq!(get(store, "longer").await, Some(value("2")), "a write with a longer time to live lengthens it");
    if swapped {
        assert_eq!(get(store, "swapped").await, Some(value("2")), "a set with a longer time to live lengthens it");
    }
}

/// Of many parallel takers of one key exactly one gets the value.
pub async fn one_of_many_takers_gets_the_value(store: &Arc<dyn StateStore>) {
    take_race(store, store).await;
}

/// Of many parallel takers of one key exactly one gets the value, whatever handle they use.
pub async fn takers_on_both_handles_race(first: &Arc<dyn StateStore>, second: &Arc<dyn StateStore>) {
    take_race(first, second).await;
}

async fn take_race(first: &Arc<dyn StateStore>, second: &Arc<dyn StateStore>) {
    for round in 0..4 {
        let name = format!("code-{round}");
        put(first, &name, "grant", LONG).await;
        let taken = race((0..RACERS).map(|n| {
            let (store, key) = (Arc::clone(if n % 2 == 0 { first } else { second }), key(&name));
            async move { works(store.take(&key).await, "parallel takers get no error") }
        }))
        .await;
        assert_eq!(
            taken.into_iter().flatten().collect::<Vec<_>>(),
            [value("grant")],
            "of several takers exactly one gets the value"
        );
    }
}

/// Of many parallel `put_if_absent` exactly one writes.
pub async fn one_of_many_putters_succeeds(store: &Arc<dyn StateStore>) {
    let put = race((0..RACERS).map(|n| {
        let store = Arc::clone(store);
        async move {
            works(store.put_if_absent(&key("jti"), value(&n.to_string()), LONG).await, "parallel putters get no error")
                .then_some(n)
        }
    }))
    .await;
    let winners: Vec<_> = put.into_iter().flatten().collect();
    assert_eq!(winners.len(), 1, "of several that put if absent exactly one writes");
    assert_eq!(
        get(store, "jti").await,
        Some(value(&winners[0].to_string())),
        "the value is that of the one that was told so"
    );
}

/// Of many parallel `compare_and_set` with the same expectation exactly one writes.
pub async fn one_of_many_setters_succeeds(store: &Arc<dyn StateStore>) {
    put(store, "lease", "free", LONG).await;
    let set = race((0..RACERS).map(|n| {
        let store = Arc::clone(store);
        async move {
            works(
                store.compare_and_set(&key("lease"), b"free", value(&n.to_string()), LONG).await,
                "parallel setters get no error",
            )
            .then_some(n)
        }
    }))
    .await;
    let winners: Vec<_> = set.into_iter().flatten().collect();
    assert_eq!(winners.len(), 1, "of several that compare and set exactly one writes");
    assert_eq!(
        get(store, "lease").await,
        Some(value(&winners[0].to_string())),
        "the value is that of the one that was told so"
    );
}

/// No parallel addition is lost, and each sees its own sum.
pub async fn no_addition_is_lost(store: &Arc<dyn StateStore>) {
    add_race(store, store).await;
}

/// No parallel addition is lost, whatever handle it goes through.
pub async fn additions_on_both_handles_add_up(first: &Arc<dyn StateStore>, second: &Arc<dyn StateStore>) {
    add_race(first, second).await;
}

async fn add_race(first: &Arc<dyn StateStore>, second: &Arc<dyn StateStore>) {
    const EACH: i64 = 4;
    let sums = race((0..RACERS).map(|n| {
        let store = Arc::clone(if n % 2 == 0 { first } else { second });
        async move {
            let mut sums = Vec::new();
            for _ in 0..EACH {
                sums.push(works(store.add(&key("calls"), 1, LONG).await, "parallel additions get no error"));
            }
            sums
        }
    }))
    .await;
    let total = EACH * i64::try_from(RACERS).expect("few racers");
    let sums: BTreeSet<i64> = sums.into_iter().flatten().collect();
    assert_eq!(sums, (1..=total).collect(), "each addition returns a sum of its own, and none is lost");
}

/// What one handle puts and removes, another one sees at once.
pub async fn another_handle_sees_what_was_put(first: &Arc<dyn StateStore>, second: &Arc<dyn StateStore>) {
    put(first, "code", "grant", LONG).await;
    assert_eq!(get(second, "code").await, Some(value("grant")), "what one handle put, another one reads");
    assert!(
        !works(second.put_if_absent(&key("code"), value("other"), LONG).await, "a present key can be tried"),
        "what one handle put is not absent for another one"
    );
    works(second.remove(&key("code")).await, "a key can be removed");
    assert_eq!(get(first, "code").await, None, "what one handle removed, another one does not find");
}

/// A store that is there says so.
pub async fn answers_its_check(store: &Arc<dyn StateStore>) {
    works(store.check().await, "a store that is there says so");
}
