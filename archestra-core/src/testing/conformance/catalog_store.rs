//! The suite of [`CatalogStore`].

mod queries;
mod rules;

pub use queries::*;
pub use rules::*;

use super::{pair_suite, records, suite};
use crate::{
    catalog::{CatalogStore, Entry, Query, Record},
    consumer::{Assignment, Consumer},
    feed::{ChangeSet, PageRequest},
    installation::{Installation, Owner},
    testing::fixtures,
    tool::Tool,
};
use std::sync::Arc;

suite! {
    $
    /// One `#[test]` for each case of the [catalog store suite](crate::testing::conformance::catalog_store): a module name
    /// and an expression that yields an `Arc` of an empty store.
    catalog_store_conformance, catalog_store, catalog::CatalogStore, [
        keeps_every_kind_of_record_as_written,
        finds_nothing_where_nothing_is,
        reads_many_records_at_once,
        finds_by_unique_values,
        filters_what_it_lists,
        searches_without_case_and_wildcards,
        lists_by_labels,
        answers_its_check,
        refuses_secret_values,
        tells_names_apart_byte_for_byte,
        unique_values_are_taken_once,
        unique_values_are_free_elsewhere,
        references_must_exist,
        references_hold_what_they_name,
        a_set_may_refer_to_itself_in_any_order,
        an_installation_goes_without_unpinned_assignments,
        a_reference_and_a_removal_never_both_succeed,
        versions_count_writes_from_one,
        revisions_grow_with_each_commit,
        stale_expectations_conflict,
        what_is_required_stays_as_it_is,
        removed_records_are_gone,
        a_failing_operation_undoes_the_whole_set,
        a_set_names_each_record_once,
        names_are_unique_and_can_be_passed_on,
        one_of_many_writers_with_one_expectation_wins,
        one_of_many_creators_of_a_record_wins,
        one_of_many_creators_of_a_name_wins,
        unrelated_commits_all_succeed_at_once,
        lists_are_ordered_by_id,
        cursors_lead_through_a_list,
        cursors_hold_while_records_come_and_go,
        foreign_cursors_are_refused,
        a_feed_without_a_position_begins_with_resync,
        a_feed_names_all_changes_since_its_position,
        a_feed_from_an_unknown_position_begins_with_resync,
        a_quiet_feed_goes_on_confirming,
        a_feed_goes_on_confirming_while_somebody_writes,
        a_feed_does_not_name_what_failed,
        feeds_are_independent,
        a_feed_loses_nothing_while_many_write,
    ]
}

pair_suite! {
    $
    /// One `#[test]` for each case of the [catalog store suite](crate::testing::conformance::catalog_store) that needs two
    /// handles: a module name and an expression that yields a pair of `Arc`s on the same, empty store.
    catalog_store_pair_conformance, catalog_store, catalog::CatalogStore, [
        another_handle_sees_commits,
        writers_on_both_handles_race,
    ]
}

super::shared_cases! { CatalogStore }

/// An entry with an installation, a tool, a gateway, and an assignment of the tool to the gateway.
struct Family {
    entry: Entry,
    installation: Installation,
    tool: Tool,
    gateway: Consumer,
    assignment: Assignment,
}

impl Family {
    fn new(name: &str) -> Self {
        let entry = fixtures::remote_entry(name);
        let (installation, tool, gateway) = (
            fixtures::installation(&entry, Owner::Organization),
            fixtures::tool(&entry, "echo"),
            fixtures::gateway(name),
        );
        let assignment = fixtures::assignment(&gateway, &entry, &tool);
        Self { entry, installation, tool, gateway, assignment }
    }

    fn records(&self) -> [Record; 5] {
        [
            self.entry.clone().into(),
            self.installation.clone().into(),
            self.tool.clone().into(),
            self.gateway.clone().into(),
            self.assignment.clone().into(),
        ]
    }

    async fn stored(store: &Arc<dyn CatalogStore>, name: &str) -> Self {
        let family = Self::new(name);
        write(store, family.records()).await;
        family
    }
}

async fn write(store: &Arc<dyn CatalogStore>, records: impl IntoIterator<Item = Record>) {
    let mut changes = ChangeSet::new();
    for record in records {
        changes = changes.create(record);
    }
    super::works(store.commit(changes).await, "new records can be written together");
}

async fn listed(store: &Arc<dyn CatalogStore>, query: Query) -> Vec<Record> {
    let page = super::works(store.list(&query, &PageRequest::default()).await, "a list can be read");
    page.items.into_iter().map(|item| item.value).collect()
}
