//! Who may see and change what: permissions first, then the scope of the thing. Pure functions.

use super::Problem;
use archestra_core::{
    catalog::Scope,
    identity::{Action, Caller, Permission, Principal, Resource},
    installation::Owner,
};
use std::collections::BTreeSet;

/// How far a thing reaches, from where a caller stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// The caller's own.
    Own,
    /// Of teams that the caller is in, all of them.
    Teams,
    /// Beyond the caller and the caller's teams.
    Beyond,
}

fn reach(principal: &Principal, scope: &Scope) -> Reach {
    match scope {
        Scope::User(user) if principal.user() == Some(*user) => Reach::Own,
        Scope::Teams(teams) if !teams.is_empty() && teams.iter().all(|team| principal.is_in(*team)) => Reach::Teams,
        Scope::User(_) | Scope::Teams(_) | Scope::Organization => Reach::Beyond,
    }
}

/// The scope that is as wide as an owner.
pub(crate) fn scope_of(owner: Owner) -> Scope {
    match owner {
        Owner::User(user) => Scope::User(user),
        Owner::Team(team) => Scope::Teams(BTreeSet::from([team])),
        Owner::Organization => Scope::Organization,
    }
}

/// Requires a permission, whatever the scope.
///
/// # Errors
/// A 403 that names it.
pub(crate) fn require(principal: &Principal, resource: Resource, action: Action, what: &str) -> Result<(), Problem> {
    if principal.permissions.allow(resource, action) {
        Ok(())
    } else {
        Err(Problem::forbidden(Permission(resource, action), what))
    }
}

/// Whether a thing with this scope exists for the caller.
pub(crate) fn sees(principal: &Principal, resource: Resource, scope: &Scope) -> bool {
    let allow = |action| principal.permissions.allow(resource, action);
    let within = || match scope {
        Scope::Organization => true,
        Scope::Teams(teams) => teams.iter().any(|team| principal.is_in(*team)),
        Scope::User(user) => principal.user() == Some(*user),
    };
    allow(Action::Admin) || (allow(Action::Read) && within())
}

/// Requires what it takes to do `action` to a thing with this scope: the permission itself for one's own, `teamAdmin` too
/// for what belongs to one's teams, and `admin` beyond that.
///
/// # Errors
/// A 403 that names the missing permission.
pub(crate) fn may_change(
    principal: &Principal,
    resource: Resource,
    action: Action,
    scope: &Scope,
    what: &str,
) -> Result<(), Problem> {
    let allow = |action| principal.permissions.allow(resource, action);
    // Installing is what entries are made for, so that those who manage installations of a scope manage its entries.
    let manages = |action| {
        allow(action) || (resource == Resource::Entry && principal.permissions.allow(Resource::Installation, action))
    };
    if allow(Action::Admin) {
        return Ok(());
    }
    let missing = match reach(principal, scope) {
        _ if !allow(action) => Some(action),
        Reach::Own => None,
        Reach::Teams => (!manages(Action::TeamAdmin)).then_some(Action::TeamAdmin),
        Reach::Beyond => (!manages(Action::Admin)).then_some(Action::Admin),
    };
    missing.map_or(Ok(()), |missing| Err(Problem::forbidden(Permission(resource, missing), what)))
}

/// Whether the caller may let others call with this installation: it is their own, their team's or everybody's, or they
/// manage all installations.
pub(crate) fn may_pin(principal: &Principal, owner: Owner) -> bool {
    principal.permissions.allow(Resource::Installation, Action::Admin)
        || match owner {
            Owner::User(user) => principal.user() == Some(user),
            Owner::Team(team) => principal.is_in(team),
            Owner::Organization => true,
        }
}

/// The scope that something gets when nobody says otherwise: the caller's own, or the team's of a team token.
pub(crate) fn default_owner(principal: &Principal) -> Option<Owner> {
    match principal.caller {
        Caller::User(user) => Some(Owner::User(user)),
        Caller::Team(team) => Some(Owner::Team(team)),
        _ => None,
    }
}
