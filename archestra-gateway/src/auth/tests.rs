//! Who is let in, and for how long.

use super::*;
use crate::route::{Freshness, Source};
use archestra_core::{
    id::ConsumerId,
    identity::{AuthMethod, Caller, IdentityChanges, IdentityStore, PlainToken, RoleName, TokenOwner},
    secret::Expect,
    testing::{Faulty, MemoryIdentity, fixtures},
};
use chrono::{TimeDelta, Utc};
use futures::StreamExt as _;
use http::{HeaderMap, header::AUTHORIZATION};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

fn headers(value: &str) -> HeaderMap {
    HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())])
}

fn door<S: IdentityStore>(store: &Arc<S>) -> Arc<Authenticator> {
    let freshness = Arc::new(Freshness::new(Duration::from_secs(5)));
    freshness.confirm(Source::Catalog, tokio::time::Instant::now());
    freshness.confirm(Source::Identity, tokio::time::Instant::now());
    Arc::new(Authenticator::new(Arc::<S>::clone(store), freshness, Bounds::default()))
}

/// Commits, and tells the door what the feed says of it.
async fn commit<S: IdentityStore>(door: &Authenticator, store: &Arc<S>, changes: IdentityChanges) {
    let since = store.commit(IdentityChanges::new()).await.unwrap();
    let revision = store.commit(changes).await.unwrap();
    let mut feed = store.changes(Some(since));
    loop {
        let event = feed.next().await.unwrap().unwrap();
        door.notice(&event);
        if event.revision() >= revision {
            break;
        }
    }
}

#[tokio::test]
async fn a_user_token_carries_role_and_teams_in_order_of_priority() {
    let store = Arc::new(MemoryIdentity::default());
    let user = archestra_core::identity::User { role: RoleName("editor".into()), ..fixtures::user("a@example.com") };
    let (mut low, mut high) = (fixtures::team("low", [&user]), fixtures::team("high", [&user]));
    (low.priority, high.priority) = (1, 5);
    let (plain, token) = fixtures::token("mine", TokenOwner::User(user.id));
    let expected = [high.id, low.id];
    let changes = IdentityChanges::new().create(user.clone()).create(low).create(high).create(token);
    store.commit(changes).await.unwrap();
    let who = door(&store).authenticate(&headers(&format!("Bearer {}", plain.expose()))).await.unwrap();
    assert_eq!(who.principal.user(), Some(user.id));
    assert_eq!(*who.principal.teams, expected);
    assert!(who.principal.permissions.include(&RoleName("member".into()).built_in().unwrap()));
}

#[tokio::test]
async fn an_access_token_says_where_and_for_what_it_is_good_and_goes_with_its_grant() {
    let store = Arc::new(MemoryIdentity::default());
    let (user, client) = (fixtures::user("a@example.com"), fixtures::client("app"));
    let (_, mut grant) = fixtures::grant(&user, &client, ConsumerId::new());
    grant.scopes.insert("mcp".to_owned());
    let (plain, token) = fixtures::access_token(&grant);
    let changes = IdentityChanges::new().create(user.clone()).create(client).create(grant.clone()).create(token);
    store.commit(changes).await.unwrap();
    let door = door(&store);
    let map = headers(&format!("Bearer {}", plain.expose()));
    let who = door.authenticate(&map).await.unwrap().principal;
    assert_eq!((who.user(), who.consumer, &who.method), (Some(user.id), Some(grant.consumer), &AuthMethod::OAuth));
    assert_eq!(who.scopes.as_deref(), Some(&grant.scopes));
    assert!(who.opens(grant.consumer) && !who.opens(ConsumerId::new()));

    commit(&door, &store, IdentityChanges::new().delete(grant.id, Expect::Any)).await;
    assert_eq!(door.authenticate(&map).await.unwrap_err(), AuthError::Invalid);
}

#[tokio::test]
async fn a_machine_client_is_let_in_for_what_it_may_use_and_while_it_may() {
    let store = Arc::new(MemoryIdentity::default());
    let consumers = [ConsumerId::new(), ConsumerId::new()];
    let machine = fixtures::machine_client("ci", consumers);
    let grant = fixtures::machine_grant(&machine, consumers[0]);
    let (access, issued) = fixtures::access_token(&grant);
    let owner = TokenOwner::Client(machine.id);
    let fixed = |consumer| {
        let (plain, token) = fixtures::token("ci", owner);
        (plain, archestra_core::identity::Token { consumer, ..token })
    };
    let (here, elsewhere, nowhere) = (fixed(Some(consumers[1])), fixed(Some(ConsumerId::new())), fixed(None));
    let mut changes = IdentityChanges::new().create(machine.clone()).create(grant);
    for token in [&issued, &here.1, &elsewhere.1, &nowhere.1] {
        changes = changes.create(token.clone());
    }
    store.commit(changes).await.unwrap();
    let door = door(&store);
    let enter = async |plain: &PlainToken| {
        let found = door.authenticate(&headers(&format!("Bearer {}", plain.expose()))).await;
        found.map(|found| found.principal)
    };
    for (plain, consumer) in [(&access, consumers[0]), (&here.0, consumers[1])] {
        let who = enter(plain).await.unwrap();
        assert_eq!((&who.caller, who.consumer, &*who.name), (&Caller::Client(machine.id), Some(consumer), "ci"));
        assert!(who.teams.is_empty() && who.permissions.iter().next().is_none() && who.user().is_none());
    }
    for plain in [&elsewhere.0, &nowhere.0] {
        assert_eq!(enter(plain).await.unwrap_err(), AuthError::Invalid);
    }

    let fewer = archestra_core::identity::Client { consumers: [consumers[0]].into(), ..machine.clone() };
    commit(&door, &store, IdentityChanges::new().put(fewer, Expect::Any)).await;
    assert_eq!(enter(&here.0).await.unwrap_err(), AuthError::Invalid);
    enter(&access).await.unwrap();
    commit(&door, &store, IdentityChanges::new().delete(machine.id, Expect::Any)).await;
    assert_eq!(enter(&access).await.unwrap_err(), AuthError::Invalid);
}

#[tokio::test]
async fn tokens_and_clients_that_come_and_go_do_not_send_everybody_to_the_store() {
    let store = Arc::new(Faulty::new(Arc::new(MemoryIdentity::default())));
    let user = fixtures::user("a@example.com");
    let (plain, token) = fixtures::token("mine", TokenOwner::User(user.id));
    store.commit(IdentityChanges::new().create(user.clone()).create(token.clone())).await.unwrap();
    let door = door(&store);
    let map = headers(&format!("Bearer {}", plain.expose()));
    door.authenticate(&map).await.unwrap();
    // Ids that fall into a group with the caller's have the caller looked up, which does no harm: others are taken here.
    let apart = |id: &uuid::Uuid| {
        let end = |id: &uuid::Uuid| id.as_u128() % 4096;
        [token.id.as_uuid(), user.id.as_uuid()].iter().all(|own| end(own) != end(id))
    };
    let client = std::iter::repeat_with(|| fixtures::client("app")).find(|client| apart(client.id.as_uuid())).unwrap();
    let (_, grant) = fixtures::grant(&user, &client, ConsumerId::new());
    let access = std::iter::repeat_with(|| fixtures::access_token(&grant).1).find(|token| apart(token.id.as_uuid()));
    let access = access.unwrap();
    let consent = fixtures::consent(&user, &client, grant.consumer);
    let changes = IdentityChanges::new().create(client.clone()).create(grant).create(access).create(consent);
    commit(&door, &store, changes).await;
    commit(&door, &store, IdentityChanges::new().delete(client.id, Expect::Any)).await;
    let before = store.faults().calls();
    door.authenticate(&map).await.unwrap();
    assert_eq!(store.faults().calls(), before, "the caller is still known");

    let renamed = archestra_core::identity::User { role: RoleName("admin".into()), ..user };
    commit(&door, &store, IdentityChanges::new().put(renamed, Expect::Any)).await;
    let who = door.authenticate(&map).await.unwrap().principal;
    assert!(who.permissions.include(&RoleName("admin".into()).built_in().unwrap()), "a change of the user is seen");
}

#[tokio::test]
async fn what_is_no_bearer_token_is_told_apart_from_one_that_is_unknown() {
    let door = door(&Arc::<MemoryIdentity>::default());
    let fails = async |map: HeaderMap| door.authenticate(&map).await.unwrap_err();
    assert_eq!(fails(HeaderMap::new()).await, AuthError::Missing);
    for other in ["Basic abc", "Bearer", "Bearer ", "Bearer a b", "abc", ""] {
        assert_eq!(fails(headers(other)).await, AuthError::Missing, "{other}");
    }
    let mut twice = headers("Bearer a");
    twice.append(AUTHORIZATION, "Bearer b".parse().unwrap());
    assert_eq!(fails(twice).await, AuthError::Malformed);
    assert_eq!(fails(headers("bearer arch_x")).await, AuthError::Invalid);
}

#[tokio::test]
async fn a_revoked_token_is_refused_as_soon_as_the_feed_says_so() {
    let store = Arc::new(MemoryIdentity::default());
    let (plain, token) = fixtures::token("org", TokenOwner::Organization);
    store.commit(IdentityChanges::new().create(token.clone())).await.unwrap();
    let door = door(&store);
    let stop = CancellationToken::new();
    let follower = tokio::spawn(IdentityFollower { authenticator: Arc::clone(&door) }.run(stop.clone()));
    let map = headers(&format!("Bearer {}", plain.expose()));
    door.authenticate(&map).await.unwrap();
    store.commit(IdentityChanges::new().delete(token.id, Expect::Any)).await.unwrap();
    let refused = tokio::time::timeout(Duration::from_secs(5), async {
        while door.authenticate(&map).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    refused.await.unwrap();
    stop.cancel();
    follower.await.unwrap();
}

#[tokio::test]
async fn an_expired_token_is_refused_even_when_it_is_cached() {
    let store = Arc::new(MemoryIdentity::default());
    let (plain, mut token) = fixtures::token("org", TokenOwner::Organization);
    token.expires_at = Some(Utc::now() + TimeDelta::hours(1));
    store.commit(IdentityChanges::new().create(token)).await.unwrap();
    let door = door(&store);
    let map = headers(&format!("Bearer {}", plain.expose()));
    let credential = door.authenticate(&map).await.unwrap().credential;
    door.age(credential, TimeDelta::hours(2));
    assert_eq!(door.authenticate(&map).await.unwrap_err(), AuthError::Invalid);
}

#[tokio::test(start_paused = true)]
async fn after_a_change_of_identities_each_token_is_looked_up_once_by_all_its_calls() {
    let store = Arc::new(Faulty::new(Arc::new(MemoryIdentity::default())));
    let (plain, token) = fixtures::token("org", TokenOwner::Organization);
    store.commit(IdentityChanges::new().create(token)).await.unwrap();
    let door = door(&store);
    let map = headers(&format!("Bearer {}", plain.expose()));
    store.faults().delay(Duration::from_millis(100));
    for _ in 0..2 {
        let before = store.faults().calls();
        let calls = (0..50).map(|_| door.authenticate(&map));
        assert!(futures::future::join_all(calls).await.iter().all(Result::is_ok));
        assert_eq!(store.faults().calls() - before, 1);
        door.forget_everybody();
    }
    store.faults().fail_next(1);
    let refused = futures::future::join_all((0..3).map(|_| door.authenticate(&map))).await;
    assert!(refused.iter().all(|outcome| outcome.as_ref().is_err_and(|error| *error == AuthError::Unavailable)));
    door.authenticate(&map).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_revoked_while_it_is_looked_up_is_not_let_in() {
    let store = Arc::new(Faulty::new(Arc::new(MemoryIdentity::default())));
    let user = fixtures::user("a@example.com");
    let (plain, token) = fixtures::token("mine", TokenOwner::User(user.id));
    store.commit(IdentityChanges::new().create(user).create(token.clone())).await.unwrap();
    let door = door(&store);
    let map = headers(&format!("Bearer {}", plain.expose()));
    let before = store.faults().calls();
    // The token is read, and then whom it stands for, which takes longer than the token lasts.
    store.faults().delay(Duration::from_millis(100));
    let (outcome, ()) = tokio::join!(door.authenticate(&map), async {
        tokio::time::sleep(Duration::from_millis(110)).await;
        assert_eq!(store.faults().calls() - before, 2, "the token has been read");
        store.faults().delay(Duration::ZERO);
        let revoked = IdentityChanges::new().delete(token.id, Expect::Any);
        store.commit(revoked).await.unwrap();
        door.forget_everybody();
    });
    assert_eq!(outcome.unwrap_err(), AuthError::Invalid);
}

#[tokio::test(start_paused = true)]
async fn while_identities_change_faster_than_they_are_read_nobody_is_refused_for_good() {
    let store = Arc::new(Faulty::new(Arc::new(MemoryIdentity::default())));
    let (plain, token) = fixtures::token("org", TokenOwner::Organization);
    store.commit(IdentityChanges::new().create(token)).await.unwrap();
    let door = door(&store);
    let map = headers(&format!("Bearer {}", plain.expose()));
    store.faults().delay(Duration::from_millis(100));
    let changing = async {
        loop {
            tokio::time::sleep(Duration::from_millis(30)).await;
            door.forget_everybody();
        }
    };
    let outcome = tokio::select! {
        outcome = door.authenticate(&map) => outcome,
        () = changing => unreachable!(),
    };
    assert_eq!(outcome.unwrap_err(), AuthError::Unavailable);
    door.authenticate(&map).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn strangers_cannot_ask_for_more_than_the_store_can_bear_and_keep_nobody_out_who_was_in() {
    let store = Arc::new(Faulty::new(Arc::new(MemoryIdentity::default())));
    let (plain, token) = fixtures::token("org", TokenOwner::Organization);
    store.commit(IdentityChanges::new().create(token)).await.unwrap();
    let door = door(&store);
    let known = headers(&format!("Bearer {}", plain.expose()));
    door.authenticate(&known).await.unwrap();
    door.forget_everybody();
    store.faults().delay(Duration::from_millis(100));
    let before = store.faults().calls();
    let strangers = (0..400).map(|n| {
        let map = headers(&format!("Bearer guess-{n}"));
        let door = &door;
        async move { door.authenticate(&map).await.unwrap_err() }
    });
    let (refused, let_in) = tokio::join!(futures::future::join_all(strangers), door.authenticate(&known));
    let_in.unwrap();
    assert_eq!(refused.iter().filter(|error| **error == AuthError::Invalid).count(), 256);
    assert_eq!(refused.iter().filter(|error| **error == AuthError::Unavailable).count(), 400 - 256);
    assert_eq!(store.faults().calls() - before, 257);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_let_in_while_revocations_could_go_unseen() {
    let store = Arc::new(MemoryIdentity::default());
    let (plain, token) = fixtures::token("org", TokenOwner::Organization);
    store.commit(IdentityChanges::new().create(token)).await.unwrap();
    let door = door(&store);
    let map = headers(&format!("Bearer {}", plain.expose()));
    door.authenticate(&map).await.unwrap();
    tokio::time::advance(Duration::from_secs(6)).await;
    assert_eq!(door.authenticate(&map).await.unwrap_err(), AuthError::Unavailable);
}

#[test]
fn the_challenge_names_the_metadata_and_the_error() {
    let url = Some("https://gw/.well-known/oauth-protected-resource/v1/mcp/x");
    let missing = challenge(&AuthError::Missing, url);
    assert_eq!(missing, "Bearer resource_metadata=\"https://gw/.well-known/oauth-protected-resource/v1/mcp/x\"");
    assert!(challenge(&AuthError::Invalid, url).to_str().unwrap().contains("error=\"invalid_token\""));
    assert_eq!(challenge(&AuthError::Missing, None), "Bearer");
}
