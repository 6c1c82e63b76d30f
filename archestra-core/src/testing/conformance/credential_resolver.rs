//! The suite of [`CredentialResolver`].

use super::suite;
use crate::{
    catalog::{CredentialModel, Entry, StaticField},
    consumer::CredentialChoice,
    credential::{CallContext, Candidate, CredentialResolver, ResolutionReason, Resolved},
    id::InstallationId,
    identity::{Principal, Team, User},
    installation::Owner,
    testing::fixtures,
};
use std::sync::Arc;

suite! {
    $
    /// One `#[test]` for each case of the [credential resolver suite](crate::testing::conformance::credential_resolver): a
    /// module name and an expression that yields an `Arc` of a resolver.
    credential_resolver_conformance, credential_resolver, credential::CredentialResolver, [
        answers_with_a_candidate,
        answers_the_same_again,
        never_answers_with_a_strangers_installation,
        explains_what_it_resolves,
    ]
}

/// Who could call, and whose installations there could be.
struct World {
    alice: User,
    bob: User,
    finance: Team,
    legal: Team,
    entries: [Entry; 2],
    candidates: Vec<Candidate>,
}

impl World {
    fn new() -> Self {
        let (alice, bob) = (fixtures::user("alice@example.com"), fixtures::user("bob@example.com"));
        let (finance, legal) = (fixtures::team("finance", [&alice]), fixtures::team("legal", [&alice]));
        let mut with_token = fixtures::remote_entry("with token");
        let field = StaticField {
            name: "token".to_owned(),
            header: "Authorization".to_owned(),
            prefix: Some("Bearer ".to_owned()),
            secret: true,
            prompt: true,
            required: true,
            value: None,
            description: None,
        };
        with_token.spec.credential = CredentialModel::Static(vec![field]);
        let owners = [
            Owner::User(alice.id),
            Owner::User(bob.id),
            Owner::Team(finance.id),
            Owner::Team(legal.id),
            Owner::Organization,
        ];
        let candidates = owners.map(|owner| Candidate {
            installation: InstallationId::new(),
            owner,
            secrets: Some(fixtures::secret_ref("installation/a/1")),
        });
        Self {
            alice,
            bob,
            finance,
            legal,
            entries: [fixtures::remote_entry("open"), with_token],
            candidates: candidates.to_vec(),
        }
    }

    fn principals(&self) -> Vec<Principal> {
        vec![
            fixtures::user_principal(&self.alice, &[self.legal.id, self.finance.id]),
            fixtures::user_principal(&self.bob, &[]),
            fixtures::team_principal(&self.finance),
            fixtures::organization_principal(),
            fixtures::client_principal(&fixtures::client("machine")),
        ]
    }

    /// Every set of candidates.
    fn subsets(&self) -> impl Iterator<Item = Vec<Candidate>> + '_ {
        (0..1_usize << self.candidates.len()).map(|bits| {
            let chosen = self.candidates.iter().enumerate().filter(|(n, _)| bits & (1 << n) != 0);
            chosen.map(|(_, candidate)| candidate.clone()).collect()
        })
    }

    fn choices(&self) -> Vec<CredentialChoice> {
        let pins = self.candidates.iter().map(|candidate| CredentialChoice::Pinned(candidate.installation));
        pins.chain([CredentialChoice::Pinned(InstallationId::new()), CredentialChoice::ResolveAtCallTime]).collect()
    }
}

/// Shows a check every combination of caller, entry, choice and candidates.
async fn in_every_context(
    resolver: &Arc<dyn CredentialResolver>,
    check: impl AsyncFn(&CallContext<'_>, Option<Resolved>),
) {
    let (world, consumer) = (World::new(), fixtures::gateway("gateway"));
    for principal in &world.principals() {
        for candidates in world.subsets() {
            for choice in world.choices() {
                for entry in &world.entries {
                    let call = CallContext {
                        principal,
                        consumer: &consumer,
                        entry,
                        tool: "echo",
                        choice,
                        candidates: &candidates,
                    };
                    let resolved = resolver.resolve(&call).await.ok();
                    check(&call, resolved).await;
                }
            }
        }
    }
}

/// The answer is one of the candidates, with its owner.
pub async fn answers_with_a_candidate(resolver: &Arc<dyn CredentialResolver>) {
    in_every_context(resolver, async |call, resolved| {
        if let Some(resolved) = resolved {
            let there = call
                .candidates
                .iter()
                .any(|candidate| candidate.installation == resolved.installation && candidate.owner == resolved.owner);
            assert!(there, "a resolver answers with a candidate and its owner, not with {resolved:?}");
        }
    })
    .await;
}

/// The same context gets the same answer.
pub async fn answers_the_same_again(resolver: &Arc<dyn CredentialResolver>) {
    in_every_context(resolver, async |call, resolved| {
        let again = resolver.resolve(call).await.ok();
        let essence = |resolved: Option<Resolved>| {
            resolved.map(|resolved| (resolved.installation, resolved.owner, resolved.reason))
        };
        assert_eq!(essence(again), essence(resolved), "a resolver gives the same answer to the same context");
    })
    .await;
}

/// Somebody else's personal installation serves nobody, unless the assignment pins it.
pub async fn never_answers_with_a_strangers_installation(resolver: &Arc<dyn CredentialResolver>) {
    in_every_context(resolver, async |call, resolved| {
        let Some(resolved) = resolved else { return };
        if let Owner::User(owner) = resolved.owner
            && call.choice != CredentialChoice::Pinned(resolved.installation)
        {
            assert_eq!(
                call.principal.user(),
                Some(owner),
                "a resolver never answers with another user's personal installation"
            );
        }
    })
    .await;
}

/// An explanation has steps and ends where the resolution ends.
pub async fn explains_what_it_resolves(resolver: &Arc<dyn CredentialResolver>) {
    in_every_context(resolver, async |call, resolved| {
        let explanation = resolver.explain(call).await;
        assert!(!explanation.steps.is_empty(), "an explanation has steps");
        assert_eq!(
            explanation.installation,
            resolved.map(|resolved| resolved.installation),
            "an explanation ends where the resolution ends"
        );
    })
    .await;
}

/// For a resolver that means to keep the platform's own order, and not part of [`all`]: a pin wins; else the caller's own
/// installation, then the teams' in order, then the organization's; machine clients and organization tokens get only the last.
pub async fn follows_the_default_order(resolver: &Arc<dyn CredentialResolver>) {
    in_every_context(resolver, async |call, resolved| {
        let mut order: Vec<(Owner, ResolutionReason)> = Vec::new();
        order.extend(call.principal.user().map(|user| (Owner::User(user), ResolutionReason::Personal)));
        order.extend(call.principal.teams.iter().map(|team| (Owner::Team(*team), ResolutionReason::Team)));
        order.push((Owner::Organization, ResolutionReason::Organization));
        let find = |owner: Owner| call.candidates.iter().find(|candidate| candidate.owner == owner);
        let expected = match call.choice {
            CredentialChoice::Pinned(id) => call
                .candidates
                .iter()
                .find(|candidate| candidate.installation == id)
                .map(|candidate| (candidate.installation, ResolutionReason::Pinned)),
            CredentialChoice::ResolveAtCallTime => order
                .into_iter()
                .find_map(|(owner, reason)| find(owner).map(|candidate| (candidate.installation, reason))),
        };
        let answer = resolved.map(|resolved| (resolved.installation, resolved.reason));
        assert_eq!(answer, expected, "the order is: pin, personal, teams by priority, organization");
    })
    .await;
}
