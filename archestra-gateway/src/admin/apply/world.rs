//! The names of a document: what is stored, and over it what the document is about to make.

use super::super::{AdminState, Problem, access::sees, caller::Who, refs::ScopeRef, resolve::Directory};
use archestra_core::{
    catalog::{Entry, Scope},
    feed::Versioned,
    id::{TeamId, UserId},
    identity::Resource as On,
    installation::Owner,
};
use std::collections::{BTreeMap, BTreeSet};

/// What names mean while a document is planned.
#[derive(Debug)]
pub(super) struct World {
    pub(super) directory: Directory,
    /// The users that the document makes, with the ids they will have.
    pub(super) users: BTreeMap<String, UserId>,
    /// The teams that the document makes, with the ids they will have.
    pub(super) teams: BTreeMap<String, TeamId>,
    /// The names of the entries that the document makes.
    pub(super) entries: BTreeSet<String>,
    /// The installations that the document makes, by the name of their entry.
    pub(super) installations: BTreeSet<(String, Owner)>,
}

/// An entry that a document refers to.
#[derive(Debug)]
pub(super) enum EntryFound {
    /// It is stored.
    Stored(Box<Versioned<Entry>>),
    /// The document makes it.
    Planned(String),
}

impl World {
    pub(super) fn new(state: &AdminState) -> Self {
        Self {
            directory: Directory::new(state),
            users: BTreeMap::new(),
            teams: BTreeMap::new(),
            entries: BTreeSet::new(),
            installations: BTreeSet::new(),
        }
    }

    pub(super) async fn user(&self, who: &Who, field: &str, text: &str) -> Result<UserId, Problem> {
        match self.users.get(&text.to_lowercase()) {
            Some(id) => Ok(*id),
            None => Ok(self.directory.known_user(who, field, text).await?.value.id),
        }
    }

    pub(super) async fn team(&self, who: &Who, field: &str, text: &str) -> Result<TeamId, Problem> {
        match self.teams.get(text) {
            Some(id) => Ok(*id),
            None => Ok(self.directory.known_team(who, field, text).await?.value.id),
        }
    }

    pub(super) async fn entry(&self, who: &Who, text: &str) -> Result<EntryFound, Problem> {
        if self.entries.contains(text) {
            return Ok(EntryFound::Planned(text.to_owned()));
        }
        let found = self.directory.find_entry(text).await?.filter(|entry| sees(who, On::Entry, &entry.value.scope));
        let missing = || {
            Problem::finding(
                "entry",
                format!("there is no entry {text} that you may see"),
                "add it to `entries`, or use the name of one",
            )
        };
        Ok(EntryFound::Stored(Box::new(found.ok_or_else(missing)?)))
    }

    pub(super) async fn scope(&self, who: &Who, scope: &ScopeRef) -> Result<Scope, Problem> {
        Ok(match scope {
            ScopeRef::Organization => Scope::Organization,
            ScopeRef::User(user) => Scope::User(self.user(who, "scope.user", user).await?),
            ScopeRef::Team(team) => Scope::Teams(BTreeSet::from([self.team(who, "scope.team", team).await?])),
            ScopeRef::Teams(teams) => {
                let mut ids = BTreeSet::new();
                for (n, team) in teams.iter().enumerate() {
                    ids.insert(self.team(who, &format!("scope.teams[{n}]"), team).await?);
                }
                Scope::Teams(ids)
            }
        })
    }

    pub(super) async fn owner(&self, who: &Who, scope: &ScopeRef) -> Result<Owner, Problem> {
        match self.scope(who, scope).await? {
            Scope::Organization => Ok(Owner::Organization),
            Scope::User(user) => Ok(Owner::User(user)),
            Scope::Teams(teams) => match teams.first() {
                Some(team) if teams.len() == 1 => Ok(Owner::Team(*team)),
                _ => Err(Problem::finding(
                    "scope",
                    "an installation belongs to one team",
                    "name one, and add another installation for the other team",
                )),
            },
        }
    }

    /// Whether a scope names something that is not stored yet.
    pub(super) fn is_planned(&self, scope: &ScopeRef) -> bool {
        match scope {
            ScopeRef::Organization => false,
            ScopeRef::User(user) => self.users.contains_key(&user.to_lowercase()),
            ScopeRef::Team(team) => self.teams.contains_key(team),
            ScopeRef::Teams(teams) => teams.iter().any(|team| self.teams.contains_key(team)),
        }
    }
}

impl EntryFound {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Stored(entry) => &entry.value.spec.name,
            Self::Planned(name) => name,
        }
    }
}
