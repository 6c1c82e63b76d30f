//! From the names in documents and paths to records, and from ids back to names.

use super::{
    AdminState, Problem,
    caller::Who,
    refs::{Named, ScopeRef},
};
use archestra_core::{
    Error, Result as CoreResult,
    catalog::{CatalogStore, CatalogStoreExt as _, Entry, Lookup, Scope},
    consumer::{Consumer, ConsumerKind},
    feed::Versioned,
    id::{ClientId, ConsumerId, EntryId, InstallationId, TeamId, UserId},
    identity::{Action, Client, IdentityLookup, IdentityStore, IdentityStoreExt as _, Resource, Team, User},
    installation::{Installation, Owner},
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

/// Looks names and ids up for one request, and remembers the names.
#[derive(Debug)]
pub(crate) struct Directory {
    catalog: Arc<dyn CatalogStore>,
    identity: Arc<dyn IdentityStore>,
    users: HashMap<UserId, String>,
    teams: HashMap<TeamId, String>,
    entries: HashMap<EntryId, String>,
    consumers: HashMap<ConsumerId, String>,
    clients: HashMap<ClientId, (String, String)>,
}

/// Nothing there is an answer, every other trouble is an error.
pub(crate) fn optional<T>(result: CoreResult<T>) -> Result<Option<T>, Problem> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Directory {
    pub(crate) fn new(state: &AdminState) -> Self {
        Self {
            catalog: Arc::clone(&state.catalog),
            identity: Arc::clone(&state.identity),
            users: HashMap::new(),
            teams: HashMap::new(),
            entries: HashMap::new(),
            consumers: HashMap::new(),
            clients: HashMap::new(),
        }
    }

    /// The user with this id or address.
    pub(crate) async fn find_user(&self, text: &str) -> Result<Option<Versioned<User>>, Problem> {
        if let Ok(id) = text.parse::<UserId>() {
            return optional(self.identity.get_one::<User>(id).await);
        }
        Ok(self.identity.find_one(IdentityLookup::UserByEmail(text.to_lowercase())).await?)
    }

    /// The team with this id or name.
    pub(crate) async fn find_team(&self, text: &str) -> Result<Option<Versioned<Team>>, Problem> {
        if let Ok(id) = text.parse::<TeamId>()
            && let Some(found) = optional(self.identity.get_one::<Team>(id).await)?
        {
            return Ok(Some(found));
        }
        Ok(self.identity.find_one(IdentityLookup::TeamNamed(text.to_owned())).await?)
    }

    /// The entry with this id or name.
    pub(crate) async fn find_entry(&self, text: &str) -> Result<Option<Versioned<Entry>>, Problem> {
        if let Ok(id) = text.parse::<EntryId>()
            && let Some(found) = optional(self.catalog.get_one::<Entry>(id).await)?
        {
            return Ok(Some(found));
        }
        Ok(self.catalog.find_one(Lookup::EntryNamed(text.to_owned())).await?)
    }

    /// The consumer with this id or slug.
    pub(crate) async fn find_consumer(&self, text: &str) -> Result<Option<Versioned<Consumer>>, Problem> {
        if let Ok(id) = text.parse::<ConsumerId>() {
            return optional(self.catalog.get_one::<Consumer>(id).await);
        }
        Ok(self.catalog.find_one(Lookup::ConsumerAt(text.to_owned())).await?)
    }

    /// The installation with this id.
    pub(crate) async fn find_installation(&self, text: &str) -> Result<Option<Versioned<Installation>>, Problem> {
        match text.parse::<InstallationId>() {
            Ok(id) => optional(self.catalog.get_one::<Installation>(id).await),
            Err(_) => Ok(None),
        }
    }

    /// The installation of an entry that this owner has.
    pub(crate) async fn installation_of(
        &self,
        entry: EntryId,
        owner: Owner,
    ) -> Result<Option<Versioned<Installation>>, Problem> {
        Ok(self.catalog.find_one(Lookup::InstallationOf(entry, owner)).await?)
    }

    /// The entry with this id or name, for a caller who may see it.
    ///
    /// # Errors
    /// A 404 otherwise.
    pub(crate) async fn entry(&self, who: &Who, text: &str) -> Result<Versioned<Entry>, Problem> {
        let found =
            self.find_entry(text).await?.filter(|entry| super::access::sees(who, Resource::Entry, &entry.value.scope));
        found.ok_or_else(|| Problem::not_found("entry", text))
    }

    /// The installation with this id, for a caller who may see it.
    ///
    /// # Errors
    /// A 404 otherwise.
    pub(crate) async fn installation(&self, who: &Who, text: &str) -> Result<Versioned<Installation>, Problem> {
        let sees = |found: &Versioned<Installation>| {
            super::access::sees(who, Resource::Installation, &super::access::scope_of(found.value.owner))
        };
        self.find_installation(text).await?.filter(sees).ok_or_else(|| Problem::not_found("installation", text))
    }

    /// The consumer of this kind with this id or slug, for a caller who may see it.
    ///
    /// # Errors
    /// A 404 otherwise.
    pub(crate) async fn consumer(
        &self,
        who: &Who,
        kind: ConsumerKind,
        text: &str,
    ) -> Result<Versioned<Consumer>, Problem> {
        let sees = |found: &Versioned<Consumer>| {
            found.value.kind == kind && super::access::sees(who, super::consumers::resource(kind), &found.value.scope)
        };
        self.find_consumer(text)
            .await?
            .filter(sees)
            .ok_or_else(|| Problem::not_found(super::consumers::label(kind), text))
    }

    /// The user that a caller refers to in a document: themselves, or anybody for those who may list users.
    ///
    /// # Errors
    /// A finding for `field`, the same whether there is no such user or the caller may not know.
    pub(crate) async fn known_user(&self, who: &Who, field: &str, text: &str) -> Result<Versioned<User>, Problem> {
        let knows = |user: &Versioned<User>| {
            who.user() == Some(user.value.id) || who.permissions.allow(Resource::User, Action::Read)
        };
        let found = self.find_user(text).await?.filter(knows);
        found.ok_or_else(|| {
            Problem::finding(
                field,
                format!("there is no user {text} that you may see"),
                "use the address of one, or create the user first",
            )
        })
    }

    /// The team that a caller refers to in a document: their own, or any for those who manage teams.
    ///
    /// # Errors
    /// A finding for `field`, the same whether there is no such team or the caller may not know.
    pub(crate) async fn known_team(&self, who: &Who, field: &str, text: &str) -> Result<Versioned<Team>, Problem> {
        let found = self.find_team(text).await?.filter(|team| super::teams::sees(who, team.value.id));
        found.ok_or_else(|| {
            Problem::finding(
                field,
                format!("there is no team {text} that you may see"),
                "use the name of one, or create the team first",
            )
        })
    }

    /// The entry that a caller refers to in a document.
    ///
    /// # Errors
    /// A finding for `field`, the same whether there is no such entry or the caller may not know.
    pub(crate) async fn known_entry(&self, who: &Who, field: &str, text: &str) -> Result<Versioned<Entry>, Problem> {
        let found =
            self.find_entry(text).await?.filter(|entry| super::access::sees(who, Resource::Entry, &entry.value.scope));
        found.ok_or_else(|| {
            Problem::finding(
                field,
                format!("there is no entry {text} that you may see"),
                "use the name of one, or create the entry first",
            )
        })
    }

    /// What a scope in a document means.
    ///
    /// # Errors
    /// A finding below `field` for a user or team that is not there.
    pub(crate) async fn scope(&self, who: &Who, field: &str, scope: &ScopeRef) -> Result<Scope, Problem> {
        Ok(match scope {
            ScopeRef::Organization => Scope::Organization,
            ScopeRef::User(user) => Scope::User(self.known_user(who, &format!("{field}.user"), user).await?.value.id),
            ScopeRef::Team(team) => {
                Scope::Teams(BTreeSet::from([self.known_team(who, &format!("{field}.team"), team).await?.value.id]))
            }
            ScopeRef::Teams(teams) if teams.is_empty() => {
                return Err(Problem::finding(format!("{field}.teams"), "no team is named", "name at least one"));
            }
            ScopeRef::Teams(teams) => {
                let mut ids = BTreeSet::new();
                for (n, team) in teams.iter().enumerate() {
                    ids.insert(self.known_team(who, &format!("{field}.teams[{n}]"), team).await?.value.id);
                }
                Scope::Teams(ids)
            }
        })
    }

    /// Whom a scope in a document means, where there can be one owner only.
    ///
    /// # Errors
    /// A finding below `field` for a user or team that is not there, or for several teams.
    pub(crate) async fn owner(&self, who: &Who, field: &str, scope: &ScopeRef) -> Result<Owner, Problem> {
        match self.scope(who, field, scope).await? {
            Scope::Organization => Ok(Owner::Organization),
            Scope::User(user) => Ok(Owner::User(user)),
            Scope::Teams(teams) => match teams.first() {
                Some(team) if teams.len() == 1 => Ok(Owner::Team(*team)),
                _ => Err(Problem::finding(
                    field,
                    "an installation belongs to one team",
                    "name one, and make another installation for the other team",
                )),
            },
        }
    }

    /// A user's address; the id of a user that is gone.
    pub(crate) async fn user_name(&mut self, id: UserId) -> Result<String, Problem> {
        if let Some(name) = self.users.get(&id) {
            return Ok(name.clone());
        }
        let name =
            optional(self.identity.get_one::<User>(id).await)?.map_or_else(|| id.to_string(), |user| user.value.email);
        self.users.insert(id, name.clone());
        Ok(name)
    }

    /// A team's name; the id of a team that is gone.
    pub(crate) async fn team_name(&mut self, id: TeamId) -> Result<String, Problem> {
        if let Some(name) = self.teams.get(&id) {
            return Ok(name.clone());
        }
        let name =
            optional(self.identity.get_one::<Team>(id).await)?.map_or_else(|| id.to_string(), |team| team.value.name);
        self.teams.insert(id, name.clone());
        Ok(name)
    }

    /// An entry's name; the id of an entry that is gone.
    pub(crate) async fn entry_name(&mut self, id: EntryId) -> Result<String, Problem> {
        if let Some(name) = self.entries.get(&id) {
            return Ok(name.clone());
        }
        let name = optional(self.catalog.get_one::<Entry>(id).await)?
            .map_or_else(|| id.to_string(), |entry| entry.value.spec.name);
        self.entries.insert(id, name.clone());
        Ok(name)
    }

    /// A consumer's slug; the id of a consumer that is gone.
    pub(crate) async fn consumer_slug(&mut self, id: ConsumerId) -> Result<String, Problem> {
        if let Some(slug) = self.consumers.get(&id) {
            return Ok(slug.clone());
        }
        let slug = optional(self.catalog.get_one::<Consumer>(id).await)?
            .map_or_else(|| id.to_string(), |consumer| consumer.value.spec.slug);
        self.consumers.insert(id, slug.clone());
        Ok(slug)
    }

    /// A client's `client_id`, and the client with id and name.
    pub(crate) async fn client_view(&mut self, id: ClientId) -> Result<(String, Named), Problem> {
        let named = |name: &str| Named { kind: "client".to_owned(), id: Some(id.to_string()), name: name.to_owned() };
        if let Some((client_id, name)) = self.clients.get(&id) {
            return Ok((client_id.clone(), named(name)));
        }
        let (client_id, name) = optional(self.identity.get_one::<Client>(id).await)?
            .map_or_else(|| (id.to_string(), id.to_string()), |client| (client.value.client_id, client.value.name));
        self.clients.insert(id, (client_id.clone(), name.clone()));
        Ok((client_id, named(&name)))
    }

    /// A user with id and address.
    pub(crate) async fn named_user(&mut self, id: UserId) -> Result<Named, Problem> {
        Ok(Named { kind: "user".to_owned(), id: Some(id.to_string()), name: self.user_name(id).await? })
    }

    /// Who made something, if it is known.
    pub(crate) async fn author(&mut self, id: Option<UserId>) -> Result<Option<Named>, Problem> {
        match id {
            Some(id) => self.named_user(id).await.map(Some),
            None => Ok(None),
        }
    }

    /// An owner as a person writes it, and with id and name.
    pub(crate) async fn owner_view(&mut self, owner: Owner) -> Result<(ScopeRef, Named), Problem> {
        Ok(match owner {
            Owner::Organization => (
                ScopeRef::Organization,
                Named { kind: "organization".to_owned(), id: None, name: "organization".to_owned() },
            ),
            Owner::User(id) => {
                let named = self.named_user(id).await?;
                (ScopeRef::User(named.name.clone()), named)
            }
            Owner::Team(id) => {
                let name = self.team_name(id).await?;
                (ScopeRef::Team(name.clone()), Named { kind: "team".to_owned(), id: Some(id.to_string()), name })
            }
        })
    }

    /// A scope as a person writes it, and everybody in it with id and name.
    pub(crate) async fn scope_view(&mut self, scope: &Scope) -> Result<(ScopeRef, Vec<Named>), Problem> {
        let owners: Vec<Owner> = match scope {
            Scope::Organization => vec![Owner::Organization],
            Scope::User(id) => vec![Owner::User(*id)],
            Scope::Teams(teams) => teams.iter().map(|team| Owner::Team(*team)).collect(),
        };
        let mut named = Vec::new();
        let mut refs = Vec::new();
        for owner in owners {
            let (scope, owner) = self.owner_view(owner).await?;
            refs.push(scope);
            named.push(owner);
        }
        let scope = match refs.pop() {
            Some(only) if refs.is_empty() => only,
            _ => ScopeRef::Teams(named.iter().map(|team| team.name.clone()).collect()),
        };
        Ok((scope, named))
    }
}
