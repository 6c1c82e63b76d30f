//! What a removal takes along, and what it leaves to its set.

use super::write;
use crate::{
    ErrorKind,
    feed::{ChangeSet, Expect as ExpectVersion, Version},
    identity::{IdentityKey, IdentityStore, Team, Token, TokenOwner, User},
    secret::Expect,
    testing::{
        conformance::{RACERS, fails, race, records::Feed, works},
        fixtures,
    },
};
use std::{collections::BTreeSet, sync::Arc};

/// Two users in two teams, with a token each.
struct People {
    alice: User,
    bob: User,
    finance: Team,
    legal: Team,
    alices: Token,
    bobs: Token,
    finances: Token,
}

impl People {
    async fn stored(store: &Arc<dyn IdentityStore>) -> Self {
        let (alice, bob) = (fixtures::user("alice@example.com"), fixtures::user("bob@example.com"));
        let (finance, legal) = (fixtures::team("finance", [&alice, &bob]), fixtures::team("legal", [&bob]));
        let token = |owner| fixtures::token("token", owner).1;
        let (alices, bobs, finances) =
            (token(TokenOwner::User(alice.id)), token(TokenOwner::User(bob.id)), token(TokenOwner::Team(finance.id)));
        let people = Self { alice, bob, finance, legal, alices, bobs, finances };
        let Self { alice, bob, finance, legal, alices, bobs, finances } = &people;
        write(store, [alice.clone().into(), bob.clone().into(), finance.clone().into(), legal.clone().into()]).await;
        write(store, [alices.clone().into(), bobs.clone().into(), finances.clone().into()]).await;
        people
    }
}

async fn team(store: &Arc<dyn IdentityStore>, team: &Team) -> (Version, Team) {
    let read = works(store.get(team.id.into()).await, "a team stays");
    match read.value {
        crate::identity::IdentityRecord::Team(team) => (read.version, team),
        other => panic!("{:?} is not the team that was written", other.key()),
    }
}

/// Removing a user takes it out of every team and removes its tokens, in the same commit.
pub async fn a_user_takes_its_tokens_and_memberships_along(store: &Arc<dyn IdentityStore>) {
    let People { alice, bob, finance, legal, alices, bobs, finances } = People::stored(store).await;
    works(
        store.commit(ChangeSet::new().delete(alice.id, Expect::Any)).await,
        "a user with teams and tokens can be removed",
    );
    fails(store.get(alices.id.into()).await, ErrorKind::NotFound, "the tokens of a removed user are gone");
    let left = Team { members: [bob.id].into(), ..finance.clone() };
    assert_eq!(
        team(store, &finance).await,
        (Version(2), left),
        "a removed user is taken out of its teams, each with a new version"
    );
    assert_eq!(team(store, &legal).await, (Version(1), legal), "a team that the user was not in stays as it is");
    for token in [bobs, finances] {
        works(store.get(token.id.into()).await, "the tokens of others stay");
    }
    let by_hash =
        works(store.find(&crate::identity::IdentityLookup::TokenByHash(alices.hash)).await, "a hash can be looked up");
    assert!(by_hash.is_none(), "the hash of a removed token leads nowhere");
}

/// Removing a team removes its tokens and leaves its members.
pub async fn a_team_takes_its_tokens_along(store: &Arc<dyn IdentityStore>) {
    let People { alice, bob, finance, alices, finances, .. } = People::stored(store).await;
    works(
        store.commit(ChangeSet::new().delete(finance.id, Expect::Any)).await,
        "a team with members and tokens can be removed",
    );
    fails(store.get(finances.id.into()).await, ErrorKind::NotFound, "the tokens of a removed team are gone");
    for key in [IdentityKey::from(alice.id), bob.id.into(), alices.id.into()] {
        works(store.get(key).await, "the members of a removed team and their tokens stay");
    }
}

/// The feed names everything that a removal touched.
pub async fn a_feed_names_what_a_removal_takes_along(store: &Arc<dyn IdentityStore>) {
    let People { bob, finance, legal, bobs, .. } = People::stored(store).await;
    let since = works(store.commit(ChangeSet::new()).await, "an empty set returns the present revision");
    let revision = works(store.commit(ChangeSet::new().delete(bob.id, Expect::Any)).await, "a user can be removed");
    let keys = Feed::new(store.changes(Some(since))).keys_until(revision).await;
    let expected: BTreeSet<IdentityKey> = [bob.id.into(), finance.id.into(), legal.id.into(), bobs.id.into()].into();
    assert_eq!(keys, expected, "a feed names all that a removal touched, and nothing else");
}

/// What a set writes or removes itself is judged by its own expectation, not changed by what its removals take along.
pub async fn what_a_set_writes_itself_is_left_to_it(store: &Arc<dyn IdentityStore>) {
    let People { alice, bob, finance, legal, alices, finances, .. } = People::stored(store).await;
    let first = ExpectVersion::Version(Version(1));

    let still = ChangeSet::new().delete(alice.id, Expect::Any).put(Team { priority: 5, ..finance.clone() }, first);
    fails(
        store.commit(still).await,
        ErrorKind::Conflict,
        "a team that is written with a member that goes is a conflict",
    );

    let changed = Team { members: [bob.id].into(), priority: 5, ..finance.clone() };
    let changes = ChangeSet::new().delete(alice.id, Expect::Any).put(changed.clone(), first).delete(alices.id, first);
    works(store.commit(changes).await, "a set may itself write the team and remove the token that its removal touches");
    assert_eq!(
        team(store, &finance).await,
        (Version(2), changed),
        "a team that the set writes is as written, one version on"
    );
    fails(store.get(alices.id.into()).await, ErrorKind::NotFound, "a token that the set removes is gone");

    let handed = Token { owner: TokenOwner::Team(legal.id), ..finances.clone() };
    works(
        store.commit(ChangeSet::new().delete(finance.id, Expect::Any).put(handed.clone(), first)).await,
        "a token can be handed over by the set that removes its owner",
    );
    let read = works(store.get(finances.id.into()).await, "a token that was handed over stays");
    assert_eq!(
        (read.value, read.version),
        (handed.into(), Version(2)),
        "a token that was handed over is as written, one version on"
    );
}

/// However joining and removing a user meet, no team is left with a member that does not exist.
pub async fn no_membership_survives_its_user(store: &Arc<dyn IdentityStore>) {
    let user = fixtures::user("alice@example.com");
    write(store, [user.clone().into()]).await;
    let outcomes = race((0..RACERS).map(|n| {
        let (store, user) = (Arc::clone(store), user.clone());
        async move {
            if n == RACERS / 2 {
                store.commit(ChangeSet::new().delete(user.id, Expect::Any)).await.map(|_| None)
            } else {
                let joined = fixtures::team(&format!("team {n}"), [&user]);
                store.commit(ChangeSet::new().create(joined.clone())).await.map(|_| Some(joined))
            }
        }
    }))
    .await;
    for outcome in outcomes {
        match outcome {
            Ok(Some(joined)) => {
                assert!(team(store, &joined).await.1.members.is_empty(), "a removed user is in no team")
            }
            Ok(None) => {}
            Err(error) => assert_eq!(
                error.kind(),
                ErrorKind::Conflict,
                "a team with a member that is gone is a conflict: {error:?}"
            ),
        }
    }
    fails(store.get(user.id.into()).await, ErrorKind::NotFound, "a removed user is gone");
}
