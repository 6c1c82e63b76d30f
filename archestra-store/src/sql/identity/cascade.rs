//! What goes with a user, a team, a client, a provider or a grant.

use super::rows::{CONSENTS, GRANTS, Identity, LINKED_IDENTITIES, TEAMS, TOKENS};
use crate::sql::{
    catalog::is,
    database::{column, rows},
    family::{Cascade, Family as _, IDS, Table},
    read,
};
use archestra_core::{
    Result,
    identity::{IdentityKey, IdentityKind, IdentityRecord},
};
use sea_orm::{
    DatabaseTransaction,
    sea_query::{Condition, Expr, ExprTrait as _, Query},
};
use std::collections::BTreeSet;
use uuid::Uuid;

/// What becomes of others when these are removed. What those take along in turn is asked for in another call.
pub(super) async fn of(tx: &DatabaseTransaction, removed: &BTreeSet<IdentityKey>) -> Result<Vec<Cascade<Identity>>> {
    let of_kind = |kind| removed.iter().filter(|key| key.kind() == kind).map(|key| *key.uuid()).collect::<Vec<_>>();
    let users = of_kind(IdentityKind::User);
    let clients = of_kind(IdentityKind::Client);
    let mut gone = BTreeSet::new();
    for (kind, owners) in [("user", &users), ("team", &of_kind(IdentityKind::Team)), ("client", &clients)] {
        for owners in owners.chunks(IDS) {
            let owners = owners.iter().map(ToString::to_string);
            gone.extend(keys(tx, &TOKENS, is("owner_kind", kind).add(Expr::col("owner_id").is_in(owners))).await?);
        }
    }
    for (table, name, named) in [
        (&GRANTS, "user_id", &users),
        (&GRANTS, "client", &clients),
        (&CONSENTS, "user_id", &users),
        (&CONSENTS, "client", &clients),
        (&LINKED_IDENTITIES, "user_id", &users),
        (&LINKED_IDENTITIES, "provider", &of_kind(IdentityKind::IdentityProvider)),
    ] {
        for named in named.chunks(IDS) {
            gone.extend(keys(tx, table, Expr::col(name).is_in(named.iter().copied()).into()).await?);
        }
    }
    for grants in of_kind(IdentityKind::Grant).chunks(IDS) {
        let of_grants = Expr::col("grant_id").is_in(grants.iter().copied());
        let tokens = Query::select().column("token").from("access_tokens").and_where(of_grants).take();
        gone.extend(keys(tx, &TOKENS, Expr::col("id").in_subquery(tokens).into()).await?);
    }
    let mut entailed: Vec<_> = gone.into_iter().map(Cascade::Remove).collect();
    let mut joined = BTreeSet::new();
    for users in users.chunks(IDS) {
        let members = Expr::col("member").is_in(users.iter().copied());
        let found = Query::select().column("team").from("team_members").and_where(members).take();
        for row in rows(tx, &found).await? {
            joined.insert(column::<Uuid>(&row, "team")?);
        }
    }
    for teams in joined.into_iter().collect::<Vec<_>>().chunks(IDS) {
        let them = Expr::col("id").is_in(teams.iter().copied());
        for team in read::all_in::<Identity, _>(tx, &TEAMS, them.into()).await? {
            if let IdentityRecord::Team(mut team) = team.value {
                team.members.retain(|user| !removed.contains(&(*user).into()));
                entailed.push(Cascade::Change(team.into()));
            }
        }
    }
    Ok(entailed)
}

async fn keys(tx: &DatabaseTransaction, table: &'static Table, filter: Condition) -> Result<Vec<IdentityKey>> {
    let found = Query::select().column("id").from(table.name).cond_where(filter).take();
    let ids = rows(tx, &found).await?.iter().map(|row| column::<Uuid>(row, "id")).collect::<Result<Vec<_>>>()?;
    Ok(ids.into_iter().filter_map(|id| Identity::key(table.label, id)).collect())
}
