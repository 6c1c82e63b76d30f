//! Taking back what a plan did before one of its steps failed, the last first.

use super::super::{AdminState, Problem, consumers::user_teams};
use crate::lifecycle::{Cascade, ConsumerDraft, EntryDraft};
use archestra_core::{
    Result as CoreResult,
    catalog::{CatalogChanges, CatalogStoreExt as _, CredentialModel, Entry, EntrySpec, FixedValue, PullSecret, Query},
    consumer::{Consumer, ToolSelector},
    feed::{Expect as FeedExpect, Version, Versioned},
    id::{ConsumerId, EntryId, InstallationId, PolicyId},
    identity::IdentityChanges,
    installation::{Installation, install_fields},
    policy::Policy,
    secret::{Expect, SecretBundle, SecretValue},
};
use std::collections::{BTreeMap, BTreeSet};

/// The version of what was made and not written since.
pub(super) const FIRST: Version = Version(1);

type Values = BTreeMap<String, SecretValue>;

/// What was done, in order.
#[derive(Debug, Default)]
pub(super) struct Undo {
    done: Vec<Done>,
}

#[derive(Debug)]
enum Done {
    People(IdentityChanges),
    EntryMade(EntryId, FeedExpect),
    EntryWas(Box<Entry>, SecretBundle, FeedExpect),
    Installed(InstallationId),
    Reinstalled(Box<Installation>, Values),
    Removed(Box<Installation>, Values),
    ConsumerMade(ConsumerId, FeedExpect),
    ConsumerWas(Box<Consumer>, FeedExpect),
    PolicyMade(PolicyId),
    PolicyWas(Box<Policy>, FeedExpect),
}

impl Undo {
    pub(super) fn people(&mut self, undo: IdentityChanges) {
        self.done.push(Done::People(undo));
    }

    pub(super) fn entry_made(&mut self, made: &Versioned<Entry>) {
        self.done.push(Done::EntryMade(made.value.id, made.expect()));
    }

    /// `saved` is what the change left: what somebody has written over it since is not undone.
    pub(super) fn entry_changed(&mut self, before: Entry, bundle: SecretBundle, saved: FeedExpect) {
        self.done.push(Done::EntryWas(Box::new(before), bundle, saved));
    }

    /// `naming` are the consumers that named it, as they were before.
    pub(super) fn entry_deleted(&mut self, before: Entry, bundle: SecretBundle, naming: Vec<Versioned<Consumer>>) {
        self.consumers_followed(naming);
        self.done.push(Done::EntryWas(Box::new(before), bundle, Expect::Absent));
    }

    pub(super) fn installed(&mut self, id: InstallationId) {
        self.done.push(Done::Installed(id));
    }

    pub(super) fn reinstalled(&mut self, before: Installation, values: Values) {
        self.done.push(Done::Reinstalled(Box::new(before), values));
    }

    /// `naming` are the consumers that pinned it, as they were before.
    pub(super) fn removed(&mut self, before: Installation, values: Values, naming: Vec<Versioned<Consumer>>) {
        self.consumers_followed(naming);
        self.done.push(Done::Removed(Box::new(before), values));
    }

    pub(super) fn consumer_made(&mut self, made: &Versioned<Consumer>) {
        self.done.push(Done::ConsumerMade(made.value.id, made.expect()));
    }

    /// `saved` is what the change left: what somebody has written over it since is not undone.
    pub(super) fn consumer_changed(&mut self, before: Consumer, saved: FeedExpect) {
        self.done.push(Done::ConsumerWas(Box::new(before), saved));
    }

    pub(super) fn consumer_deleted(&mut self, before: Consumer) {
        self.done.push(Done::ConsumerWas(Box::new(before), Expect::Absent));
    }

    pub(super) fn policy_made(&mut self, id: PolicyId) {
        self.done.push(Done::PolicyMade(id));
    }

    /// `left` is what is there now: what somebody has written over it since is not undone.
    pub(super) fn policy_was(&mut self, before: Policy, left: FeedExpect) {
        self.done.push(Done::PolicyWas(Box::new(before), left));
    }

    /// An installation or entry that goes takes what names it out of consumers: they get it back once it is there again, and
    /// are at other versions than those that we have written.
    fn consumers_followed(&mut self, naming: Vec<Versioned<Consumer>>) {
        for done in &mut self.done {
            if let Done::ConsumerMade(id, expect) = done
                && naming.iter().any(|named| named.value.id == *id)
            {
                *expect = Expect::Any;
            }
            if let Done::ConsumerWas(before, expect) = done
                && naming.iter().any(|named| named.value.id == before.id)
            {
                *expect = Expect::Any;
            }
        }
        // Undone after what they name, since that is done after them.
        let were = |named: Versioned<Consumer>| Done::ConsumerWas(Box::new(named.value), written_over(named.version));
        self.done.extend(naming.into_iter().map(were));
    }

    /// Takes everything back, and says what could not be.
    pub(super) async fn all(mut self, state: &AdminState) -> Vec<String> {
        let mut left = Vec::new();
        while let Some(done) = self.done.pop() {
            let what = done.name();
            if let Err(problem) = one(state, done).await {
                tracing::error!(what, %problem, "an apply could not be undone whole");
                left.push(format!("{what}: {problem}"));
            }
        }
        left.reverse();
        left
    }
}

async fn one(state: &AdminState, done: Done) -> Result<(), Problem> {
    let lifecycle = &state.lifecycle;
    match done {
        Done::People(changes) => state.identity.commit(changes).await.map(drop)?,
        Done::EntryMade(id, expect) => lifecycle.delete_entry(id, expect, Cascade::Installations).await?,
        Done::EntryWas(entry, bundle, expect) => {
            let (id, mut spec, given_yaml) = (entry.id, entry.spec, entry.given_yaml);
            fill(&mut spec, &bundle);
            let draft = EntryDraft {
                spec,
                scope: entry.scope,
                author: entry.author,
                apply_set: entry.apply_set,
                saved_by_admin: entry.saved_by_admin,
            };
            lifecycle.restore_entry(id, draft, given_yaml, expect).await.map(drop)?;
        }
        Done::Installed(id) => lifecycle.remove(id).await?,
        Done::Reinstalled(before, values) => lifecycle.reinstall(before.id, values, before.author).await.map(drop)?,
        Done::Removed(before, values) => {
            lifecycle.restore(*before, values).await.map(drop)?;
        }
        Done::ConsumerMade(id, expect) => lifecycle.delete_consumer(id, expect).await?,
        Done::ConsumerWas(before, expect) => restore_consumer(state, *before, expect).await?,
        Done::PolicyMade(id) => {
            state.catalog.commit(CatalogChanges::new().delete(id, Expect::Version(FIRST))).await.map(drop)?
        }
        Done::PolicyWas(before, expect) => {
            state.catalog.commit(CatalogChanges::new().put(*before, expect)).await.map(drop)?
        }
    }
    Ok(())
}

async fn restore_consumer(state: &AdminState, before: Consumer, expect: FeedExpect) -> Result<(), Problem> {
    let user_teams = user_teams(state, &before.scope).await?;
    let draft = ConsumerDraft {
        kind: before.kind,
        spec: before.spec,
        scope: before.scope,
        tools: before.tools,
        identity_provider: before.identity_provider,
        author: before.author,
        apply_set: before.apply_set,
        user_teams,
    };
    Ok(state.lifecycle.save_consumer(Some(before.id), draft, expect).await.map(drop)?)
}

impl Done {
    const fn name(&self) -> &'static str {
        match self {
            Self::People(_) => "users and teams",
            Self::EntryMade(..) => "a new entry",
            Self::EntryWas(..) => "an entry",
            Self::Installed(_) => "a new installation",
            Self::Reinstalled(..) | Self::Removed(..) => "an installation",
            Self::ConsumerMade(..) => "a new gateway or agent",
            Self::ConsumerWas(..) => "a gateway or agent",
            Self::PolicyMade(_) => "a new policy",
            Self::PolicyWas(..) => "a policy",
        }
    }
}

/// What is there once `before` was written over, and nothing since.
pub(super) const fn written_over(before: Version) -> FeedExpect {
    Expect::Version(Version(before.0 + 1))
}

/// The consumers with a selector like this.
pub(super) async fn consumers_naming(
    state: &AdminState,
    like: impl Fn(&ToolSelector) -> bool + Send,
) -> CoreResult<Vec<Versioned<Consumer>>> {
    let mut all = state.catalog.list_all::<Consumer>(Query::Consumers { kind: None }).await?;
    all.retain(|consumer| consumer.value.tools.iter().any(&like));
    Ok(all)
}

/// The fixed secrets of an entry.
pub(super) async fn entry_bundle(state: &AdminState, entry: &Entry) -> CoreResult<SecretBundle> {
    match &entry.secrets {
        Some(reference) => Ok(state.secrets.written(reference).await?.bundle),
        None => Ok(SecretBundle::new()),
    }
}

/// All values of an installation, to make it again or to give them back.
pub(super) async fn installation_values(state: &AdminState, installation: &Installation) -> CoreResult<Values> {
    let mut values: Values =
        installation.values.iter().map(|(name, value)| (name.clone(), SecretValue::new(value.clone()))).collect();
    if let Some(reference) = &installation.secrets {
        let bundle = state.secrets.written(reference).await?.bundle;
        values.extend(
            bundle
                .iter()
                .filter(|(name, _)| installation.secret_fields.contains(*name))
                .map(|(name, value)| (name.to_owned(), value.clone())),
        );
    }
    Ok(values)
}

/// What installations lose when their entry no longer asks for it, to give it back.
pub(super) async fn dropped_values(
    state: &AdminState,
    before: &Entry,
    after: &EntrySpec,
) -> CoreResult<Vec<(Installation, Values)>> {
    let names = |spec| -> BTreeSet<String> { install_fields(spec).into_iter().map(|field| field.name).collect() };
    let asked = names(after);
    let dropped: BTreeSet<String> = names(&before.spec).into_iter().filter(|name| !asked.contains(name)).collect();
    let mut found = Vec::new();
    if dropped.is_empty() {
        return Ok(found);
    }
    let query = Query::Installations { entry: Some(before.id), owner: None };
    for installation in state.catalog.list_all::<Installation>(query).await? {
        let mut values = installation_values(state, &installation.value).await?;
        values.retain(|name, _| dropped.contains(name));
        if !values.is_empty() {
            found.push((installation.value, values));
        }
    }
    Ok(found)
}

/// Puts the secrets of a bundle back into a specification: the reverse of taking them out.
fn fill(spec: &mut EntrySpec, bundle: &SecretBundle) {
    let put = |key: &str, value: &mut Option<FixedValue>| {
        if matches!(value, Some(FixedValue::Stored))
            && let Some(secret) = bundle.get(key)
        {
            *value = Some(FixedValue::Secret(secret.clone()));
        }
    };
    match &mut spec.credential {
        CredentialModel::Static(fields) => {
            fields.iter_mut().for_each(|field| put(&format!("field.{}", field.name), &mut field.value))
        }
        CredentialModel::OAuth(config) => put("oauth.clientSecret", &mut config.client_secret),
        CredentialModel::ClientCredentials(config) => put("clientCredentials.clientSecret", &mut config.client_secret),
        CredentialModel::Enterprise(config) => {
            if let Some(client) = &mut config.resource_client {
                put("enterprise.resourceClient.clientSecret", &mut client.client_secret);
            }
        }
        _ => {}
    }
    if let Some(hosted) = &mut spec.self_hosted {
        hosted.env.iter_mut().for_each(|var| put(&format!("env.{}", var.name), &mut var.value));
        for pull in &mut hosted.image_pull_secrets {
            let key = pull.password_key();
            if let (Some(key), PullSecret::Credentials { password, .. }) = (key, pull) {
                put(&key, password);
            }
        }
    }
}
