//! Names stay inside what Kubernetes takes, and lead back to their workload.

use super::*;
use archestra_core::id::{EntryId, InstallationId};
use proptest::prelude::*;

fn uuid<T: std::str::FromStr<Err = archestra_core::Error>>(number: u128) -> T {
    format!("{number:032x}").parse().unwrap()
}

/// RFC 1035: what the name of a Service must be.
fn is_service_name(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.ends_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

proptest! {
    #[test]
    fn every_name_is_one_that_a_service_may_have(number in any::<u128>(), n in 0usize..100) {
        for id in [WorkloadId::of_installation(uuid::<InstallationId>(number)), WorkloadId::of_entry(uuid::<EntryId>(number))] {
            for name in [object(&id), bridge_secret(&id), pull_secret(&id, n)] {
                prop_assert!(is_service_name(&name), "{}", name);
            }
        }
    }

    #[test]
    fn labels_lead_back_to_the_workload_and_fit(number in any::<u128>(), team in any::<u128>()) {
        let id = WorkloadId::of_installation(uuid::<InstallationId>(number));
        let team = uuid::<TeamId>(team);
        let labels = labels(&id, Some(&team), Some(&"a".repeat(63)));
        prop_assert!(labels.values().all(|value| value.len() <= 63));
        prop_assert_eq!(labels.get(TEAM), Some(&team.to_string()));
        let meta = ObjectMeta { labels: Some(labels), ..ObjectMeta::default() };
        prop_assert_eq!(workload_of(&meta), Some(id));
    }
}

#[test]
fn what_only_looks_like_ours_is_not() {
    let id: WorkloadId = "mcp-a".parse().unwrap();
    let meta = |labels: &[(&str, &str)]| ObjectMeta {
        labels: Some(labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()),
        ..ObjectMeta::default()
    };
    assert_eq!(workload_of(&ObjectMeta::default()), None);
    assert_eq!(workload_of(&meta(&[(WORKLOAD, id.as_str())])), None);
    assert_eq!(workload_of(&meta(&[(WORKLOAD, id.as_str()), (MANAGED_BY_KEY, "Helm")])), None);
    assert_eq!(workload_of(&meta(&[(WORKLOAD, "Not_an_id"), (MANAGED_BY_KEY, MANAGED_BY)])), None);
    assert_eq!(workload_of(&meta(&[(WORKLOAD, id.as_str()), (MANAGED_BY_KEY, MANAGED_BY)])), Some(id));
}

#[test]
fn a_platform_with_a_name_takes_only_its_own_and_one_without_takes_all() {
    let id: WorkloadId = "mcp-a".parse().unwrap();
    let made_by = |instance| ObjectMeta { labels: Some(labels(&id, None, instance)), ..ObjectMeta::default() };
    let all = [made_by(Some("one")), made_by(Some("two")), made_by(None)];
    let taken = |instance| all.each_ref().map(|meta| is_of_instance(meta, instance));
    assert_eq!(taken(Some("one")), [true, false, false]);
    assert_eq!(taken(None), [true, true, true]);
    assert!(all.iter().all(|meta| workload_of(meta).as_ref() == Some(&id)));
    assert!(!selector(&id).contains_key(INSTANCE), "what finds pods never changes");
    assert_eq!(select_ours(None), "app.kubernetes.io/managed-by=archestra,archestra.dev/workload");
    assert_eq!(
        select_workload(&id, Some("one")),
        "app.kubernetes.io/managed-by=archestra,archestra.dev/workload=mcp-a,archestra.dev/instance=one"
    );
}

#[test]
fn the_wiring_is_read_from_its_annotation() {
    for wiring in [Wiring::Bridge, Wiring::Attach, Wiring::Http] {
        let annotations = BTreeMap::from([(TRANSPORT.to_owned(), wiring.label().to_owned())]);
        let meta = ObjectMeta { annotations: Some(annotations), ..ObjectMeta::default() };
        assert_eq!(Wiring::of(&meta), Some(wiring));
    }
    assert_eq!(Wiring::of(&ObjectMeta::default()), None);
}
