//! Rules that are the catalog's own: unique values, references, and no secrets.

use super::{Family, write};
use crate::{
    Error, ErrorKind,
    catalog::{CatalogStore, CredentialModel, FixedValue, Record, RecordKey, StaticField},
    consumer::CredentialChoice,
    feed::ChangeSet,
    id::{ConsumerId, EntryId, InstallationId, ToolId, UserId},
    installation::Owner,
    secret::Expect,
    testing::{
        conformance::{RACERS, fails, race, works},
        fixtures,
    },
};
use std::sync::Arc;

/// A value that belongs into a secret store gets into no row and no error.
pub async fn refuses_secret_values(store: &Arc<dyn CatalogStore>) {
    const CANARY: &str = "canary-4711-do-not-print";
    let mut entry = fixtures::remote_entry("leaky");
    let field = StaticField {
        name: "token".to_owned(),
        header: "Authorization".to_owned(),
        prefix: None,
        secret: true,
        prompt: false,
        required: true,
        value: Some(FixedValue::Secret(CANARY.into())),
        description: None,
    };
    entry.spec.credential = CredentialModel::Static(vec![field]);
    match store.commit(ChangeSet::new().create(entry.clone())).await {
        Ok(_) => panic!("an entry that still holds a secret value is refused"),
        Err(error) => assert!(!format!("{error} {error:?}").contains(CANARY), "an error holds no secret value"),
    }
    fails(store.get(entry.id.into()).await, ErrorKind::NotFound, "a refused entry is not stored");
    assert!(!format!("{store:?}").contains(CANARY), "the debug output of a store holds no secret value");
    let taken = entry.spec.take_secrets();
    assert_eq!(taken.len(), 1, "the secret value can be taken out");
    works(store.commit(ChangeSet::new().create(entry)).await, "an entry whose secrets were taken out can be stored");
}

/// Names that differ only in case or accents are different names.
pub async fn tells_names_apart_byte_for_byte(store: &Arc<dyn CatalogStore>) {
    let entries = ["tracker", "Tracker", "trackér", "TRACKER"].map(fixtures::remote_entry);
    write(store, entries.clone().map(Record::from)).await;
    let (upper, lower) = (fixtures::tool(&entries[0], "Echo"), fixtures::tool(&entries[0], "echo"));
    write(store, [upper.into(), lower.into()]).await;
}

/// Each unique value can be taken once only.
pub async fn unique_values_are_taken_once(store: &Arc<dyn CatalogStore>) {
    let family = Family::stored(store, "tracker").await;
    let Family { entry, installation, tool, gateway, assignment } = &family;
    let other = fixtures::tool(entry, "other");
    let revision = fixtures::revision(installation, 1);
    write(store, [other.clone().into(), revision.into()]).await;
    let mut same_name = fixtures::assignment(gateway, entry, &other);
    same_name.exposed_name = assignment.exposed_name.clone();
    let mut same_tool = fixtures::assignment(gateway, entry, &other);
    same_tool.tool = tool.id;
    let refused: [(&str, Record); 7] = [
        ("an entry's name", fixtures::remote_entry("tracker").into()),
        ("an installation's entry and owner", fixtures::installation(entry, Owner::Organization).into()),
        ("a tool's entry and raw name", fixtures::tool(entry, "echo").into()),
        ("a consumer's slug, over gateways and agents", fixtures::agent("tracker").into()),
        ("an assignment's consumer and exposed name", same_name.into()),
        ("an assignment's consumer and tool", same_tool.into()),
        ("a revision's workload and number", fixtures::revision(installation, 1).into()),
    ];
    for (what, record) in refused {
        let key = record.key();
        fails(
            store.commit(ChangeSet::new().create(record)).await,
            ErrorKind::AlreadyExists,
            &format!("{what} can be taken once only"),
        );
        fails(store.get(key).await, ErrorKind::NotFound, "what is refused is not stored");
    }
}

/// What is unique within something may be there again in something else.
pub async fn unique_values_are_free_elsewhere(store: &Arc<dyn CatalogStore>) {
    let (one, two) = (Family::stored(store, "one").await, Family::stored(store, "two").await);
    let mut elsewhere = fixtures::assignment(&two.gateway, &one.entry, &one.tool);
    elsewhere.exposed_name = one.assignment.exposed_name.clone();
    let records: [Record; 5] = [
        fixtures::installation(&one.entry, Owner::User(UserId::new())).into(),
        fixtures::installation(&one.entry, Owner::User(UserId::new())).into(),
        elsewhere.into(),
        fixtures::revision(&one.installation, 1).into(),
        fixtures::revision(&two.installation, 1).into(),
    ];
    write(store, records).await;
}

/// What a record refers to must be there when its set is done.
pub async fn references_must_exist(store: &Arc<dyn CatalogStore>) {
    let family = Family::stored(store, "tracker").await;
    let second = fixtures::tool(&family.entry, "second");
    write(store, [second.clone().into()]).await;
    let nowhere = fixtures::remote_entry("nowhere");
    let sound = || fixtures::assignment(&family.gateway, &family.entry, &second);
    let mut refused: Vec<(&str, Record)> = vec![
        ("an installation's entry", fixtures::installation(&nowhere, Owner::Organization).into()),
        ("a tool's entry", fixtures::tool(&nowhere, "echo").into()),
    ];
    let mut broken = sound();
    broken.entry = EntryId::new();
    refused.push(("an assignment's entry", broken.into()));
    let mut broken = sound();
    broken.consumer = ConsumerId::new();
    refused.push(("an assignment's consumer", broken.into()));
    let mut broken = sound();
    broken.tool = ToolId::new();
    refused.push(("an assignment's tool", broken.into()));
    let mut broken = sound();
    broken.credential = CredentialChoice::Pinned(InstallationId::new());
    refused.push(("an assignment's pinned installation", broken.into()));
    for (what, record) in refused {
        let key = record.key();
        fails(store.commit(ChangeSet::new().create(record)).await, ErrorKind::Conflict, &format!("{what} must exist"));
        fails(store.get(key).await, ErrorKind::NotFound, "what is refused is not stored");
    }
    let mut changed = family.assignment.clone();
    changed.credential = CredentialChoice::Pinned(InstallationId::new());
    fails(
        store.commit(ChangeSet::new().put(changed, Expect::Any)).await,
        ErrorKind::Conflict,
        "a reference must exist after a change, too",
    );
    works(store.commit(ChangeSet::new().create(sound())).await, "with all it refers to an assignment can be written");
}

/// What another record refers to is not removed, unless that record goes or changes in the same set.
pub async fn references_hold_what_they_name(store: &Arc<dyn CatalogStore>) {
    let mut family = Family::new("tracker");
    family.assignment.credential = CredentialChoice::Pinned(family.installation.id);
    write(store, family.records()).await;
    let Family { entry, installation, tool, gateway, mut assignment } = family;
    let held: [(&str, RecordKey); 4] = [
        ("an entry with installations, tools and assignments", entry.id.into()),
        ("a consumer with assignments", gateway.id.into()),
        ("a tool that is assigned", tool.id.into()),
        ("an installation that an assignment pins", installation.id.into()),
    ];
    for (what, key) in held {
        fails(
            store.commit(ChangeSet::new().delete(key, Expect::Any)).await,
            ErrorKind::Conflict,
            &format!("{what} cannot be removed"),
        );
        works(store.get(key).await, "what could not be removed is still there");
    }
    assignment.credential = CredentialChoice::ResolveAtCallTime;
    let changes = ChangeSet::new().delete(installation.id, Expect::Any).put(assignment.clone(), Expect::Any);
    works(store.commit(changes).await, "an installation can be removed by the set that takes the pin away");
    let changes = ChangeSet::new()
        .delete(entry.id, Expect::Any)
        .delete(gateway.id, Expect::Any)
        .delete(assignment.id, Expect::Any)
        .delete(tool.id, Expect::Any);
    works(store.commit(changes).await, "records that refer to each other can be removed by one set, in any order");
}

/// References are judged by what is there after the set.
pub async fn a_set_may_refer_to_itself_in_any_order(store: &Arc<dyn CatalogStore>) {
    let mut family = Family::new("tracker");
    family.assignment.credential = CredentialChoice::Pinned(family.installation.id);
    let mut records = family.records();
    records.reverse();
    write(store, records).await;
    let next = fixtures::remote_entry("next");
    let mut moved = family.installation.clone();
    moved.entry = next.id;
    let mut changes = ChangeSet::new().put(moved, Expect::Any).create(next).delete(family.entry.id, Expect::Any);
    fails(store.commit(changes.clone()).await, ErrorKind::Conflict, "an entry whose tool stays cannot be removed");
    changes.push_delete(family.tool.id, Expect::Any);
    changes.push_delete(family.assignment.id, Expect::Any);
    works(
        store.commit(changes).await,
        "an entry can be removed by the set that changes or removes all that refers to it",
    );
}

/// Removing an installation leaves the assignments that resolve at call time.
pub async fn an_installation_goes_without_unpinned_assignments(store: &Arc<dyn CatalogStore>) {
    let family = Family::stored(store, "tracker").await;
    works(
        store.commit(ChangeSet::new().delete(family.installation.id, Expect::Any)).await,
        "an installation that nothing pins can be removed",
    );
    let read = works(store.get(family.assignment.id.into()).await, "an assignment that resolves at call time stays");
    assert_eq!(read.value, family.assignment.into(), "an assignment that resolves at call time stays as it is");
}

/// However a new reference and the removal of what it names meet, no reference is left dangling.
pub async fn a_reference_and_a_removal_never_both_succeed(store: &Arc<dyn CatalogStore>) {
    for round in 0..4 {
        let entry = fixtures::remote_entry(&format!("round {round}"));
        write(store, [entry.clone().into()]).await;
        let outcomes = race((0..RACERS).map(|n| {
            let (store, entry) = (Arc::clone(store), entry.clone());
            async move {
                if n % 2 == 0 {
                    store.commit(ChangeSet::new().delete(entry.id, Expect::Any)).await.map(|_| None)
                } else {
                    let installation = fixtures::installation(&entry, Owner::User(UserId::new()));
                    store.commit(ChangeSet::new().create(installation.clone())).await.map(|_| Some(installation))
                }
            }
        }))
        .await;
        let installed: Vec<_> =
            outcomes.iter().filter_map(|outcome| outcome.as_ref().ok().and_then(Option::as_ref)).collect();
        for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            assert_eq!(
                Error::kind(error),
                ErrorKind::Conflict,
                "who loses against a removal or a reference gets a conflict: {error:?}"
            );
        }
        let there = store.get(entry.id.into()).await.is_ok();
        assert_eq!(there, !installed.is_empty(), "an entry is there exactly if something refers to it");
        for installation in installed {
            works(store.get(installation.id.into()).await, "what was installed is there");
        }
    }
}
