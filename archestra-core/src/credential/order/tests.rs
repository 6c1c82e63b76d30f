//! The resolution order against a slow model of it.

use super::{Candidate, DefaultResolver, choose};
use crate::{
    catalog::{Entry, Scope},
    consumer::{Consumer, ConsumerKind, CredentialChoice},
    credential::{CallContext, CredentialError, CredentialPlan, CredentialResolver as _, ResolutionReason, plan},
    id::{ClientId, ConsumerId, EntryId, InstallationId, TeamId, UserId},
    identity::{AuthMethod, Caller, Permissions, Principal},
    installation::Owner,
};
use chrono::DateTime;
use futures::FutureExt as _;
use proptest::prelude::*;
use serde_json::json;
use std::sync::Arc;
use uuid::Uuid;

fn user(n: u128) -> UserId {
    UserId::from_uuid(Uuid::from_u128(n))
}

fn team(n: u128) -> TeamId {
    TeamId::from_uuid(Uuid::from_u128(n))
}

fn installation(n: u128) -> InstallationId {
    InstallationId::from_uuid(Uuid::from_u128(n))
}

fn principal(caller: Caller, teams: &[TeamId]) -> Principal {
    Principal {
        caller,
        name: "caller".into(),
        teams: teams.into(),
        permissions: Arc::new(Permissions::default()),
        method: AuthMethod::Embedded,
        idp_token: None,
        consumer: None,
        scopes: None,
        expires_at: None,
    }
}

fn entry() -> Entry {
    Entry {
        id: EntryId::new(),
        spec: serde_json::from_value(json!({"name": "tracker", "remote": {"url": "https://mcp.example.com"}})).unwrap(),
        scope: Scope::Organization,
        author: None,
        secrets: None,
        apply_set: None,
        given_yaml: None,
        saved_by_admin: false,
        created_at: DateTime::UNIX_EPOCH,
        updated_at: DateTime::UNIX_EPOCH,
    }
}

fn consumer() -> Consumer {
    Consumer {
        id: ConsumerId::new(),
        kind: ConsumerKind::Gateway,
        spec: serde_json::from_value(json!({"slug": "g"})).unwrap(),
        scope: Scope::Organization,
        tools: Vec::new(),
        identity_provider: None,
        author: None,
        apply_set: None,
        created_at: DateTime::UNIX_EPOCH,
        updated_at: DateTime::UNIX_EPOCH,
    }
}

fn any_owner() -> impl Strategy<Value = Owner> {
    prop_oneof![
        (0..3_u128).prop_map(|n| Owner::User(user(n))),
        (0..4_u128).prop_map(|n| Owner::Team(team(n))),
        Just(Owner::Organization)
    ]
}

fn any_candidates() -> impl Strategy<Value = Vec<Candidate>> {
    prop::collection::vec((0..6_u128, any_owner()), 0..8).prop_map(|all| {
        all.into_iter().map(|(n, owner)| Candidate { installation: installation(n), owner, secrets: None }).collect()
    })
}

fn any_principal() -> impl Strategy<Value = Principal> {
    let teams = || prop::collection::vec((0..4_u128).prop_map(team), 0..4);
    prop_oneof![
        (0..3_u128, teams()).prop_map(|(n, teams)| principal(Caller::User(user(n)), &teams)),
        // What a principal says beside a team's token does not widen it.
        (0..4_u128, teams()).prop_map(|(n, teams)| principal(Caller::Team(team(n)), &teams)),
        teams().prop_map(|teams| principal(Caller::Organization, &teams)),
        teams().prop_map(|teams| principal(Caller::Client(ClientId::new()), &teams)),
    ]
}

fn any_choice() -> impl Strategy<Value = CredentialChoice> {
    prop_oneof![
        3 => Just(CredentialChoice::ResolveAtCallTime),
        1 => (0..6_u128).prop_map(|n| CredentialChoice::Pinned(installation(n))),
    ]
}

/// The order of decision in words, by sorting everything: what may not be used has no rank.
fn model(
    principal: &Principal,
    choice: CredentialChoice,
    candidates: &[Candidate],
) -> Option<(InstallationId, ResolutionReason)> {
    let rank = |candidate: &Candidate| -> Option<(usize, ResolutionReason)> {
        if let CredentialChoice::Pinned(pin) = choice {
            return (candidate.installation == pin).then_some((0, ResolutionReason::Pinned));
        }
        match (candidate.owner, &principal.caller) {
            (Owner::Organization, _) => Some((usize::MAX, ResolutionReason::Organization)),
            (Owner::User(owner), Caller::User(caller)) if owner == *caller => Some((0, ResolutionReason::Personal)),
            (Owner::Team(owner), Caller::Team(caller)) if owner == *caller => Some((1, ResolutionReason::Team)),
            (Owner::Team(owner), Caller::User(_)) => {
                let place = principal.teams.iter().position(|team| *team == owner)?;
                Some((1 + place, ResolutionReason::Team))
            }
            _ => None,
        }
    };
    let mut ranked: Vec<_> =
        candidates.iter().filter_map(|one| rank(one).map(|(rank, reason)| (rank, one.installation, reason))).collect();
    ranked.sort_by_key(|(rank, id, _)| (*rank, *id));
    ranked.first().map(|(_, id, reason)| (*id, *reason))
}

proptest! {
    #[test]
    fn the_order_is_that_of_the_model(principal in any_principal(), choice in any_choice(), candidates in any_candidates()) {
        let chosen = choose(&principal, &Scope::Organization, choice, &candidates).map(|(candidate, reason)| (candidate.installation, reason));
        prop_assert_eq!(chosen, model(&principal, choice, &candidates));
    }

    #[test]
    fn the_order_of_candidates_means_nothing(principal in any_principal(), candidates in any_candidates().prop_shuffle()) {
        let mut reversed = candidates.clone();
        reversed.reverse();
        let choice = CredentialChoice::ResolveAtCallTime;
        let id = |candidates: &[Candidate]| choose(&principal, &Scope::Organization, choice, candidates).map(|(candidate, reason)| (candidate.installation, reason));
        prop_assert_eq!(id(&candidates), id(&reversed));
    }

    #[test]
    fn nobody_is_given_what_is_somebody_elses(principal in any_principal(), choice in any_choice(), candidates in any_candidates()) {
        if let Some((candidate, reason)) = choose(&principal, &Scope::Organization, choice, &candidates) {
            prop_assert_eq!(matches!(choice, CredentialChoice::Pinned(_)), reason == ResolutionReason::Pinned);
            if reason != ResolutionReason::Pinned {
                match candidate.owner {
                    Owner::User(owner) => prop_assert_eq!(principal.user(), Some(owner)),
                    Owner::Team(owner) => prop_assert!(principal.caller == Caller::Team(owner) || (principal.user().is_some() && principal.is_in(owner))),
                    Owner::Organization => {}
                }
            }
        }
    }

    #[test]
    fn an_explanation_ends_where_the_resolution_ends(principal in any_principal(), choice in any_choice(), candidates in any_candidates()) {
        let (entry, consumer) = (entry(), consumer());
        let call = CallContext { principal: &principal, consumer: &consumer, entry: &entry, tool: "echo", choice, candidates: &candidates };
        let (resolved, explained) = (DefaultResolver.resolve(&call).now_or_never().unwrap(), DefaultResolver.explain(&call).now_or_never().unwrap());
        prop_assert_eq!(resolved.as_ref().ok().map(|resolved| resolved.installation), explained.installation);
        let last = explained.steps.last().unwrap();
        match (resolved, choice) {
            (Ok(resolved), _) => {
                prop_assert!(last.outcome.contains(&resolved.installation.to_string()));
                prop_assert!(candidates.iter().any(|one| one.installation == resolved.installation && one.owner == resolved.owner));
            }
            (Err(CredentialError::PinUnavailable { installation, .. }), CredentialChoice::Pinned(pin)) => prop_assert_eq!(installation, pin),
            (Err(CredentialError::Missing { entry_name, .. }), CredentialChoice::ResolveAtCallTime) => prop_assert_eq!(entry_name, "tracker"),
            (Err(other), _) => prop_assert!(false, "{other}"),
        }
        let found = explained.steps.iter().filter(|step| step.outcome.starts_with("installation")).count();
        prop_assert_eq!(found, usize::from(explained.installation.is_some()));
    }
}

#[test]
fn the_own_installation_comes_before_the_teams_and_those_before_the_organization() {
    let alice = principal(Caller::User(user(1)), &[team(2), team(1)]);
    let mut candidates: Vec<_> =
        [Owner::Organization, Owner::Team(team(1)), Owner::Team(team(2)), Owner::User(user(1)), Owner::User(user(2))]
            .into_iter()
            .enumerate()
            .map(|(n, owner)| Candidate { installation: installation(n as u128), owner, secrets: None })
            .collect();
    let mut order = Vec::new();
    while let Some((candidate, reason)) =
        choose(&alice, &Scope::Organization, CredentialChoice::ResolveAtCallTime, &candidates)
    {
        order.push((candidate.owner, reason));
        let id = candidate.installation;
        candidates.retain(|candidate| candidate.installation != id);
    }
    let expected = [
        (Owner::User(user(1)), ResolutionReason::Personal),
        (Owner::Team(team(2)), ResolutionReason::Team),
        (Owner::Team(team(1)), ResolutionReason::Team),
        (Owner::Organization, ResolutionReason::Organization),
    ];
    assert_eq!(order, expected);
}

#[test]
fn oauth_that_nobody_authorized_serves_nobody_and_nothing_else_is_tried() {
    let mut entry = entry();
    entry.spec.credential = serde_json::from_value(json!({"oauth": {}})).unwrap();
    entry.secrets = Some("entry/a/1".parse().unwrap());
    let mut candidates = vec![
        Candidate { installation: installation(1), owner: Owner::User(user(1)), secrets: None },
        Candidate {
            installation: installation(2),
            owner: Owner::Organization,
            secrets: Some("installation/b/1".parse().unwrap()),
        },
    ];
    let (alice, consumer) = (principal(Caller::User(user(1)), &[]), consumer());
    let resolve = |candidates: &[Candidate]| {
        let choice = CredentialChoice::ResolveAtCallTime;
        let call =
            CallContext { principal: &alice, consumer: &consumer, entry: &entry, tool: "echo", choice, candidates };
        let explained = DefaultResolver.explain(&call).now_or_never().unwrap();
        (DefaultResolver.resolve(&call).now_or_never().unwrap(), explained)
    };
    let (resolved, explained) = resolve(&candidates);
    let Err(CredentialError::Unauthorized { installation: which, entry_name, .. }) = resolved else {
        panic!("{resolved:?}")
    };
    assert_eq!((which, entry_name.as_str()), (installation(1), "tracker"));
    assert_eq!(explained.installation, None);
    assert!(explained.steps.last().unwrap().outcome.contains("not authorized yet"), "{explained:?}");
    candidates.remove(0);
    let (resolved, explained) = resolve(&candidates);
    let resolved = resolved.unwrap();
    assert_eq!(explained.installation, Some(resolved.installation));
    let CredentialPlan::OAuth { installation: tokens, entry: client } = resolved.plan else { panic!("{resolved:?}") };
    assert_eq!((tokens.as_str(), client.unwrap().as_str()), ("installation/b/1", "entry/a/1"));
}

#[test]
fn an_exchange_knows_where_the_secrets_of_its_client_are() {
    let mut entry = entry();
    entry.spec.credential = serde_json::from_value(json!({"enterprise": {"strategy": "id-jag"}})).unwrap();
    entry.secrets = Some("entry/a/1".parse().unwrap());
    let candidate = Candidate { installation: installation(1), owner: Owner::Organization, secrets: None };
    let CredentialPlan::Exchange { installation: None, entry: Some(client), .. } = plan(&entry, &candidate).unwrap()
    else {
        panic!("not an exchange")
    };
    assert_eq!(client.as_str(), "entry/a/1");
}

#[test]
fn a_pin_on_a_teams_installation_ends_with_the_membership() {
    let candidates = [Candidate { installation: installation(1), owner: Owner::Team(team(1)), secrets: None }];
    let choice = CredentialChoice::Pinned(installation(1));
    let (member, former) = (principal(Caller::User(user(1)), &[team(1)]), principal(Caller::User(user(1)), &[team(2)]));
    let resolve = |principal: &Principal, scope: Scope| {
        let (entry, consumer) = (entry(), Consumer { scope, ..consumer() });
        let candidates = &candidates;
        let call = CallContext { principal, consumer: &consumer, entry: &entry, tool: "echo", choice, candidates };
        let explained = DefaultResolver.explain(&call).now_or_never().unwrap();
        let resolved = DefaultResolver.resolve(&call).now_or_never().unwrap();
        assert_eq!(resolved.as_ref().ok().map(|resolved| resolved.installation), explained.installation);
        resolved.map(|resolved| resolved.reason)
    };
    assert_eq!(resolve(&member, Scope::User(user(1))), Ok(ResolutionReason::Pinned));
    assert!(matches!(resolve(&former, Scope::User(user(1))), Err(CredentialError::PinUnavailable { .. })));
    for wide in [Scope::Organization, Scope::Teams([team(1), team(2)].into())] {
        assert_eq!(resolve(&former, wide), Ok(ResolutionReason::Pinned), "there the pin is meant for everybody");
    }
}
