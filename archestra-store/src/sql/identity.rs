//! `IdentityStore` on SQL: what is asked for, as conditions.

mod cascade;
mod rows;

use super::{
    SqlStore,
    catalog::{contains, is},
    commit,
    family::Family as _,
    feed, read,
};
use archestra_core::{
    Result,
    feed::{FeedEvent, Page, PageRequest, Readable, StoreRevision, Versioned},
    identity::{
        IdentityChanges, IdentityKey, IdentityKind, IdentityLookup, IdentityQuery, IdentityRecord, IdentityStore,
    },
};
use async_trait::async_trait;
use futures::stream::BoxStream;
use rows::{Identity, end, owner};
use sea_orm::sea_query::{Condition, Expr, ExprTrait as _, Query};

#[async_trait]
impl IdentityStore for SqlStore {
    async fn get(&self, key: IdentityKey) -> Result<Versioned<IdentityRecord>> {
        self.db().within("reading a record", read::get::<Identity>(self.db(), key)).await
    }

    async fn find(&self, lookup: &IdentityLookup) -> Result<Option<Versioned<IdentityRecord>>> {
        let (kind, filter) = named(lookup);
        self.db().within("looking a record up", read::find::<Identity>(self.db(), rows::table(kind), filter)).await
    }

    async fn list(&self, query: &IdentityQuery, page: &PageRequest) -> Result<Page<Versioned<IdentityRecord>>> {
        let table = rows::table(query.kind());
        self.db().within("listing records", read::list::<Identity>(self.db(), table, matching(query), page)).await
    }

    async fn list_each(
        &self,
        query: &IdentityQuery,
        page: &PageRequest,
    ) -> Result<Page<Readable<IdentityRecord, IdentityKey>>> {
        let table = rows::table(query.kind());
        self.db().within("listing records", read::list_each::<Identity>(self.db(), table, matching(query), page)).await
    }

    async fn commit(&self, changes: IdentityChanges) -> Result<StoreRevision> {
        self.db().within("committing a change", Box::pin(commit::commit::<Identity>(self, changes))).await
    }

    fn changes(&self, since: Option<StoreRevision>) -> BoxStream<'static, Result<FeedEvent<IdentityKey>>> {
        self.inner.feed.follow(Identity::STORE, Identity::key, since)
    }

    async fn check(&self) -> Result<()> {
        self.db().within("checking the database", async { feed::head(&self.db().reader).await.map(|_| ()) }).await
    }
}

/// How a page is read.
#[cfg(test)]
pub(super) fn page_of(query: &IdentityQuery, after: Option<uuid::Uuid>) -> sea_orm::sea_query::SelectStatement {
    read::page_of(rows::table(query.kind()), matching(query), after, 100)
}

fn named(lookup: &IdentityLookup) -> (IdentityKind, Condition) {
    match lookup {
        IdentityLookup::UserByEmail(email) => (IdentityKind::User, is("email", email.as_str())),
        IdentityLookup::TeamNamed(name) => (IdentityKind::Team, is("name", name.as_str())),
        IdentityLookup::RoleNamed(name) => (IdentityKind::Role, is("name", name.as_str())),
        IdentityLookup::TokenByHash(hash) => (IdentityKind::Token, is("hash", hash.to_string())),
        IdentityLookup::ClientById(id) => (IdentityKind::Client, is("client_id", id.as_str())),
        IdentityLookup::ProviderNamed(name) => (IdentityKind::IdentityProvider, is("name", name.as_str())),
        IdentityLookup::ProviderByIssuer(issuer) => (IdentityKind::IdentityProvider, is("issuer", issuer.as_str())),
        IdentityLookup::GrantByFamily(family) => (IdentityKind::Grant, is("family", family.to_string())),
        IdentityLookup::ConsentOf { user, client, consumer } => (
            IdentityKind::Consent,
            is("user_id", *user.as_uuid())
                .add(is("client", *client.as_uuid()))
                .add(is("consumer", *consumer.as_uuid())),
        ),
        IdentityLookup::IdentityAt { provider, subject } => {
            (IdentityKind::LinkedIdentity, is("provider", *provider.as_uuid()).add(is("subject", subject.as_str())))
        }
    }
}

fn matching(query: &IdentityQuery) -> Condition {
    let all = Condition::all();
    match query {
        IdentityQuery::Users { search } => all.add_option(search.as_deref().map(contains)),
        IdentityQuery::Teams { member } => all.add_option(member.map(|user| {
            let teams =
                Query::select().column("team").from("team_members").cond_where(is("member", *user.as_uuid())).take();
            Expr::col("id").in_subquery(teams)
        })),
        IdentityQuery::Tokens { owner: holder } => {
            let holder = holder.as_ref().map(owner);
            all.add_option(holder.map(|(kind, id)| is("owner_kind", kind).add(Expr::col("owner_id").eq(id))))
        }
        IdentityQuery::AccessTokens { grant, expired } => {
            let mut tokens = Query::select();
            tokens.column("token").from("access_tokens");
            tokens.cond_where(
                Condition::all()
                    .add_option(grant.map(|grant| is("grant_id", *grant.as_uuid())))
                    .add_option(expired.map(|by| Expr::col("expires_at").lte(end(by)))),
            );
            all.add(Expr::col("id").in_subquery(tokens.take()))
        }
        IdentityQuery::Grants { user, client, consumer, expired } => all
            .add_option(user.map(|user| is("user_id", *user.as_uuid())))
            .add_option(client.map(|client| is("client", *client.as_uuid())))
            .add_option(consumer.map(|consumer| is("consumer", *consumer.as_uuid())))
            .add_option(expired.map(|by| Expr::col("expires_at").lte(end(by)))),
        IdentityQuery::Consents { user, client } => all
            .add_option(user.map(|user| is("user_id", *user.as_uuid())))
            .add_option(client.map(|client| is("client", *client.as_uuid()))),
        IdentityQuery::LinkedIdentities { user, provider } => all
            .add_option(user.map(|user| is("user_id", *user.as_uuid())))
            .add_option(provider.map(|provider| is("provider", *provider.as_uuid()))),
        IdentityQuery::Roles | IdentityQuery::Clients | IdentityQuery::Providers => all,
    }
}
