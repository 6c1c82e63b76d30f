//! The users and teams of a document, by address and name: planned into one commit, and the one that takes it back.

use super::{
    super::{Problem, access::require, caller::Who, users::may_grant},
    ApplyAction, TeamItem, UserItem,
    plan::{Planner, line},
    undo::{FIRST, written_over},
};
use archestra_core::{
    Validate,
    feed::Versioned,
    id::{TeamId, UserId},
    identity::{Action, IdentityLookup, IdentityStoreExt as _, Resource as On, RoleName, Team, User},
    installation::Owner,
    secret::Expect,
};
use chrono::Utc;
use std::collections::BTreeSet;

pub(super) async fn users(planner: &mut Planner<'_>, items: Vec<UserItem>) -> Result<(), Problem> {
    for (n, item) in items.into_iter().enumerate() {
        let outcome = user(planner, item).await;
        planner.note(&format!("users[{n}]"), outcome)?;
    }
    Ok(())
}

async fn user(planner: &mut Planner<'_>, item: UserItem) -> Result<(), Problem> {
    let email = item.email.to_lowercase();
    let Some(before) = planner.state.identity.find_one::<User>(IdentityLookup::UserByEmail(email.clone())).await?
    else {
        require(planner.who, On::User, Action::Create, "creating a user")?;
        let role = RoleName(item.role.unwrap_or_else(|| RoleName::MEMBER.to_owned()));
        may_grant(planner.state.identity.as_ref(), planner.who, &role, "role").await?;
        let user = User {
            id: UserId::new(),
            email,
            name: item.name,
            role,
            apply_set: planner.plan.set.clone(),
            created_at: Utc::now(),
        };
        user.validate()?;
        planner.world.users.insert(user.email.clone(), user.id);
        let people = &mut planner.plan.people;
        people.lines.push(line("user", &user.email, ApplyAction::Create));
        people.undo.push_delete(user.id, Expect::Version(FIRST));
        people.changes.push_put(user, Expect::Absent);
        return Ok(());
    };
    let role = item.role.map_or_else(|| before.value.role.clone(), RoleName);
    let after = User { name: item.name.or_else(|| before.value.name.clone()), role, ..before.value.clone() };
    if after == before.value {
        planner.plan.people.lines.push(line("user", &email, ApplyAction::Unchanged));
        return Ok(());
    }
    may_update(planner, planner.who, &before, &after).await?;
    let expect = before.expect();
    let people = &mut planner.plan.people;
    people.lines.push(line("user", &email, ApplyAction::Update));
    people.undo.push_put(before.value, written_over(before.version));
    people.changes.push_put(after, expect);
    Ok(())
}

async fn may_update(planner: &Planner<'_>, who: &Who, before: &Versioned<User>, after: &User) -> Result<(), Problem> {
    require(who, On::User, Action::Update, "changing a user")?;
    if before.value.role != after.role && who.user() == Some(after.id) {
        return Err(Problem::finding("role", "you cannot change your own role", "ask another admin"));
    }
    for role in [&before.value.role, &after.role] {
        may_grant(planner.state.identity.as_ref(), who, role, "role").await?;
    }
    Ok(())
}

pub(super) async fn teams(planner: &mut Planner<'_>, items: Vec<TeamItem>) -> Result<(), Problem> {
    for (n, item) in items.into_iter().enumerate() {
        let outcome = team(planner, item).await;
        planner.note(&format!("teams[{n}]"), outcome)?;
    }
    Ok(())
}

async fn team(planner: &mut Planner<'_>, item: TeamItem) -> Result<(), Problem> {
    let mut members = None;
    if let Some(names) = &item.members {
        let mut ids = BTreeSet::new();
        for (n, member) in names.iter().enumerate() {
            ids.insert(planner.world.user(planner.who, &format!("members[{n}]"), member).await?);
        }
        // Who goes is taken out of every team, which is not what the document says.
        planner.afterwards.comes(None, format!("team {}", item.name), ids.iter().copied().map(Owner::User));
        members = Some(ids);
    }
    let Some(before) = planner.state.identity.find_one::<Team>(IdentityLookup::TeamNamed(item.name.clone())).await?
    else {
        require(planner.who, On::Team, Action::Create, "creating a team")?;
        if item.name.parse::<TeamId>().is_ok() {
            return Err(Problem::finding("name", "a team of a document is not named by id", "use its name"));
        }
        let team = Team {
            id: TeamId::new(),
            name: item.name,
            priority: item.priority.unwrap_or_default(),
            members: members.unwrap_or_default(),
            apply_set: planner.plan.set.clone(),
            created_at: Utc::now(),
        };
        team.validate()?;
        planner.world.teams.insert(team.name.clone(), team.id);
        let people = &mut planner.plan.people;
        people.lines.push(line("team", &team.name, ApplyAction::Create));
        people.undo.push_delete(team.id, Expect::Version(FIRST));
        people.changes.push_put(team, Expect::Absent);
        return Ok(());
    };
    let mut after = before.value.clone();
    after.priority = item.priority.unwrap_or(after.priority);
    after.members = members.unwrap_or(after.members);
    if after == before.value {
        planner.plan.people.lines.push(line("team", &after.name, ApplyAction::Unchanged));
        return Ok(());
    }
    require(planner.who, On::Team, Action::Update, "changing a team")?;
    let expect = before.expect();
    let people = &mut planner.plan.people;
    people.lines.push(line("team", &after.name, ApplyAction::Update));
    people.undo.push_put(before.value, written_over(before.version));
    people.changes.push_put(after, expect);
    Ok(())
}
