//! `CatalogStore` on SQL: what is asked for, as conditions.

mod rows;

use super::{SqlStore, commit, family::Family as _, feed, read};
use archestra_core::{
    Result,
    catalog::{CatalogChanges, CatalogStore, Kind, Labels, Lookup, Query, Record, RecordKey},
    feed::{FeedEvent, Page, PageRequest, Readable, StoreRevision, Versioned},
};
use async_trait::async_trait;
use futures::stream::BoxStream;
use rows::{Catalog, consumer_kind, owner};
use sea_orm::sea_query::{self, Condition, Expr, ExprTrait as _, LikeExpr};
use std::collections::BTreeMap;

/// Nothing that is searched holds a longer text, and databases refuse patterns that are much longer.
const LONGEST_SEARCH: usize = 10_000;

#[async_trait]
impl CatalogStore for SqlStore {
    async fn get(&self, key: RecordKey) -> Result<Versioned<Record>> {
        self.db().within("reading a record", read::get::<Catalog>(self.db(), key)).await
    }

    async fn get_many(&self, keys: &[RecordKey]) -> Result<Vec<Option<Versioned<Record>>>> {
        self.db().within("reading records", read::get_many::<Catalog>(self.db(), keys)).await
    }

    async fn get_each(&self, keys: &[RecordKey]) -> Result<Vec<Option<Readable<Record, RecordKey>>>> {
        self.db().within("reading records", read::get_each::<Catalog>(self.db(), keys)).await
    }

    async fn find(&self, lookup: &Lookup) -> Result<Option<Versioned<Record>>> {
        let (kind, filter) = named(lookup);
        self.db().within("looking a record up", read::find::<Catalog>(self.db(), rows::table(kind), filter)).await
    }

    async fn list(&self, query: &Query, page: &PageRequest) -> Result<Page<Versioned<Record>>> {
        let table = rows::table(query.kind());
        self.db().within("listing records", read::list::<Catalog>(self.db(), table, matching(query), page)).await
    }

    async fn list_each(&self, query: &Query, page: &PageRequest) -> Result<Page<Readable<Record, RecordKey>>> {
        let table = rows::table(query.kind());
        self.db().within("listing records", read::list_each::<Catalog>(self.db(), table, matching(query), page)).await
    }

    async fn commit(&self, changes: CatalogChanges) -> Result<StoreRevision> {
        self.db().within("committing a change", Box::pin(commit::commit::<Catalog>(self, changes))).await
    }

    fn changes(&self, since: Option<StoreRevision>) -> BoxStream<'static, Result<FeedEvent<RecordKey>>> {
        self.inner.feed.follow(Catalog::STORE, Catalog::key, since)
    }

    async fn check(&self) -> Result<()> {
        self.db().within("checking the database", async { feed::head(&self.db().reader).await.map(|_| ()) }).await
    }
}

/// How a page is read.
#[cfg(test)]
pub(super) fn page_of(query: &Query, after: Option<uuid::Uuid>) -> sea_query::SelectStatement {
    read::page_of(rows::table(query.kind()), matching(query), after, 100)
}

fn named(lookup: &Lookup) -> (Kind, Condition) {
    match lookup {
        Lookup::EntryNamed(name) => (Kind::Entry, is("name", name.as_str())),
        Lookup::InstallationOf(entry, holder) => {
            let (kind, id) = owner(holder);
            (
                Kind::Installation,
                is("entry", *entry.as_uuid()).add(Expr::col("owner_kind").eq(kind)).add(Expr::col("owner_id").eq(id)),
            )
        }
        Lookup::ToolNamed(entry, name) => {
            (Kind::Tool, is("entry", *entry.as_uuid()).add(Expr::col("name").eq(name.as_str())))
        }
        Lookup::ConsumerAt(slug) => (Kind::Consumer, is("slug", slug.as_str())),
    }
}

fn matching(query: &Query) -> Condition {
    let all = Condition::all();
    match query {
        Query::Entries { search, labels } => {
            all.add_option(search.as_deref().map(contains)).add_option(labels.as_ref().map(labelled))
        }
        Query::Installations { entry, owner: holder } => {
            let holder =
                holder.as_ref().map(owner).map(|(kind, id)| is("owner_kind", kind).add(Expr::col("owner_id").eq(id)));
            all.add_option(entry.map(|id| is("entry", *id.as_uuid()))).add_option(holder)
        }
        Query::Tools { entry } => all.add_option(entry.map(|id| is("entry", *id.as_uuid()))),
        Query::Consumers { kind } => all.add_option(kind.map(|kind| is("kind", consumer_kind(kind)))),
        Query::Assignments { consumer, entry, installation } => all
            .add_option(consumer.map(|id| is("consumer", *id.as_uuid())))
            .add_option(entry.map(|id| is("entry", *id.as_uuid())))
            .add_option(installation.map(|id| is("installation", *id.as_uuid()))),
        Query::Revisions { workload } => {
            all.add_option(workload.as_ref().map(|workload| is("workload", workload.as_str())))
        }
        Query::Policies | Query::Limits => all,
    }
}

/// A condition that a column has this value.
pub(super) fn is(column: &'static str, value: impl Into<sea_query::Value>) -> Condition {
    Condition::all().add(Expr::col(column).eq(Expr::val(value)))
}

/// A condition that the column `search`, which is in lower case, holds this text.
pub(super) fn contains(text: &str) -> Expr {
    if text.len() > LONGEST_SEARCH {
        return never();
    }
    let mut pattern = String::from("%");
    for c in text.to_lowercase().chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    Expr::col("search").like(LikeExpr::new(pattern).escape('\\'))
}

/// A condition that never holds.
fn never() -> Expr {
    Expr::val(1).eq(0)
}

/// A condition that an entry has at least one of these labels.
fn labelled(labels: &Labels) -> Expr {
    if labels.is_empty() {
        return never();
    }
    let mut by_key: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (key, value) in labels.iter() {
        by_key.entry(key).or_default().push(value);
    }
    let any = by_key.into_iter().fold(Condition::any(), |any, (key, values)| {
        any.add(is("label_key", key).add(Expr::col("label_value").is_in(values)))
    });
    let entries = sea_query::Query::select().column("entry").from("entry_labels").cond_where(any).take();
    Expr::col("id").in_subquery(entries)
}
