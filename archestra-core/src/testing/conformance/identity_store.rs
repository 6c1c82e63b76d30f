//! The suite of [`IdentityStore`].

mod cascade;
mod oauth;

pub use cascade::*;
pub use oauth::*;

use super::{fails, pair_suite, records, suite, works};
use crate::{
    ErrorKind,
    catalog::TokenEndpointAuth,
    feed::{ChangeSet, PageRequest, Version},
    id::{ClientId, ConsumerId, IdentityProviderId, TeamId, UserId},
    identity::{
        Consent, GrantType, IdentityKind, IdentityLookup, IdentityProvider, IdentityQuery, IdentityRecord,
        IdentityStore, LinkedIdentity, Team, TokenHash, TokenOwner, User,
    },
    secret::Expect,
    testing::fixtures,
};
use std::{collections::BTreeSet, sync::Arc};

suite! {
    $
    /// One `#[test]` for each case of the [identity store suite](crate::testing::conformance::identity_store): a module name
    /// and an expression that yields an `Arc` of an empty store.
    identity_store_conformance, identity_store, identity::IdentityStore, [
        keeps_every_kind_of_record_as_written,
        finds_nothing_where_nothing_is,
        finds_by_unique_values,
        filters_what_it_lists,
        answers_its_check,
        unique_values_are_taken_once,
        references_must_exist,
        a_user_takes_its_tokens_and_memberships_along,
        a_team_takes_its_tokens_along,
        a_feed_names_what_a_removal_takes_along,
        what_a_set_writes_itself_is_left_to_it,
        no_membership_survives_its_user,
        finds_grants_consents_and_linked_identities,
        filters_grants_consents_and_linked_identities,
        grants_consents_and_linked_identities_are_unique,
        grants_consents_and_linked_identities_refer_to_what_exists,
        a_user_takes_grants_consents_and_linked_identities_along,
        a_client_takes_grants_consents_and_tokens_along,
        a_grant_takes_its_access_tokens_along,
        a_provider_takes_its_linked_identities_along,
        one_of_many_rotations_wins,
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
    /// One `#[test]` for each case of the [identity store suite](crate::testing::conformance::identity_store) that needs two
    /// handles: a module name and an expression that yields a pair of `Arc`s on the same, empty store.
    identity_store_pair_conformance, identity_store, identity::IdentityStore, [
        another_handle_sees_commits,
        writers_on_both_handles_race,
    ]
}

super::shared_cases! { IdentityStore }

async fn write(store: &Arc<dyn IdentityStore>, records: impl IntoIterator<Item = IdentityRecord>) {
    let mut changes = ChangeSet::new();
    for record in records {
        changes = changes.create(record);
    }
    works(store.commit(changes).await, "new records can be written together");
}

async fn listed(store: &Arc<dyn IdentityStore>, query: IdentityQuery) -> Vec<IdentityRecord> {
    let page = works(store.list(&query, &PageRequest::default()).await, "a list can be read");
    page.items.into_iter().map(|item| item.value).collect()
}

/// A record comes back equal to what was written, whatever its kind, also when members and owners come later in the set.
pub async fn keeps_every_kind_of_record_as_written(store: &Arc<dyn IdentityStore>) {
    let user = User { name: Some("Ålice \"A\" O'Neil".to_owned()), ..fixtures::user("alice@example.com") };
    let team = Team { priority: -7, ..fixtures::team("finance", [&user]) };
    let (_, mut token) = fixtures::token("laptop", TokenOwner::Team(team.id));
    token.expires_at = Some(fixtures::now());
    token.consumer = Some(ConsumerId::new());
    let mut client = fixtures::client("https://client.example.com/metadata.json");
    client.secret_hash = Some(TokenHash::of("secret"));
    client.token_endpoint_auth = TokenEndpointAuth::ClientSecretPost;
    client.scopes = ["mcp".to_owned()].into();
    client.grant_types.insert(GrantType::JwtBearer);
    let provider = IdentityProvider {
        client_secret: Some(fixtures::secret_ref("provider/x")),
        token_endpoint_auth: TokenEndpointAuth::ClientSecretBasic,
        token_endpoint: Some("https://okta.example.com/token".to_owned()),
        audience: Some("api://archestra".to_owned()),
        name_claim: Some("display_name".to_owned()),
        ..fixtures::identity_provider("okta")
    };
    let scopes: BTreeSet<_> = ["mcp".to_owned(), "tools:call".to_owned()].into();
    let (first, mut grant) = fixtures::grant(&user, &client, ConsumerId::new());
    grant.scopes.clone_from(&scopes);
    grant.expires_at = Some(fixtures::now());
    let next = first.successor(&refresh_keys());
    grant.refresh = grant.refresh.map(|family| family.rotated(&next, fixtures::now(), None));
    let access = fixtures::access_token(&grant).1;
    let consent = Consent { scopes, ..fixtures::consent(&user, &client, ConsumerId::new()) };
    let linked = LinkedIdentity {
        session: Some(fixtures::secret_ref("links/x")),
        ..fixtures::linked_identity(&user, &provider, "00u1|\"a\" b")
    };
    let records: [IdentityRecord; 10] = [
        token.into(),
        access.into(),
        grant.into(),
        consent.into(),
        linked.into(),
        team.into(),
        user.into(),
        fixtures::role("auditor").into(),
        client.into(),
        provider.into(),
    ];
    write(store, records.clone()).await;
    for record in &records {
        let read = works(store.get(record.key()).await, "what was written can be read");
        assert_eq!((&read.value, read.version), (record, Version(1)), "a record comes back as it was written");
    }
    for kind in IdentityKind::ALL {
        let expected: Vec<_> = records.iter().filter(|record| record.key().kind() == *kind).cloned().collect();
        assert_eq!(
            listed(store, IdentityQuery::all(*kind)).await,
            expected,
            "a list of one kind holds the records of that kind"
        );
    }
}

/// Absent records are `NotFound`, absent unique values lead to `None`, empty lists have one empty page.
pub async fn finds_nothing_where_nothing_is(store: &Arc<dyn IdentityStore>) {
    for kind in IdentityKind::ALL {
        fails(store.get(kind.key(uuid::Uuid::now_v7())).await, ErrorKind::NotFound, "what is not there is not found");
        let page =
            works(store.list(&IdentityQuery::all(*kind), &PageRequest::default()).await, "an empty list can be read");
        assert!(page.items.is_empty() && page.next.is_none(), "an empty list has one page without items");
    }
    let none = || "none".to_owned();
    let lookups = [
        IdentityLookup::UserByEmail(none()),
        IdentityLookup::TeamNamed(none()),
        IdentityLookup::RoleNamed(none()),
        IdentityLookup::TokenByHash(TokenHash::of("none")),
        IdentityLookup::ClientById(none()),
        IdentityLookup::ProviderNamed(none()),
        IdentityLookup::ProviderByIssuer(none()),
        IdentityLookup::GrantByFamily(TokenHash::of("none")),
        IdentityLookup::ConsentOf { user: UserId::new(), client: ClientId::new(), consumer: ConsumerId::new() },
        IdentityLookup::IdentityAt { provider: IdentityProviderId::new(), subject: none() },
    ];
    for lookup in lookups {
        assert!(works(store.find(&lookup).await, "finding nothing is no error").is_none(), "{lookup:?} leads nowhere");
    }
}

/// Every lookup leads to the record with that value.
pub async fn finds_by_unique_values(store: &Arc<dyn IdentityStore>) {
    let user = fixtures::user("alice@example.com");
    let team = fixtures::team("Finance", []);
    let role = fixtures::role("auditor");
    let (plain, token) = fixtures::token("laptop", TokenOwner::User(user.id));
    let client = fixtures::client("client-1");
    let provider = fixtures::identity_provider("okta");
    let expected: [(IdentityLookup, IdentityRecord); 7] = [
        (IdentityLookup::UserByEmail("alice@example.com".to_owned()), user.into()),
        (IdentityLookup::TeamNamed("Finance".to_owned()), team.into()),
        (IdentityLookup::RoleNamed("auditor".to_owned()), role.into()),
        (IdentityLookup::TokenByHash(TokenHash::of(plain.expose())), token.into()),
        (IdentityLookup::ClientById("client-1".to_owned()), client.into()),
        (IdentityLookup::ProviderNamed("okta".to_owned()), provider.clone().into()),
        (IdentityLookup::ProviderByIssuer(provider.issuer.clone()), provider.into()),
    ];
    let others: [IdentityRecord; 4] = [
        fixtures::user("bob@example.com").into(),
        fixtures::team("Legal", []).into(),
        fixtures::token("ci", TokenOwner::Organization).1.into(),
        fixtures::identity_provider("entra").into(),
    ];
    write(store, expected.iter().take(6).map(|(_, record)| record.clone()).chain(others)).await;
    for (lookup, record) in expected {
        let found = works(store.find(&lookup).await, "a unique value can be looked up").map(|found| found.value);
        assert_eq!(found, Some(record), "{lookup:?} leads to the record that has this value");
    }
    let other_case =
        works(store.find(&IdentityLookup::TeamNamed("finance".to_owned())).await, "a unique value can be looked up");
    assert!(other_case.is_none(), "names are compared byte for byte");
}

/// Each field of a query filters.
pub async fn filters_what_it_lists(store: &Arc<dyn IdentityStore>) {
    let (alice, mut bob) = (fixtures::user("alice@example.com"), fixtures::user("b_b@example.com"));
    bob.name = Some("Bob Builder".to_owned());
    let (finance, legal) = (fixtures::team("finance", [&alice, &bob]), fixtures::team("legal", [&bob]));
    let owners = [TokenOwner::User(alice.id), TokenOwner::Team(finance.id), TokenOwner::Organization];
    let tokens = owners.map(|owner| fixtures::token("token", owner).1);
    let records: [IdentityRecord; 4] =
        [alice.clone().into(), bob.clone().into(), finance.clone().into(), legal.clone().into()];
    write(store, records.into_iter().chain(tokens.clone().map(Into::into))).await;

    let users = |search: &str| IdentityQuery::Users { search: Some(search.to_owned()) };
    let teams = |member| IdentityQuery::Teams { member: Some(member) };
    let mut expected: Vec<(IdentityQuery, Vec<IdentityRecord>)> = vec![
        (users("ALICE"), vec![alice.clone().into()]),
        (users("builder"), vec![bob.clone().into()]),
        (users("b_b"), vec![bob.clone().into()]),
        (users("a_i"), vec![]),
        (users("%"), vec![]),
        (users("@example"), vec![alice.clone().into(), bob.clone().into()]),
        (teams(alice.id), vec![finance.clone().into()]),
        (teams(bob.id), vec![finance.into(), legal.into()]),
        (teams(UserId::new()), vec![]),
    ];
    for (owner, token) in owners.into_iter().zip(tokens) {
        expected.push((IdentityQuery::Tokens { owner: Some(owner) }, vec![token.into()]));
    }
    for (query, records) in expected {
        assert_eq!(listed(store, query.clone()).await, records, "a list holds what its query asks for: {query:?}");
    }
}

/// A store that is there says so.
pub async fn answers_its_check(store: &Arc<dyn IdentityStore>) {
    works(store.check().await, "a store that is there says so");
}

/// Each unique value can be taken once only.
pub async fn unique_values_are_taken_once(store: &Arc<dyn IdentityStore>) {
    let (_, token) = fixtures::token("laptop", TokenOwner::Organization);
    let provider = fixtures::identity_provider("okta");
    let taken: [IdentityRecord; 6] = [
        fixtures::user("alice@example.com").into(),
        fixtures::team("finance", []).into(),
        fixtures::role("auditor").into(),
        token.clone().into(),
        fixtures::client("client-1").into(),
        provider.clone().into(),
    ];
    write(store, taken).await;
    let (_, mut same_hash) = fixtures::token("other", TokenOwner::Organization);
    same_hash.hash = token.hash;
    let same_issuer = IdentityProvider { issuer: provider.issuer, ..fixtures::identity_provider("other") };
    let same_name =
        IdentityProvider { issuer: "https://else.example.com".to_owned(), ..fixtures::identity_provider("okta") };
    let refused: [(&str, IdentityRecord); 7] = [
        ("a user's address", fixtures::user("alice@example.com").into()),
        ("a team's name", fixtures::team("finance", []).into()),
        ("a role's name", fixtures::role("auditor").into()),
        ("a token's hash", same_hash.into()),
        ("a client's client_id", fixtures::client("client-1").into()),
        ("a provider's name", same_name.into()),
        ("a provider's issuer", same_issuer.into()),
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

/// Members and owners must be there when their set is done.
pub async fn references_must_exist(store: &Arc<dyn IdentityStore>) {
    let stranger = fixtures::user("stranger@example.com");
    let refused: [(&str, IdentityRecord); 3] = [
        ("a team's member", fixtures::team("finance", [&stranger]).into()),
        ("the user that owns a token", fixtures::token("laptop", TokenOwner::User(stranger.id)).1.into()),
        ("the team that owns a token", fixtures::token("ci", TokenOwner::Team(TeamId::new())).1.into()),
    ];
    for (what, record) in refused {
        let key = record.key();
        fails(store.commit(ChangeSet::new().create(record)).await, ErrorKind::Conflict, &format!("{what} must exist"));
        fails(store.get(key).await, ErrorKind::NotFound, "what is refused is not stored");
    }
    let team = fixtures::team("finance", []);
    write(store, [team.clone().into()]).await;
    let joined = Team { members: [stranger.id].into(), ..team };
    fails(
        store.commit(ChangeSet::new().put(joined.clone(), Expect::Any)).await,
        ErrorKind::Conflict,
        "a new member must exist",
    );
    works(
        store.commit(ChangeSet::new().put(joined, Expect::Any).create(stranger)).await,
        "a member may be made by the same set",
    );
}
