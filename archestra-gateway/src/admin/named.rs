//! What names teams and users, which therefore cannot go yet: asked when one is deleted by hand, and when an apply prunes.

use super::{AdminState, Problem};
use archestra_core::{
    Result as CoreResult,
    catalog::{CatalogStore, CatalogStoreExt as _, Entry, Kind, Query, RecordKey, Scope},
    consumer::{Consumer, ConsumerKind},
    feed::Versioned,
    id::EntryId,
    installation::{Installation, Owner},
    policy::{CallerSelector, Limit, Policy},
};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What to do about what names somebody who is to go.
pub(crate) const REMEDY: &str = "change or delete those first";
/// How much of what names something is listed.
const SHOWN: usize = 10;

/// What will name whom once a plan has been carried out, where that is not what is stored.
#[derive(Debug, Default)]
pub(crate) struct Afterwards {
    superseded: HashSet<RecordKey>,
    coming: Vec<(String, BTreeSet<Owner>)>,
}

impl Afterwards {
    /// A record goes, and names nobody any more.
    pub(crate) fn goes(&mut self, key: impl Into<RecordKey>) {
        self.superseded.insert(key.into());
    }

    /// What people call `called` will name these, in place of what `before` names now.
    pub(crate) fn comes(&mut self, before: Option<RecordKey>, called: String, naming: impl IntoIterator<Item = Owner>) {
        self.superseded.extend(before);
        self.coming.push((called, naming.into_iter().collect()));
    }
}

/// Refuses to leave anything behind that names nobody. `called` is what people call who is to go.
///
/// # Errors
/// A 409 that says what names the team or the user, and what to do.
pub(crate) async fn by_nothing(state: &AdminState, who: Owner, called: &str) -> Result<(), Problem> {
    let mut naming = naming(state.catalog.as_ref(), &BTreeSet::from([who]), &Afterwards::default()).await?;
    match naming.remove(&who) {
        Some(naming) => Err(Problem::conflict(format!("{}; {REMEDY}", still_named(called, naming)))),
        None => Ok(()),
    }
}

/// Says what names somebody.
pub(crate) fn still_named(called: &str, naming: Vec<String>) -> String {
    let more = naming.len().saturating_sub(SHOWN);
    let mut shown = naming.into_iter().take(SHOWN).collect::<Vec<_>>().join(", ");
    if more > 0 {
        shown = format!("{shown} and {more} more");
    }
    format!("{called} is still named by {shown}")
}

/// What will name each of these teams and users; those that nothing names are not in it.
///
/// # Errors
/// What the store answered.
pub(crate) async fn naming(
    catalog: &dyn CatalogStore,
    who: &BTreeSet<Owner>,
    afterwards: &Afterwards,
) -> CoreResult<BTreeMap<Owner, Vec<String>>> {
    let mut found = Found { who, afterwards, naming: BTreeMap::new() };
    if who.is_empty() {
        return Ok(found.naming);
    }
    let entries = catalog.list_all::<Entry>(Query::all(Kind::Entry)).await?;
    let names: HashMap<EntryId, &str> =
        entries.iter().map(|entry| (entry.value.id, entry.value.spec.name.as_str())).collect();
    for owner in who {
        let query = Query::Installations { entry: None, owner: Some(*owner) };
        for Versioned { value, .. } in catalog.list_all::<Installation>(query).await? {
            let entry = names.get(&value.entry).map_or_else(|| value.entry.to_string(), |name| (*name).to_owned());
            found.stored(value.id.into(), || installation(&entry), [value.owner]);
        }
    }
    for Versioned { value, .. } in catalog.list_all::<Consumer>(Query::all(Kind::Consumer)).await? {
        found.stored(value.id.into(), || consumer(value.kind, &value.spec.slug), of_scope(&value.scope));
    }
    for Versioned { value, .. } in &entries {
        found.stored(value.id.into(), || entry(&value.spec.name), of_scope(&value.scope));
    }
    for Versioned { value, .. } in catalog.list_all::<Policy>(Query::all(Kind::Policy)).await? {
        found.stored(value.id.into(), || policy(&value.spec.name), of_callers(&value.spec.callers));
    }
    for Versioned { value, .. } in catalog.list_all::<Limit>(Query::all(Kind::Limit)).await? {
        let called = || format!("limit {}", value.spec.name);
        found.stored(value.id.into(), called, of_callers(&value.spec.callers));
    }
    for (called, owners) in &afterwards.coming {
        found.note(|| called.clone(), owners.iter().copied());
    }
    Ok(found.naming)
}

struct Found<'a> {
    who: &'a BTreeSet<Owner>,
    afterwards: &'a Afterwards,
    naming: BTreeMap<Owner, Vec<String>>,
}

impl Found<'_> {
    fn stored(&mut self, key: RecordKey, called: impl Fn() -> String, owners: impl IntoIterator<Item = Owner>) {
        if !self.afterwards.superseded.contains(&key) {
            self.note(called, owners);
        }
    }

    fn note(&mut self, called: impl Fn() -> String, owners: impl IntoIterator<Item = Owner>) {
        for owner in owners.into_iter().filter(|owner| self.who.contains(owner)) {
            let naming = self.naming.entry(owner).or_default();
            // A rule may name somebody twice.
            let called = called();
            if naming.last() != Some(&called) {
                naming.push(called);
            }
        }
    }
}

/// What people call the installation of an entry.
pub(crate) fn installation(entry: &str) -> String {
    format!("its installation of {entry}")
}

/// What people call a gateway or an agent.
pub(crate) fn consumer(kind: ConsumerKind, slug: &str) -> String {
    format!("{} {slug}", super::consumers::label(kind))
}

/// What people call an entry.
pub(crate) fn entry(name: &str) -> String {
    format!("entry {name}")
}

/// What people call a policy.
pub(crate) fn policy(name: &str) -> String {
    format!("policy {name}")
}

/// Whom a scope names.
pub(crate) fn of_scope(scope: &Scope) -> Vec<Owner> {
    match scope {
        Scope::Organization => Vec::new(),
        Scope::User(user) => vec![Owner::User(*user)],
        Scope::Teams(teams) => teams.iter().copied().map(Owner::Team).collect(),
    }
}

fn of_callers(callers: &[CallerSelector]) -> impl Iterator<Item = Owner> + '_ {
    callers.iter().filter_map(|caller| match caller {
        CallerSelector::User(user) => Some(Owner::User(*user)),
        CallerSelector::Team(team) => Some(Owner::Team(*team)),
        _ => None,
    })
}
