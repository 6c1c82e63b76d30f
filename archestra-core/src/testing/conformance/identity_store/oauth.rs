//! Grants, consents and linked identities: how they are found, what they refer to, and what they go with.

use super::{listed, write};
use crate::{
    ErrorKind,
    feed::{ChangeSet, Version},
    id::{ClientId, ConsumerId, GrantId, UserId},
    identity::{
        Client, Consent, Grant, IdentityKey, IdentityLookup, IdentityProvider, IdentityQuery, IdentityRecord,
        IdentityStore, LinkedIdentity, Presented, RefreshToken, Token, TokenOwner, User,
    },
    secret::{Derived, Expect, KeyRing, Purpose},
    testing::{
        conformance::{RACERS, fails, race, records::Feed, works},
        fixtures,
    },
};
use chrono::TimeDelta;
use std::{collections::BTreeSet, sync::Arc};

/// Two users of two clients at two consumers, who log in at a provider; one client also comes alone.
struct World {
    alice: User,
    bob: User,
    app: Client,
    machine: Client,
    okta: IdentityProvider,
    consumers: [ConsumerId; 2],
    refresh: RefreshToken,
    /// Alice's and bob's to the app, alice's to the machine, the machine's own.
    grants: [Grant; 4],
    /// One of each grant.
    tokens: [Token; 4],
    /// Alice's and bob's to the app, alice's to the machine.
    consents: [Consent; 3],
    /// Alice's and bob's.
    links: [LinkedIdentity; 2],
}

impl World {
    async fn stored(store: &Arc<dyn IdentityStore>) -> Self {
        let (alice, bob) = (fixtures::user("alice@example.com"), fixtures::user("bob@example.com"));
        let consumers = [ConsumerId::new(), ConsumerId::new()];
        let (app, machine) = (fixtures::client("app"), fixtures::machine_client("machine", consumers));
        let okta = fixtures::identity_provider("okta");
        let (refresh, first) = fixtures::grant(&alice, &app, consumers[0]);
        let grants = [
            first,
            fixtures::grant(&bob, &app, consumers[1]).1,
            Grant {
                expires_at: Some(fixtures::now() + TimeDelta::days(9)),
                refresh: None,
                ..fixtures::grant(&alice, &machine, consumers[0]).1
            },
            fixtures::machine_grant(&machine, consumers[1]),
        ];
        let tokens = grants.each_ref().map(|grant| fixtures::access_token(grant).1);
        let consents = [
            fixtures::consent(&alice, &app, consumers[0]),
            fixtures::consent(&bob, &app, consumers[0]),
            fixtures::consent(&alice, &machine, consumers[0]),
        ];
        let links = [fixtures::linked_identity(&alice, &okta, "a"), fixtures::linked_identity(&bob, &okta, "b")];
        let world = Self { alice, bob, app, machine, okta, consumers, refresh, grants, tokens, consents, links };
        write(store, world.records()).await;
        world
    }

    /// In one set, and what refers to something before it.
    fn records(&self) -> Vec<IdentityRecord> {
        let mut records: Vec<IdentityRecord> = Vec::new();
        records.extend(self.tokens.clone().map(Into::into));
        records.extend(self.links.clone().map(Into::into));
        records.extend(self.consents.clone().map(Into::into));
        records.extend(self.grants.clone().map(Into::into));
        records.extend([self.app.clone(), self.machine.clone()].map(Into::into));
        records.extend([self.alice.clone(), self.bob.clone()].map(Into::into));
        records.push(self.okta.clone().into());
        records
    }

    /// Removes this, and says what the feed says and what is gone: all of it the same.
    async fn without(&self, store: &Arc<dyn IdentityStore>, key: IdentityKey) -> BTreeSet<IdentityKey> {
        let since = works(store.commit(ChangeSet::new()).await, "an empty set returns the present revision");
        let removed = ChangeSet::new().delete(key, Expect::Any);
        let revision = works(store.commit(removed).await, "what others belong to can be removed");
        let named = Feed::new(store.changes(Some(since))).keys_until(revision).await;
        let mut gone = BTreeSet::new();
        for record in self.records() {
            match store.get(record.key()).await {
                Ok(read) => assert_eq!((read.value, read.version), (record, Version(1)), "the rest stays as it is"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NotFound, "what goes along is gone: {error:?}");
                    gone.insert(record.key());
                }
            }
        }
        assert_eq!(named, gone, "a feed names all that a removal took along, and nothing else");
        gone
    }
}

/// Keys that refresh tokens are made with.
pub(super) fn refresh_keys() -> Derived {
    KeyRing::generate().expect("the operating system gives random bytes").derive(Purpose::RefreshTokens)
}

fn keys<const N: usize>(keys: [IdentityKey; N]) -> BTreeSet<IdentityKey> {
    keys.into()
}

/// Each is found by what only it has.
pub async fn finds_grants_consents_and_linked_identities(store: &Arc<dyn IdentityStore>) {
    let World { alice, bob, app, okta, consumers, grants, consents, links, refresh, .. } = World::stored(store).await;
    let consent = |user: &User, consumer| IdentityLookup::ConsentOf { user: user.id, client: app.id, consumer };
    let at = |subject: &str| IdentityLookup::IdentityAt { provider: okta.id, subject: subject.to_owned() };
    let expected: [(IdentityLookup, Option<IdentityRecord>); 7] = [
        (IdentityLookup::GrantByFamily(refresh.family()), Some(grants[0].clone().into())),
        (IdentityLookup::GrantByFamily(refresh.hash()), None),
        (consent(&alice, consumers[0]), Some(consents[0].clone().into())),
        (consent(&bob, consumers[1]), None),
        (at("a"), Some(links[0].clone().into())),
        (at("A"), None),
        (at(""), None),
    ];
    for (lookup, record) in expected {
        let found = works(store.find(&lookup).await, "a unique value can be looked up").map(|found| found.value);
        assert_eq!(found, record, "{lookup:?} leads to the record that has this value, if there is one");
    }
}

/// Lists hold those of a user, of a client, of a consumer, of a provider, and those that have ended.
pub async fn filters_grants_consents_and_linked_identities(store: &Arc<dyn IdentityStore>) {
    let World { alice, app, machine, okta, consumers, grants, tokens, consents, links, .. } =
        World::stored(store).await;
    let all = |user: Option<UserId>, client: Option<ClientId>| IdentityQuery::Grants {
        user,
        client,
        consumer: None,
        expired: None,
    };
    let at = |consumer| IdentityQuery::Grants { user: None, client: None, consumer, expired: None };
    let over = |expired| IdentityQuery::Grants { user: None, client: None, consumer: None, expired };
    let of = |grant| IdentityQuery::AccessTokens { grant, expired: None };
    let ended = |expired| IdentityQuery::AccessTokens { grant: None, expired };
    let allowed = |user, client| IdentityQuery::Consents { user, client };
    let known = |user, provider| IdentityQuery::LinkedIdentities { user, provider };
    let grant = |n: usize| IdentityRecord::from(grants[n].clone());
    let token = |n: usize| IdentityRecord::from(tokens[n].clone());
    let consent = |n: usize| IdentityRecord::from(consents[n].clone());
    let link = |n: usize| IdentityRecord::from(links[n].clone());
    let (soon, later) = (fixtures::now(), fixtures::now() + TimeDelta::days(10));
    let expected: Vec<(IdentityQuery, Vec<IdentityRecord>)> = vec![
        (all(None, None), vec![grant(0), grant(1), grant(2), grant(3)]),
        (all(Some(alice.id), None), vec![grant(0), grant(2)]),
        (all(None, Some(machine.id)), vec![grant(2), grant(3)]),
        (all(Some(alice.id), Some(machine.id)), vec![grant(2)]),
        (all(Some(UserId::new()), None), vec![]),
        (at(Some(consumers[1])), vec![grant(1), grant(3)]),
        (over(Some(soon)), vec![]),
        (over(Some(later)), vec![grant(2)]),
        (over(grants[2].expires_at), vec![grant(2)]),
        (IdentityQuery::Tokens { owner: Some(TokenOwner::Client(machine.id)) }, vec![token(3)]),
        (IdentityQuery::Tokens { owner: Some(TokenOwner::User(alice.id)) }, vec![token(0), token(2)]),
        (of(None), vec![token(0), token(1), token(2), token(3)]),
        (of(Some(grants[1].id)), vec![token(1)]),
        (of(Some(GrantId::new())), vec![]),
        (ended(Some(soon)), vec![]),
        (ended(Some(later)), vec![token(0), token(1), token(2), token(3)]),
        (allowed(None, None), vec![consent(0), consent(1), consent(2)]),
        (allowed(Some(alice.id), None), vec![consent(0), consent(2)]),
        (allowed(None, Some(app.id)), vec![consent(0), consent(1)]),
        (known(None, None), vec![link(0), link(1)]),
        (known(Some(alice.id), None), vec![link(0)]),
        (known(None, Some(okta.id)), vec![link(0), link(1)]),
    ];
    let (_, fixed) = fixtures::token("static", TokenOwner::User(alice.id));
    let fixed = Token { expires_at: Some(soon), created_at: soon - TimeDelta::days(1), ..fixed };
    for (query, records) in &expected {
        assert_eq!(&listed(store, query.clone()).await, records, "a list holds what its query asks for: {query:?}");
    }
    write(store, [fixed.into()]).await;
    assert_eq!(listed(store, ended(Some(soon))).await, [], "a static token is no access token");
}

/// A family of refresh tokens has one grant, a user says yes once, and somebody elsewhere is one user here.
pub async fn grants_consents_and_linked_identities_are_unique(store: &Arc<dyn IdentityStore>) {
    let World { alice, bob, app, okta, consumers, grants, consents, .. } = World::stored(store).await;
    let again = Grant { refresh: grants[0].refresh.clone(), ..fixtures::grant(&bob, &app, consumers[1]).1 };
    let refused: [(&str, IdentityRecord); 3] = [
        ("a family of refresh tokens", again.into()),
        ("a user's consent to a client at a consumer", fixtures::consent(&alice, &app, consumers[0]).into()),
        ("a subject at a provider", fixtures::linked_identity(&bob, &okta, "a").into()),
    ];
    for (what, record) in refused {
        let key = record.key();
        fails(
            store.commit(ChangeSet::new().create(record)).await,
            ErrorKind::AlreadyExists,
            &format!("{what} can be there once only"),
        );
        fails(store.get(key).await, ErrorKind::NotFound, "what is refused is not stored");
    }
    let entra = fixtures::identity_provider("entra");
    let machine = |_| fixtures::machine_grant(&app, consumers[0]).into();
    let others = [
        fixtures::consent(&alice, &app, consumers[1]).into(),
        fixtures::linked_identity(&alice, &entra, "a").into(),
        fixtures::linked_identity(&alice, &okta, "c").into(),
        entra.into(),
    ];
    write(store, others.into_iter().chain((0..2).map(machine))).await;
    let anew = fixtures::consent(&alice, &app, consumers[0]);
    works(
        store.commit(ChangeSet::new().delete(consents[0].id, Expect::Any).create(anew)).await,
        "a consent may be replaced within a set",
    );
}

/// Clients, users, providers and grants must be there; consumers are in another store.
pub async fn grants_consents_and_linked_identities_refer_to_what_exists(store: &Arc<dyn IdentityStore>) {
    let World { alice, app, okta, consumers, grants, tokens, .. } = World::stored(store).await;
    let (stranger, nothing, nobody) =
        (fixtures::user("stranger@example.com"), fixtures::client("nothing"), fixtures::identity_provider("nobody"));
    let lost = fixtures::machine_grant(&app, consumers[0]);
    let refused: [(&str, IdentityRecord); 9] = [
        ("the client of a grant", fixtures::machine_grant(&nothing, consumers[0]).into()),
        ("the user of a grant", fixtures::grant(&stranger, &app, consumers[0]).1.into()),
        ("the client of a consent", fixtures::consent(&alice, &nothing, consumers[0]).into()),
        ("the user of a consent", fixtures::consent(&stranger, &app, consumers[1]).into()),
        ("the user of a linked identity", fixtures::linked_identity(&stranger, &okta, "x").into()),
        ("the provider of a linked identity", fixtures::linked_identity(&alice, &nobody, "x").into()),
        ("the grant of an access token", fixtures::access_token(&lost).1.into()),
        ("the client that owns a token", fixtures::token("x", TokenOwner::Client(nothing.id)).1.into()),
        ("the grant of a token that is written again", Token { grant: Some(lost.id), ..tokens[0].clone() }.into()),
    ];
    for (what, record) in refused {
        let changes = ChangeSet::new().put(record, Expect::Any);
        fails(store.commit(changes).await, ErrorKind::Conflict, &format!("{what} must exist"));
    }
    let kept = ChangeSet::new().delete(grants[0].id, Expect::Any).put(tokens[0].clone(), Expect::Any);
    fails(
        store.commit(kept).await,
        ErrorKind::Conflict,
        "a token that is written with a grant that goes is a conflict",
    );
    let kept = ChangeSet::new().delete(app.id, Expect::Any).put(tokens[0].clone(), Expect::Any);
    fails(
        store.commit(kept).await,
        ErrorKind::Conflict,
        "a token that is written with a grant that goes with its client is a conflict",
    );
}

/// Removing a user removes all that it allowed, and who it is elsewhere.
pub async fn a_user_takes_grants_consents_and_linked_identities_along(store: &Arc<dyn IdentityStore>) {
    let world = World::stored(store).await;
    let World { alice, grants, tokens, consents, links, .. } = &world;
    let expected = keys([
        alice.id.into(),
        grants[0].id.into(),
        grants[2].id.into(),
        tokens[0].id.into(),
        tokens[2].id.into(),
        consents[0].id.into(),
        consents[2].id.into(),
        links[0].id.into(),
    ]);
    assert_eq!(world.without(store, alice.id.into()).await, expected, "a user goes with all that names it");
}

/// Removing a client removes all that it was allowed, the access tokens of users included.
pub async fn a_client_takes_grants_consents_and_tokens_along(store: &Arc<dyn IdentityStore>) {
    let world = World::stored(store).await;
    let World { machine, grants, tokens, consents, .. } = &world;
    let expected = keys([
        machine.id.into(),
        grants[2].id.into(),
        grants[3].id.into(),
        tokens[2].id.into(),
        tokens[3].id.into(),
        consents[2].id.into(),
    ]);
    assert_eq!(world.without(store, machine.id.into()).await, expected, "a client goes with all that it was allowed");
    let found = works(store.find(&IdentityLookup::TokenByHash(tokens[2].hash)).await, "a hash can be looked up");
    assert!(found.is_none(), "an access token that a removed client got from a user leads nowhere");
}

/// Removing a grant removes its access tokens and ends its refresh tokens.
pub async fn a_grant_takes_its_access_tokens_along(store: &Arc<dyn IdentityStore>) {
    let world = World::stored(store).await;
    let World { grants, tokens, refresh, .. } = &world;
    let more = fixtures::access_token(&grants[0]).1;
    write(store, [more.clone().into()]).await;
    let since = works(store.commit(ChangeSet::new()).await, "an empty set returns the present revision");
    let revision =
        works(store.commit(ChangeSet::new().delete(grants[0].id, Expect::Any)).await, "a grant can be removed");
    let named = Feed::new(store.changes(Some(since))).keys_until(revision).await;
    let expected = keys([grants[0].id.into(), tokens[0].id.into(), more.id.into()]);
    assert_eq!(named, expected, "a grant goes with its access tokens");
    for token in [&tokens[0], &more] {
        fails(store.get(token.id.into()).await, ErrorKind::NotFound, "the access tokens of a removed grant are gone");
    }
    works(store.get(tokens[1].id.into()).await, "the access tokens of other grants stay");
    let found = works(store.find(&IdentityLookup::GrantByFamily(refresh.family())).await, "a family can be looked up");
    assert!(found.is_none(), "the refresh tokens of a removed grant lead nowhere");
    let handed = Token { grant: Some(grants[3].id), ..tokens[1].clone() };
    let changes = ChangeSet::new().delete(grants[1].id, Expect::Any).put(handed.clone(), Expect::Any);
    works(store.commit(changes).await, "a token can be handed to another grant by the set that removes its own");
    let read = works(store.get(handed.id.into()).await, "a token that was handed over stays").value;
    assert_eq!(read, handed.into(), "a token that was handed over is as written");
}

/// Removing a provider removes who is who there, and nobody here.
pub async fn a_provider_takes_its_linked_identities_along(store: &Arc<dyn IdentityStore>) {
    let world = World::stored(store).await;
    let World { okta, links, .. } = &world;
    let expected = keys([okta.id.into(), links[0].id.into(), links[1].id.into()]);
    assert_eq!(world.without(store, okta.id.into()).await, expected, "a provider goes with who is who there");
}

/// Of many who refresh at once with one token, one rotates the grant, and the others find out that it was rotated just now.
pub async fn one_of_many_rotations_wins(store: &Arc<dyn IdentityStore>) {
    let World { grants, refresh, .. } = World::stored(store).await;
    let keys = refresh_keys();
    let next = refresh.successor(&keys);
    let outcomes = race((0..RACERS).map(|_| {
        let (store, grant, next) = (Arc::clone(store), grants[0].clone(), next.clone());
        async move {
            let refresh = grant.refresh.as_ref().map(|family| family.rotated(&next, fixtures::now(), None));
            store.commit(ChangeSet::new().put(Grant { refresh, ..grant }, Expect::Version(Version(1)))).await
        }
    }))
    .await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "one of many rotations wins");
    for outcome in outcomes {
        if let Err(error) = outcome {
            assert_eq!(error.kind(), ErrorKind::Conflict, "the other rotations are conflicts: {error:?}");
        }
    }
    for token in [&refresh, &next] {
        let found =
            works(store.find(&IdentityLookup::GrantByFamily(token.family())).await, "a family can be looked up");
        assert_eq!(
            found.map(|found| (found.value.key(), found.version)),
            Some((grants[0].id.into(), Version(2))),
            "the token before and the new one lead to the grant"
        );
    }
    match works(store.get(grants[0].id.into()).await, "a rotated grant stays").value {
        IdentityRecord::Grant(grant) => {
            let grace = TimeDelta::minutes(10);
            assert_eq!(
                grant.presented(&refresh, fixtures::now(), grace),
                Presented::Again,
                "the token before was replaced just now"
            );
            assert_eq!(grant.presented(&next, fixtures::now(), grace), Presented::Current, "the new token is good");
            let answer = grant.refresh.and_then(|family| family.answer_again(&refresh, &keys));
            assert!(answer.is_some_and(|answer| answer == next), "who lost the race is given the same answer");
        }
        other => panic!("{:?} is not the grant that was written", other.key()),
    }
}
