//! The resolution order: a pin that still may serve; else personal, then teams by priority, then the organization. Never somebody else's personal one.

use super::{CallContext, CredentialError, CredentialResolver, Explanation, ResolutionReason, Resolved, Step, plan};
use crate::{
    catalog::Scope,
    consumer::CredentialChoice,
    id::InstallationId,
    identity::{Caller, Principal},
    installation::Owner,
    secret::SecretRef,
};
use async_trait::async_trait;

/// An installation that could serve a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub installation: InstallationId,
    /// Whose.
    pub owner: Owner,
    /// Where its secrets are.
    pub secrets: Option<SecretRef>,
}

/// The owners whose installations a caller may use, in the order they are tried.
fn owners(principal: &Principal) -> impl Iterator<Item = (Owner, ResolutionReason)> + '_ {
    let personal = principal.user().map(|user| (Owner::User(user), ResolutionReason::Personal));
    let teams: &[_] = match &principal.caller {
        Caller::User(_) => &principal.teams,
        Caller::Team(team) => std::slice::from_ref(team),
        Caller::Organization | Caller::Client(_) => &[],
    };
    personal
        .into_iter()
        .chain(teams.iter().map(|team| (Owner::Team(*team), ResolutionReason::Team)))
        .chain([(Owner::Organization, ResolutionReason::Organization)])
}

/// The candidate of an owner.
fn of_owner(candidates: &[Candidate], owner: Owner) -> Option<&Candidate> {
    // (entry, owner) is unique; the smallest id decides should a store ever break that.
    candidates.iter().filter(|candidate| candidate.owner == owner).min_by_key(|candidate| candidate.installation)
}

/// The candidate that is pinned. On a consumer of one user, a team's serves only while the caller is in that team: the pin
/// was checked when it was made, and memberships end without a word to the catalog.
fn pinned<'a>(
    principal: &Principal,
    scope: &Scope,
    candidates: &'a [Candidate],
    id: InstallationId,
) -> Option<&'a Candidate> {
    let may_serve = |owner: Owner| match (owner, scope) {
        (Owner::Team(team), Scope::User(_)) => principal.is_in(team),
        _ => true,
    };
    candidates.iter().find(|candidate| candidate.installation == id && may_serve(candidate.owner))
}

/// The candidate that serves a caller of a consumer with this scope, and why; `None` when there is none.
#[must_use]
pub fn choose<'a>(
    principal: &Principal,
    scope: &Scope,
    choice: CredentialChoice,
    candidates: &'a [Candidate],
) -> Option<(&'a Candidate, ResolutionReason)> {
    match choice {
        CredentialChoice::Pinned(id) => {
            pinned(principal, scope, candidates, id).map(|candidate| (candidate, ResolutionReason::Pinned))
        }
        CredentialChoice::ResolveAtCallTime => owners(principal)
            .find_map(|(owner, reason)| of_owner(candidates, owner).map(|candidate| (candidate, reason))),
    }
}

/// The resolver that [`choose`]s by the order above.
#[derive(Debug, Clone, Copy, Default)]
pub struct DefaultResolver;

#[async_trait]
impl CredentialResolver for DefaultResolver {
    async fn resolve(&self, call: &CallContext<'_>) -> Result<Resolved, CredentialError> {
        if let Some((candidate, reason)) = choose(call.principal, &call.consumer.scope, call.choice, call.candidates) {
            return Ok(Resolved {
                installation: candidate.installation,
                owner: candidate.owner,
                reason,
                plan: plan(call.entry, candidate)?,
            });
        }
        let (entry, entry_name) = (call.entry.id, call.entry.spec.name.clone());
        Err(match call.choice {
            CredentialChoice::Pinned(installation) => {
                CredentialError::PinUnavailable { entry, entry_name, installation }
            }
            CredentialChoice::ResolveAtCallTime => {
                let caller = format!("{} {}", call.principal.caller.kind(), call.principal.name);
                CredentialError::Missing { entry, entry_name, caller }
            }
        })
    }

    async fn explain(&self, call: &CallContext<'_>) -> Explanation {
        let mut steps = Vec::new();
        let mut look = |looked_at: String, found: Option<&Candidate>| {
            let outcome = found.map_or_else(
                || "none that is ready, has the tool and may serve this caller".to_owned(),
                |candidate| match plan(call.entry, candidate) {
                    Ok(_) => format!("installation {}", candidate.installation),
                    Err(error) => format!("installation {}, which cannot serve: {error}", candidate.installation),
                },
            );
            steps.push(Step { looked_at, outcome });
            // The search ends here, also where this one cannot serve.
            found.map(|candidate| plan(call.entry, candidate).ok().map(|_| candidate.installation))
        };
        let installation = match call.choice {
            CredentialChoice::Pinned(id) => {
                let found = pinned(call.principal, &call.consumer.scope, call.candidates, id);
                look(format!("pinned installation {id}"), found)
            }
            CredentialChoice::ResolveAtCallTime => owners(call.principal)
                .find_map(|(owner, _)| look(format!("installation of {owner}"), of_owner(call.candidates, owner))),
        };
        Explanation { steps, installation: installation.flatten() }
    }
}

#[cfg(test)]
mod tests;
