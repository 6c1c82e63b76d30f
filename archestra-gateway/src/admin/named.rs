//! What names a team or a user, which therefore cannot go yet.

use super::{AdminState, Problem};
use archestra_core::{
    catalog::{CatalogStoreExt as _, Entry, Kind, Query, Scope},
    consumer::{Consumer, ConsumerKind},
    feed::PageRequest,
    installation::{Installation, Owner},
    policy::{CallerSelector, Limit, Policy},
};

/// How much of what names something is listed.
const SHOWN: usize = 10;

/// Refuses to leave anything behind that names nobody.
///
/// # Errors
/// A 409 that says what names the team or the user, and what to do.
pub(crate) async fn by_nothing(state: &AdminState, who: Owner) -> Result<(), Problem> {
    let one = PageRequest { limit: 1, cursor: None };
    let query = Query::Installations { entry: None, owner: Some(who) };
    if !state.catalog.list_page::<Installation>(query, one).await?.items.is_empty() {
        return Err(Problem::conflict(format!("{who} still has installations; remove them first")));
    }
    let naming = naming(state, who).await?;
    if naming.is_empty() {
        return Ok(());
    }
    let more = naming.len().saturating_sub(SHOWN);
    let mut shown = naming.into_iter().take(SHOWN).collect::<Vec<_>>().join(", ");
    if more > 0 {
        shown = format!("{shown} and {more} more");
    }
    Err(Problem::conflict(format!("{who} is still named by {shown}; change or delete those first")))
}

async fn naming(state: &AdminState, who: Owner) -> Result<Vec<String>, Problem> {
    let mut naming = Vec::new();
    for consumer in state.catalog.list_all::<Consumer>(Query::all(Kind::Consumer)).await? {
        if is_for(&consumer.value.scope, who) {
            let kind = match consumer.value.kind {
                ConsumerKind::Gateway => "gateway",
                ConsumerKind::Agent => "agent",
            };
            naming.push(format!("{kind} {}", consumer.value.spec.slug));
        }
    }
    for entry in state.catalog.list_all::<Entry>(Query::all(Kind::Entry)).await? {
        if is_for(&entry.value.scope, who) {
            naming.push(format!("entry {}", entry.value.spec.name));
        }
    }
    for policy in state.catalog.list_all::<Policy>(Query::all(Kind::Policy)).await? {
        if selects(&policy.value.spec.callers, who) {
            naming.push(format!("policy {}", policy.value.spec.name));
        }
    }
    for limit in state.catalog.list_all::<Limit>(Query::all(Kind::Limit)).await? {
        if selects(&limit.value.spec.callers, who) {
            naming.push(format!("limit {}", limit.value.spec.name));
        }
    }
    Ok(naming)
}

fn is_for(scope: &Scope, who: Owner) -> bool {
    match (scope, who) {
        (Scope::Teams(teams), Owner::Team(team)) => teams.contains(&team),
        (Scope::User(user), Owner::User(owner)) => *user == owner,
        _ => false,
    }
}

fn selects(callers: &[CallerSelector], who: Owner) -> bool {
    callers.iter().any(|caller| match (caller, who) {
        (CallerSelector::User(user), Owner::User(owner)) => *user == owner,
        (CallerSelector::Team(team), Owner::Team(owner)) => *team == owner,
        _ => false,
    })
}
