//! Reading: records as written, unique values, filters, search.

use super::{Family, listed, write};
use crate::{
    ErrorKind,
    catalog::{CatalogStore, Kind, Labels, Lookup, Query, Record},
    consumer::{ConsumerKind, CredentialChoice},
    feed::{ChangeSet, PageRequest, Version},
    id::{EntryId, TeamId, UserId},
    installation::Owner,
    runtime::WorkloadId,
    secret::Expect,
    testing::{
        conformance::{fails, works},
        fixtures,
    },
};
use std::sync::Arc;

/// A record comes back equal to what was written, whatever its kind.
pub async fn keeps_every_kind_of_record_as_written(store: &Arc<dyn CatalogStore>) {
    let mut family = Family::new("tracker \u{1F4E6} \"quoted\" 'single' \\ back\nline");
    family.entry.spec.labels = [("department", "finance"), ("department", "legal")].into_iter().collect();
    family.entry.secrets = Some(fixtures::secret_ref("entry/some/where"));
    family.installation.values.insert("LEVEL".to_owned(), "\u{1} and \u{7f}".to_owned());
    family.installation.tools.insert(family.tool.name.clone(), family.tool.hash);
    family.assignment.credential = CredentialChoice::Pinned(family.installation.id);
    let mut records = family.records().to_vec();
    records.extend([
        fixtures::revision(&family.installation, 1).into(),
        fixtures::policy("rule").into(),
        fixtures::limit("cap", u64::from(u32::MAX)).into(),
    ]);
    write(store, records.clone()).await;
    for record in &records {
        let read = works(store.get(record.key()).await, "what was written can be read");
        assert_eq!((&read.value, read.version), (record, Version(1)), "a record comes back as it was written");
    }
    for kind in Kind::ALL {
        let expected: Vec<_> = records.iter().filter(|record| record.key().kind() == *kind).cloned().collect();
        assert_eq!(
            listed(store, Query::all(*kind)).await,
            expected,
            "a list of one kind holds the records of that kind"
        );
    }
}

/// Many records are read at once, of whatever kinds, in the order of their keys, with nothing where nothing is.
pub async fn reads_many_records_at_once(store: &Arc<dyn CatalogStore>) {
    let family = Family::stored(store, "tracker").await;
    let many: Vec<Record> = (0..1200).map(|n| fixtures::remote_entry(&format!("many {n}")).into()).collect();
    write(store, many.clone()).await;
    let absent = Kind::Entry.key(uuid::Uuid::now_v7());
    let mut expected: Vec<Option<Record>> = many.into_iter().rev().map(Some).collect();
    expected.extend(family.records().map(Some));
    expected.push(None);
    expected.push(Some(family.tool.clone().into()));
    let keys: Vec<_> = expected.iter().map(|record| record.as_ref().map_or(absent, Record::key)).collect();
    let read = works(store.get_many(&keys).await, "many records can be read at once");
    let read: Vec<_> = read.into_iter().map(|found| found.map(|found| found.value)).collect();
    assert!(read == expected, "many records are read in the order of their keys, and what is not there as nothing");
    let each = works(store.get_each(&keys).await, "many records can be read at once, each by itself");
    let each: Vec<_> = each.into_iter().map(|found| found.map(|found| found.map(|found| found.value))).collect();
    let readable: Vec<_> = expected.into_iter().map(|record| record.map(Ok)).collect();
    assert!(each == readable, "what can be read is the same one by one");
    assert!(works(store.get_many(&[]).await, "no records can be read").is_empty(), "no keys lead to no records");
    for kind in Kind::ALL {
        let page = PageRequest { limit: 3, cursor: None };
        let list = works(store.list(&Query::all(*kind), &page).await, "a list can be read");
        let each = works(store.list_each(&Query::all(*kind), &page).await, "a list can be read record by record");
        assert!(each.next == list.next, "a list that is read record by record goes on at the same place");
        assert!(each.items == list.items.into_iter().map(Ok).collect::<Vec<_>>(), "and holds the same");
    }
}

/// Absent records are `NotFound`, absent unique values lead to `None`, empty lists have one empty page.
pub async fn finds_nothing_where_nothing_is(store: &Arc<dyn CatalogStore>) {
    for kind in Kind::ALL {
        let key = kind.key(uuid::Uuid::now_v7());
        fails(store.get(key).await, ErrorKind::NotFound, "what is not there is not found");
        let page = works(store.list(&Query::all(*kind), &PageRequest::default()).await, "an empty list can be read");
        assert!(page.items.is_empty() && page.next.is_none(), "an empty list has one page without items");
    }
    let id = EntryId::new();
    let lookups = [
        Lookup::EntryNamed("none".to_owned()),
        Lookup::InstallationOf(id, Owner::Organization),
        Lookup::ToolNamed(id, "none".to_owned()),
        Lookup::ConsumerAt("none".to_owned()),
    ];
    for lookup in lookups {
        assert!(works(store.find(&lookup).await, "finding nothing is no error").is_none(), "{lookup:?} leads nowhere");
    }
}

/// Every lookup leads to the record with that value, and follows a change of it.
pub async fn finds_by_unique_values(store: &Arc<dyn CatalogStore>) {
    let Family { mut entry, installation, tool, gateway, .. } = Family::stored(store, "tracker").await;
    let (user, team) = (Owner::User(UserId::new()), Owner::Team(TeamId::new()));
    let (personal, of_team) = (fixtures::installation(&entry, user), fixtures::installation(&entry, team));
    write(store, [personal.clone().into(), of_team.clone().into()]).await;
    let expected: [(Lookup, Record); 6] = [
        (Lookup::EntryNamed("tracker".to_owned()), entry.clone().into()),
        (Lookup::InstallationOf(entry.id, Owner::Organization), installation.into()),
        (Lookup::InstallationOf(entry.id, user), personal.into()),
        (Lookup::InstallationOf(entry.id, team), of_team.into()),
        (Lookup::ToolNamed(entry.id, "echo".to_owned()), tool.into()),
        (Lookup::ConsumerAt("tracker".to_owned()), gateway.into()),
    ];
    for (lookup, record) in expected {
        let found = works(store.find(&lookup).await, "a unique value can be looked up").map(|found| found.value);
        assert_eq!(found, Some(record), "{lookup:?} leads to the record that has this value");
    }
    "moved".clone_into(&mut entry.spec.name);
    works(store.commit(ChangeSet::new().put(entry.clone(), Expect::Any)).await, "an entry can be renamed");
    let moved = works(store.find(&Lookup::EntryNamed("moved".to_owned())).await, "a unique value can be looked up");
    assert_eq!(
        moved.map(|found| (found.value, found.version)),
        Some((entry.into(), Version(2))),
        "a new name leads to the record"
    );
    let old = works(store.find(&Lookup::EntryNamed("tracker".to_owned())).await, "a unique value can be looked up");
    assert!(old.is_none(), "an old name leads nowhere");
}

/// Each field of a query filters, alone and together with others.
pub async fn filters_what_it_lists(store: &Arc<dyn CatalogStore>) {
    let (one, mut two) = (Family::stored(store, "one").await, Family::new("two"));
    two.assignment.credential = CredentialChoice::Pinned(two.installation.id);
    write(store, two.records()).await;
    let agent = fixtures::agent("agent");
    let personal = fixtures::installation(&one.entry, Owner::User(UserId::new()));
    let (first, second) = (fixtures::revision(&one.installation, 1), fixtures::revision(&one.installation, 2));
    let other = fixtures::revision(&two.installation, 1);
    write(
        store,
        [agent.clone().into(), personal.clone().into(), first.clone().into(), second.clone().into(), other.into()],
    )
    .await;

    let assignments = |consumer, entry, installation| Query::Assignments { consumer, entry, installation };
    let expected: Vec<(Query, Vec<Record>)> = vec![
        (
            Query::Installations { entry: Some(one.entry.id), owner: None },
            vec![one.installation.clone().into(), personal.clone().into()],
        ),
        (Query::Installations { entry: None, owner: Some(personal.owner) }, vec![personal.clone().into()]),
        (Query::Installations { entry: Some(two.entry.id), owner: Some(personal.owner) }, vec![]),
        (Query::Tools { entry: Some(two.entry.id) }, vec![two.tool.clone().into()]),
        (Query::Consumers { kind: Some(ConsumerKind::Agent) }, vec![agent.into()]),
        (
            Query::Consumers { kind: Some(ConsumerKind::Gateway) },
            vec![one.gateway.clone().into(), two.gateway.clone().into()],
        ),
        (assignments(Some(one.gateway.id), None, None), vec![one.assignment.clone().into()]),
        (assignments(None, Some(two.entry.id), None), vec![two.assignment.clone().into()]),
        (assignments(None, None, Some(two.installation.id)), vec![two.assignment.clone().into()]),
        (assignments(None, None, Some(one.installation.id)), vec![]),
        (assignments(Some(one.gateway.id), Some(two.entry.id), None), vec![]),
        (
            Query::Revisions { workload: Some(WorkloadId::of_installation(one.installation.id)) },
            vec![first.into(), second.into()],
        ),
    ];
    for (query, records) in expected {
        let page =
            works(store.list(&query, &PageRequest { limit: 1000, cursor: None }).await, "a filtered list can be read");
        let found: Vec<_> = page.items.into_iter().map(|item| item.value).collect();
        assert_eq!(found, records, "a list holds what its query asks for: {query:?}");
    }
    // A filter and a cursor together.
    let query = Query::Installations { entry: Some(one.entry.id), owner: None };
    let page = works(store.list(&query, &PageRequest { limit: 1, cursor: None }).await, "a filtered page can be read");
    assert_eq!(page.items.len(), 1, "a page holds no more than was asked for");
    let page =
        works(store.list(&query, &PageRequest { limit: 1, cursor: page.next }).await, "a filtered page can be read");
    assert_eq!(
        page.items.into_iter().map(|item| item.value).collect::<Vec<_>>(),
        vec![personal.into()],
        "a cursor goes on within its query"
    );
}

/// Search looks at name and description, ignores the case of letters, and takes every sign as it is.
pub async fn searches_without_case_and_wildcards(store: &Arc<dyn CatalogStore>) {
    let mut described = fixtures::remote_entry("plain");
    described.spec.description = Some("Moves 100% of the Files".to_owned());
    let (issue, under) = (fixtures::remote_entry("Issue Tracker"), fixtures::remote_entry("snake_case"));
    write(store, [described.clone().into(), issue.clone().into(), under.clone().into()]).await;
    let expected: [(&str, Vec<Record>); 8] = [
        ("TRACKER", vec![issue.clone().into()]),
        ("issue t", vec![issue.into()]),
        ("the files", vec![described.clone().into()]),
        ("100%", vec![described.into()]),
        ("i%r", vec![]),
        ("e_c", vec![under.into()]),
        ("s_u", vec![]),
        ("'", vec![]),
    ];
    for (search, records) in expected {
        let found = listed(store, Query::Entries { search: Some(search.to_owned()), labels: None }).await;
        assert_eq!(found, records, "search for {search:?}");
    }
}

/// A filter by labels lets pass what shares at least one pair with it.
pub async fn lists_by_labels(store: &Arc<dyn CatalogStore>) {
    let mut entries = ["finance", "both", "none"].map(fixtures::remote_entry);
    entries[0].spec.labels.insert("department", "finance");
    for value in ["finance", "legal"] {
        entries[1].spec.labels.insert("department", value);
    }
    entries[2].spec.labels.insert("finance", "department");
    write(store, entries.clone().map(Record::from)).await;
    let labels = |pairs: &[(&str, &str)]| pairs.iter().copied().collect::<Labels>();
    let expected = [
        (labels(&[("department", "finance")]), vec![0, 1]),
        (labels(&[("department", "legal")]), vec![1]),
        (labels(&[("department", "legal"), ("finance", "department")]), vec![1, 2]),
        (labels(&[("department", "sales")]), vec![]),
    ];
    for (labels, indices) in expected {
        let records: Vec<Record> = indices.into_iter().map(|n: usize| entries[n].clone().into()).collect();
        let found = listed(store, Query::Entries { search: None, labels: Some(labels.clone()) }).await;
        assert_eq!(found, records, "entries that share a label with {labels:?}");
    }
}

/// A store that is there says so.
pub async fn answers_its_check(store: &Arc<dyn CatalogStore>) {
    works(store.check().await, "a store that is there says so");
}
