//! What an earlier apply with the same set made and the document no longer names.

use super::{
    super::{
        Problem,
        access::{may_change, require, scope_of},
        consumers::{label, resource},
        named,
        users::may_grant,
    },
    ApplyAction, ApplyDocument,
    plan::{Planner, Step, line},
    registry::describe,
};
use archestra_core::{
    Finding,
    catalog::{CatalogStoreExt as _, Entry, Kind, Query},
    consumer::Consumer,
    feed::{Expect, Versioned},
    id::InstallationId,
    identity::{Action, IdentityKey, IdentityKind, IdentityQuery, IdentityStoreExt as _, Resource as On, Team, User},
    installation::{Installation, Owner},
    policy::Policy,
};
use std::collections::{BTreeSet, HashSet};

/// What a document names.
#[derive(Debug)]
pub(super) struct Names {
    users: HashSet<String>,
    teams: HashSet<String>,
    entries: HashSet<String>,
    consumers: HashSet<String>,
    policies: HashSet<String>,
}

impl Names {
    pub(super) fn of(document: &ApplyDocument) -> Self {
        Self {
            users: document.users.iter().map(|user| user.email.to_lowercase()).collect(),
            teams: document.teams.iter().map(|team| team.name.clone()).collect(),
            entries: document.entries.iter().map(|entry| entry.spec.name.clone()).collect(),
            consumers: document.gateways.iter().chain(&document.agents).map(|consumer| consumer.slug.clone()).collect(),
            policies: document.policies.iter().map(|policy| policy.name.clone()).collect(),
        }
    }
}

/// Plans what is deleted: consumers and policies first, then installations, entries, teams and users.
pub(super) async fn prune(planner: &mut Planner<'_>, set: &str, names: &Names) -> Result<(), Problem> {
    consumers(planner, set, names).await?;
    policies(planner, set, names).await?;
    let removed = installations(planner, set).await?;
    entries(planner, set, names, &removed).await?;
    let mut leavers = teams(planner, set, names).await?;
    leavers.extend(users(planner, set, names).await?);
    leave(planner, leavers).await
}

fn of_set(present: Option<&String>, set: &str) -> bool {
    present.is_some_and(|present| present == set)
}

async fn consumers(planner: &mut Planner<'_>, set: &str, names: &Names) -> Result<(), Problem> {
    let all = planner.state.catalog.list_all::<Consumer>(Query::all(Kind::Consumer)).await?;
    for consumer in all {
        let Consumer { kind, spec, scope, apply_set, .. } = &consumer.value;
        if !of_set(apply_set.as_ref(), set) || names.consumers.contains(&spec.slug) {
            continue;
        }
        may_change(
            planner.who,
            resource(*kind),
            Action::Delete,
            scope,
            &format!("deleting {} {}", label(*kind), spec.slug),
        )?;
        let (kind, slug) = (label(*kind), spec.slug.clone());
        planner.afterwards.goes(consumer.value.id);
        planner.line(kind, &slug, ApplyAction::Delete, Some(Step::DeleteConsumer(Box::new(consumer))));
    }
    Ok(())
}

async fn policies(planner: &mut Planner<'_>, set: &str, names: &Names) -> Result<(), Problem> {
    let all = planner.state.catalog.list_all::<Policy>(Query::all(Kind::Policy)).await?;
    for policy in all {
        let name = policy.value.spec.name.clone();
        if !of_set(policy.value.apply_set.as_ref(), set) || names.policies.contains(&name) {
            continue;
        }
        require(planner.who, On::Policy, Action::Delete, &format!("deleting policy {name}"))?;
        planner.afterwards.goes(policy.value.id);
        planner.line("policy", &name, ApplyAction::Delete, Some(Step::DeletePolicy(Box::new(policy))));
    }
    Ok(())
}

async fn installations(planner: &mut Planner<'_>, set: &str) -> Result<BTreeSet<InstallationId>, Problem> {
    let mut removed = BTreeSet::new();
    let all = planner.state.catalog.list_all::<Installation>(Query::all(Kind::Installation)).await?;
    for installation in all {
        let owner = installation.value.owner;
        if !of_set(installation.value.apply_set.as_ref(), set) {
            continue;
        }
        let entry = planner.world.directory.entry_name(installation.value.entry).await?;
        if planner.installed.contains(&(entry.clone(), owner)) {
            continue;
        }
        let (scope, _) = planner.world.directory.owner_view(owner).await?;
        let name = format!("{entry} for {scope}");
        may_change(
            planner.who,
            On::Installation,
            Action::Delete,
            &scope_of(owner),
            &format!("removing the installation of {name}"),
        )?;
        removed.insert(installation.value.id);
        planner.afterwards.goes(installation.value.id);
        planner.line(
            "installation",
            &name,
            ApplyAction::Delete,
            Some(Step::DeleteInstallation(Box::new(installation))),
        );
    }
    Ok(removed)
}

async fn entries(
    planner: &mut Planner<'_>,
    set: &str,
    names: &Names,
    removed: &BTreeSet<InstallationId>,
) -> Result<(), Problem> {
    let all = planner.state.catalog.list_all::<Entry>(Query::all(Kind::Entry)).await?;
    for entry in all {
        let name = entry.value.spec.name.clone();
        if !of_set(entry.value.apply_set.as_ref(), set) || names.entries.contains(&name) {
            continue;
        }
        may_change(planner.who, On::Entry, Action::Delete, &entry.value.scope, &format!("deleting entry {name}"))?;
        let query = Query::Installations { entry: Some(entry.value.id), owner: None };
        let left = left(planner, query, removed).await?;
        let planned = planner.installed.iter().any(|(of, _)| *of == name);
        if left.is_some() || planned {
            let place = left.map_or_else(|| name.clone(), |left| describe(&name, left.value.owner));
            let remedy = "remove it first, or keep the entry in the document";
            planner.findings.push(Finding::new(
                "entries",
                format!("entry {name} cannot be deleted: there is an installation of {place}"),
                remedy,
            ));
            continue;
        }
        planner.afterwards.goes(entry.value.id);
        planner.line("entry", &name, ApplyAction::Delete, Some(Step::DeleteEntry(Box::new(entry))));
    }
    Ok(())
}

async fn left(
    planner: &Planner<'_>,
    query: Query,
    removed: &BTreeSet<InstallationId>,
) -> Result<Option<Versioned<Installation>>, Problem> {
    let all = planner.state.catalog.list_all::<Installation>(query).await?;
    Ok(all.into_iter().find(|installation| !removed.contains(&installation.value.id)))
}

/// Somebody whom pruning would delete.
#[derive(Debug)]
struct Leaver {
    owner: Owner,
    kind: &'static str,
    name: String,
    key: IdentityKey,
    expect: Expect,
}

async fn teams(planner: &Planner<'_>, set: &str, names: &Names) -> Result<Vec<Leaver>, Problem> {
    let mut leavers = Vec::new();
    for team in planner.state.identity.list_all::<Team>(IdentityQuery::all(IdentityKind::Team)).await? {
        let expect = team.expect();
        let Team { id, name, apply_set, .. } = team.value;
        if !of_set(apply_set.as_ref(), set) || names.teams.contains(&name) {
            continue;
        }
        require(planner.who, On::Team, Action::Delete, &format!("deleting team {name}"))?;
        leavers.push(Leaver { owner: Owner::Team(id), kind: "team", name, key: id.into(), expect });
    }
    Ok(leavers)
}

async fn users(planner: &mut Planner<'_>, set: &str, names: &Names) -> Result<Vec<Leaver>, Problem> {
    let mut leavers = Vec::new();
    for user in planner.state.identity.list_all::<User>(IdentityQuery::all(IdentityKind::User)).await? {
        let expect = user.expect();
        let User { id, email, role, apply_set, .. } = user.value;
        if !of_set(apply_set.as_ref(), set) || names.users.contains(&email) {
            continue;
        }
        require(planner.who, On::User, Action::Delete, &format!("deleting user {email}"))?;
        may_grant(planner.state.identity.as_ref(), planner.who, &role, "users").await?;
        if planner.who.user() == Some(id) {
            let reason = format!("user {email} is you");
            planner.findings.push(Finding::new("users", reason, "keep the user in the document"));
            continue;
        }
        leavers.push(Leaver { owner: Owner::User(id), kind: "user", name: email, key: id.into(), expect });
    }
    Ok(leavers)
}

/// Plans that those leave whom nothing names once the rest of the plan is carried out.
async fn leave(planner: &mut Planner<'_>, leavers: Vec<Leaver>) -> Result<(), Problem> {
    let owners = leavers.iter().map(|leaver| leaver.owner).collect();
    let mut naming = named::naming(planner.state.catalog.as_ref(), &owners, &planner.afterwards).await?;
    for Leaver { owner, kind, name, key, expect } in leavers {
        if let Some(naming) = naming.remove(&owner) {
            let reason = named::still_named(&format!("{kind} {name}"), naming);
            let remedy = format!("{}, or keep the {kind} in the document", named::REMEDY);
            planner.findings.push(Finding::new(format!("{kind}s"), reason, remedy));
            continue;
        }
        planner.plan.leavers.lines.push(line(kind, &name, ApplyAction::Delete));
        planner.plan.leavers.changes.push_delete(key, expect);
    }
    Ok(())
}
