//! The entries and installations of a document: checked, and compared with what is stored.

use super::{
    super::{
        Problem,
        access::{default_owner, may_change, require, scope_of, sees},
        entries::draft,
        hosting::{may_host, may_name},
        named,
    },
    ApplyAction, EntryItem, InstallationItem,
    plan::{Planner, Step},
    world::EntryFound,
};
use crate::lifecycle::{EntryDraft, Preview};
use archestra_core::{
    Error, Finding,
    catalog::{CredentialModel, EntrySpec, Scope},
    identity::{Action, Resource as On},
    installation::{Installation, Owner, check_values},
    secret::{SecretBundle, SecretValue},
};
use std::collections::{BTreeMap, BTreeSet};

pub(super) async fn entries(planner: &mut Planner<'_>, items: Vec<EntryItem>) -> Result<(), Problem> {
    for (n, item) in items.into_iter().enumerate() {
        let outcome = entry(planner, item).await;
        planner.note(&format!("entries[{n}]"), outcome)?;
    }
    Ok(())
}

async fn entry(planner: &mut Planner<'_>, item: EntryItem) -> Result<(), Problem> {
    let name = item.spec.name.clone();
    let before = planner.world.directory.find_entry(&name).await?.filter(|found| found.value.spec.name == name);
    // What else names this entry is checked even when something is wrong with the entry itself.
    planner.specs.insert(name.clone(), item.spec.clone());
    match &before {
        Some(before) => {
            planner.kept_entries.insert(before.value.id);
        }
        None => {
            planner.world.entries.insert(name.clone());
        }
    }
    let scope = match (&item.scope, &before) {
        (Some(scope), _) => planner.world.scope(planner.who, scope).await?,
        (None, Some(before)) if sees(planner.who, On::Entry, &before.value.scope) => before.value.scope.clone(),
        (None, _) => Scope::Organization,
    };
    let draft = draft(planner.who, item.spec, scope);
    // The comparison knows secret values: what it finds is only for those who could write them.
    let seen = before.as_ref().filter(|before| sees(planner.who, On::Entry, &before.value.scope));
    if let Some(before) = seen {
        may_change(planner.who, On::Entry, Action::Update, &before.value.scope, "changing this entry")?;
    }
    let action = if seen.is_some() { Action::Update } else { Action::Create };
    may_change(planner.who, On::Entry, action, &draft.scope, "saving an entry with this scope")?;
    may_host(planner.state, planner.who, &draft.spec)?;
    may_name(planner.state, planner.who, &draft.spec, seen.map(|before| &before.value.spec)).await?;
    if before.is_some() && seen.is_none() {
        return Err(Error::already_exists("entry", &name).into());
    }
    let id = before.as_ref().map(|before| before.value.id);
    if planner.state.lifecycle.preview_entry(id, draft.clone()).await? == Preview::Unchanged {
        planner.line("entry", &name, ApplyAction::Unchanged, None);
        return Ok(());
    }
    planner.afterwards.comes(id.map(Into::into), named::entry(&name), named::of_scope(&draft.scope));
    let set = if before.is_none() { planner.plan.set.clone() } else { None };
    let step =
        Step::SaveEntry { before: before.map(Box::new), draft: Box::new(EntryDraft { apply_set: set, ..draft }) };
    let action = if action == Action::Create { ApplyAction::Create } else { ApplyAction::Update };
    planner.line("entry", &name, action, Some(step));
    Ok(())
}

pub(super) async fn installations(planner: &mut Planner<'_>, items: Vec<InstallationItem>) -> Result<(), Problem> {
    for (n, item) in items.into_iter().enumerate() {
        let outcome = installation(planner, item).await;
        planner.note(&format!("installations[{n}]"), outcome)?;
    }
    Ok(())
}

async fn installation(planner: &mut Planner<'_>, item: InstallationItem) -> Result<(), Problem> {
    let (who, world) = (planner.who, &planner.world);
    let owner = match &item.scope {
        Some(scope) => world.owner(who, scope).await?,
        None => default_owner(who).ok_or_else(|| {
            Problem::finding("scope", "whose installation it is to be is not said, and no user asks", "add `scope`")
        })?,
    };
    let found = world.entry(who, &item.entry).await?;
    let name = found.name().to_owned();
    let place = match &item.scope {
        Some(scope) => format!("{name} for {scope}"),
        None => format!("{name} for {}", who.name),
    };
    if !planner.installed.insert((name.clone(), owner)) {
        return Err(Problem::finding("", format!("the installation of {place} is in the document twice"), "keep one"));
    }
    let (spec, present) = match &found {
        EntryFound::Planned(name) => (planner.specs.get(name).cloned(), None),
        EntryFound::Stored(entry) => {
            let spec = planner.specs.get(&name).unwrap_or(&entry.value.spec).clone();
            (Some(spec), planner.world.directory.installation_of(entry.value.id, owner).await?)
        }
    };
    let spec = spec.ok_or_else(|| Problem::internal("a planned entry has no specification"))?;
    let given = InstallationItem::values(item.values);
    installable(planner, &spec)?;
    // The comparison knows secret values: what it finds is only for those who could write them.
    let scope = scope_of(owner);
    let seen = present.filter(|_| sees(who, On::Installation, &scope));
    let Some(present) = seen else {
        require(who, On::Installation, Action::Create, "installing an entry")?;
        may_change(who, On::Installation, Action::Create, &scope, "installing an entry for this owner")?;
        check_values(&spec, given.clone(), &BTreeSet::new()).map_err(Problem::invalid)?;
        planner.world.installations.insert((name.clone(), owner));
        planner.afterwards.comes(None, named::installation(&name), [owner]);
        let step = Step::Install { entry: name, owner, values: given, author: who.author() };
        planner.line("installation", &place, ApplyAction::Create, Some(step));
        return Ok(());
    };
    may_change(who, On::Installation, Action::Update, &scope, "changing this installation")?;
    let bundle = match &present.value.secrets {
        Some(reference) => planner.state.secrets.written(reference).await?.bundle,
        None => SecretBundle::new(),
    };
    if !differs(&spec, &present.value, &bundle, &given)? {
        planner.line("installation", &place, ApplyAction::Unchanged, None);
        return Ok(());
    }
    let step = Step::Reinstall { before: Box::new(present.value), values: given };
    planner.line("installation", &place, ApplyAction::Update, Some(step));
    Ok(())
}

/// Whether the values of a document are others than those that an installation has.
fn differs(
    spec: &EntrySpec,
    present: &Installation,
    bundle: &SecretBundle,
    given: &BTreeMap<String, SecretValue>,
) -> Result<bool, Problem> {
    let mut all = given.clone();
    for (name, value) in &present.values {
        all.entry(name.clone()).or_insert_with(|| SecretValue::new(value.clone()));
    }
    let fields: BTreeSet<String> =
        archestra_core::installation::install_fields(spec).into_iter().map(|field| field.name).collect();
    all.retain(|name, _| given.contains_key(name) || fields.contains(name));
    let checked = check_values(spec, all, &present.secret_fields).map_err(Problem::invalid)?;
    let plain =
        checked.plain.iter().any(|(name, value)| given.contains_key(name) && present.values.get(name) != Some(value));
    let secret = checked.secret.iter().any(|(name, value)| !value.is_blank() && bundle.get(name) != Some(value));
    Ok(plain || secret || present.reinstall_required.is_some())
}

/// What installing would refuse, before there is an entry to install.
fn installable(planner: &Planner<'_>, spec: &EntrySpec) -> Result<(), Problem> {
    if !matches!(spec.credential, CredentialModel::None | CredentialModel::Static(_)) {
        let operation = "install entries with OAuth, client credentials, enterprise or JWT passthrough credentials";
        return Err(Error::Unsupported { backend: "gateway", operation }.into());
    }
    if spec.self_hosted.is_some() && planner.state.runtime.is_none() {
        let finding =
            Finding::new("entry", "this platform runs no servers", "start it with a runtime, or use a remote server");
        return Err(Problem::invalid(vec![finding]));
    }
    Ok(())
}

/// What a person calls an installation.
pub(super) fn describe(entry: &str, owner: Owner) -> String {
    format!("{entry} for {owner}")
}
