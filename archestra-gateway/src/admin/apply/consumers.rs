//! The gateways, agents and policies of a document: checked, and compared with what is stored.

use super::{
    super::{
        Problem,
        access::{default_owner, may_change, may_pin, require, scope_of},
        consumers::{draft, label, resource},
        named, policies,
        refs::{CallerRef, CredentialRef, InstallationRef},
    },
    ApplyAction, ConsumerItem, PolicyItem, SelectorItem,
    plan::{Planner, Step},
    world::EntryFound,
};
use crate::lifecycle::Preview;
use archestra_core::{
    Finding, Validate,
    catalog::{CatalogStoreExt as _, Kind, Query},
    consumer::{ConsumerKind, ToolAssignment},
    feed::Versioned,
    identity::{Action, Resource as On},
    installation::Owner,
    policy::Policy,
};

pub(super) async fn consumers(
    planner: &mut Planner<'_>,
    kind: ConsumerKind,
    items: Vec<ConsumerItem>,
) -> Result<(), Problem> {
    for (n, item) in items.into_iter().enumerate() {
        let outcome = consumer(planner, kind, item).await;
        planner.note(&format!("{}s[{n}]", label(kind)), outcome)?;
    }
    Ok(())
}

async fn consumer(planner: &mut Planner<'_>, kind: ConsumerKind, item: ConsumerItem) -> Result<(), Problem> {
    let (who, state) = (planner.who, planner.state);
    let before = planner.world.directory.find_consumer(&item.slug).await?;
    if let Some(other) = before.as_ref().filter(|before| before.value.kind != kind) {
        let reason = format!("{} is the slug of a {} already", item.slug, label(other.value.kind));
        return Err(Problem::finding("slug", reason, "choose another slug"));
    }
    let scope = match (&item.scope, &before) {
        (Some(scope), _) => planner.world.scope(who, scope).await?,
        (None, Some(before)) => before.value.scope.clone(),
        (None, None) => default_owner(who).map(scope_of).ok_or_else(|| {
            Problem::finding("scope", "whose this is to be is not said, and no user asks", "add `scope`")
        })?,
    };
    let asked = if before.is_some() { Action::Update } else { Action::Create };
    if let Some(before) = &before {
        may_change(who, resource(kind), asked, &before.value.scope, &format!("changing this {}", label(kind)))?;
    }
    may_change(who, resource(kind), asked, &scope, &format!("saving a {} with this scope", label(kind)))?;
    let ahead = ahead(planner, &item).await?;
    let action = if ahead {
        check_ahead(planner, &item).await?;
        if before.is_some() { ApplyAction::Update } else { ApplyAction::Create }
    } else {
        let draft = draft(state, who, kind, item.clone(), before.as_ref().map(|before| &before.value)).await?;
        match state.lifecycle.preview_consumer(before.as_ref().map(|before| before.value.id), draft).await? {
            Preview::Create => ApplyAction::Create,
            Preview::Update => ApplyAction::Update,
            Preview::Unchanged => {
                planner.line(label(kind), &item.slug, ApplyAction::Unchanged, None);
                return Ok(());
            }
        }
    };
    let slug = item.slug.clone();
    let stored = before.as_ref().map(|before| before.value.id.into());
    planner.afterwards.comes(stored, named::consumer(kind, &slug), named::of_scope(&scope));
    let step = Step::SaveConsumer { kind, before: before.map(Box::new), item: Box::new(item) };
    planner.line(label(kind), &slug, action, Some(step));
    Ok(())
}

/// Whether it refers to something that is made only when the document is carried out.
async fn ahead(planner: &Planner<'_>, item: &ConsumerItem) -> Result<bool, Problem> {
    if item.scope.as_ref().is_some_and(|scope| planner.world.is_planned(scope)) {
        return Ok(true);
    }
    for (n, selector) in item.tools.iter().flatten().enumerate() {
        if pin_ahead(planner, selector).await.map_err(|problem| problem.under(&format!("tools[{n}]")))? {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn pin_ahead(planner: &Planner<'_>, selector: &SelectorItem) -> Result<bool, Problem> {
    let entry = planner.world.entry(planner.who, &selector.entry).await?;
    if matches!(entry, EntryFound::Planned(_)) {
        return Ok(true);
    }
    let CredentialRef::Installation(InstallationRef::Of(scope)) = &selector.credential else { return Ok(false) };
    if planner.world.is_planned(scope) {
        return Ok(true);
    }
    let owner =
        planner.world.owner(planner.who, scope).await.map_err(|problem| problem.under("credential.installation"))?;
    Ok(planner.world.installations.contains(&(entry.name().to_owned(), owner)))
}

/// Checks what can be checked of a consumer whose tools are still to come.
async fn check_ahead(planner: &Planner<'_>, item: &ConsumerItem) -> Result<(), Problem> {
    let mut findings = item.clone().into_spec().findings();
    if item.tool_assignment == ToolAssignment::Automatic && item.tools.as_ref().is_some_and(|tools| !tools.is_empty()) {
        let remedy = "remove `tools`, or set `toolAssignment: manual`";
        findings.push(Finding::new("tools", "labels decide in automatic mode, so tools cannot be named", remedy));
    }
    for (n, selector) in item.tools.iter().flatten().enumerate() {
        if let Err(problem) = check_selector(planner, selector).await {
            findings.extend(problem.findings().iter().cloned().map(|finding| finding.under(&format!("tools[{n}]"))));
            if problem.findings().is_empty() {
                return Err(problem);
            }
        }
    }
    if findings.is_empty() { Ok(()) } else { Err(Problem::invalid(findings)) }
}

async fn check_selector(planner: &Planner<'_>, selector: &SelectorItem) -> Result<(), Problem> {
    if selector.tool.trim().is_empty() {
        return Err(Problem::finding("tool", "no tool is named", "use the server's name of the tool, or `*` for all"));
    }
    let entry = planner.world.entry(planner.who, &selector.entry).await?;
    let missing = || {
        let reason = format!("{} has no such installation that you may use", entry.name());
        Problem::finding("credential.installation", reason, "add it to `installations`, or use `resolveAtCallTime`")
    };
    let owner = match &selector.credential {
        CredentialRef::ResolveAtCallTime => return Ok(()),
        CredentialRef::Installation(InstallationRef::Id(id)) => {
            let found = planner.world.directory.find_installation(id).await?;
            return match found {
                Some(found) if may_pin(planner.who, found.value.owner) => Ok(()),
                _ => Err(missing()),
            };
        }
        CredentialRef::Installation(InstallationRef::Of(scope)) => {
            planner.world.owner(planner.who, scope).await.map_err(|problem| problem.under("credential.installation"))?
        }
    };
    let planned = planner.world.installations.contains(&(entry.name().to_owned(), owner));
    let stored = match &entry {
        EntryFound::Stored(entry) if !planned => {
            planner.world.directory.installation_of(entry.value.id, owner).await?.is_some()
        }
        _ => false,
    };
    if (planned || stored) && may_pin(planner.who, owner) { Ok(()) } else { Err(missing()) }
}

pub(super) async fn policies(planner: &mut Planner<'_>, items: Vec<PolicyItem>) -> Result<(), Problem> {
    if items.is_empty() {
        return Ok(());
    }
    let stored = planner.state.catalog.list_all::<Policy>(Query::all(Kind::Policy)).await?;
    for (n, item) in items.into_iter().enumerate() {
        let outcome = policy(planner, &stored, item).await;
        planner.note(&format!("policies[{n}]"), outcome)?;
    }
    Ok(())
}

async fn policy(planner: &mut Planner<'_>, stored: &[Versioned<Policy>], item: PolicyItem) -> Result<(), Problem> {
    let mut named = stored.iter().filter(|policy| policy.value.spec.name == item.name);
    let (before, more) = (named.next(), named.next());
    if more.is_some() {
        return Err(Problem::finding(
            "name",
            format!("several policies are called {}", item.name),
            "rename or delete all but one",
        ));
    }
    let world = &planner.world;
    let entry_ahead = item.entry.as_ref().is_some_and(|entry| world.entries.contains(entry));
    let consumer_ahead = item.consumer.as_ref().is_some_and(|slug| {
        planner.plan.steps.iter().any(|planned| {
            planned.line.action == ApplyAction::Create
                && matches!(planned.line.kind.as_str(), "gateway" | "agent")
                && planned.line.name == *slug
        })
    });
    let caller_ahead = item.callers.iter().any(|caller| match caller {
        CallerRef::User(user) => world.users.contains_key(&user.to_lowercase()),
        CallerRef::Team(team) => world.teams.contains_key(team),
        CallerRef::Organization | CallerRef::Clients => false,
    });
    if !(entry_ahead || consumer_ahead || caller_ahead) {
        let spec = policies::resolve(&world.directory, planner.who, item.clone()).await?;
        if before.is_some_and(|before| before.value.spec == spec) {
            planner.line("policy", &item.name, ApplyAction::Unchanged, None);
            return Ok(());
        }
    }
    let (action, asked) =
        if before.is_some() { (ApplyAction::Update, Action::Update) } else { (ApplyAction::Create, Action::Create) };
    require(planner.who, On::Policy, asked, "saving a policy")?;
    let name = item.name.clone();
    let callers = callers(planner, &item.callers).await?;
    planner.afterwards.comes(before.map(|before| before.value.id.into()), named::policy(&name), callers);
    let step = Step::SavePolicy { before: before.cloned().map(Box::new), item: Box::new(item) };
    planner.line("policy", &name, action, Some(step));
    Ok(())
}

/// The teams and users that a rule is about, those included that the document makes.
async fn callers(planner: &Planner<'_>, callers: &[CallerRef]) -> Result<Vec<Owner>, Problem> {
    let (who, world) = (planner.who, &planner.world);
    let mut owners = Vec::new();
    for (n, caller) in callers.iter().enumerate() {
        match caller {
            CallerRef::User(user) => {
                owners.push(Owner::User(world.user(who, &format!("callers[{n}].user"), user).await?));
            }
            CallerRef::Team(team) => {
                owners.push(Owner::Team(world.team(who, &format!("callers[{n}].team"), team).await?));
            }
            CallerRef::Organization | CallerRef::Clients => {}
        }
    }
    Ok(owners)
}
