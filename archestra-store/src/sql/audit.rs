//! `AuditSink` on SQL: batches in one transaction, pages newest first.

use super::{
    SqlStore,
    catalog::is,
    database::{column, row, rows},
    document,
    error::{db_error, unreadable, unwritable},
    read::bad_cursor,
};
use archestra_core::{
    Error, Result,
    event::{AuditRecord, Outcome},
    feed::{Cursor, MAX_PAGE, Page},
    id::AuditId,
    state::{AuditQuery, AuditSink},
};
use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use sea_orm::{
    ConnectionTrait as _, DbBackend, QueryResult, Statement, Value,
    sea_query::{Condition, Expr, ExprTrait as _, LockBehavior, LockType, OnConflict, Order, Query, SelectStatement},
};
use uuid::Uuid;

const AUDIT: &str = "audit";
const COLUMNS: [&str; 7] = ["id", "at", "action", "actor_id", "consumer", "outcome", "doc"];
/// How many records one statement inserts. Few sizes keep few texts, which the driver has prepared already.
const ROWS: [usize; 3] = [100, 10, 1];
/// How many records one statement removes, so that writers get their turn.
const PRUNED: u64 = 5000;

#[async_trait]
impl AuditSink for SqlStore {
    async fn write(&self, records: &[AuditRecord]) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let db = self.db();
        let statements = statements(db.reader.get_database_backend(), records)?;
        let written = db.racing(|| async {
            let tx = db.begin().await?;
            for statement in &statements {
                tx.execute_raw(statement.clone()).await.map_err(db_error)?;
            }
            db.commit(tx).await
        });
        db.within("writing audit records", written).await
    }

    async fn list(&self, query: &AuditQuery) -> Result<Page<AuditRecord>> {
        let limit = query.limit.clamp(1, MAX_PAGE);
        let statement = page_of(query, limit)?;
        let found = self.db().within("listing audit records", rows(&self.db().reader, &statement)).await?;
        let more = found.len() > limit;
        let found = &found[..limit.min(found.len())];
        let next = match found.last() {
            Some(last) if more => Some(cursor(column(last, "at")?, column(last, "id")?)),
            _ => None,
        };
        Ok(Page { items: found.iter().map(record).collect::<Result<_>>()?, next })
    }

    async fn get(&self, id: AuditId) -> Result<AuditRecord> {
        let statement = Query::select().columns(["id", "doc"]).from(AUDIT).cond_where(is("id", *id.as_uuid())).take();
        let found = self.db().within("reading an audit record", row(&self.db().reader, &statement)).await?;
        found.as_ref().map(record).transpose()?.ok_or_else(|| Error::not_found(AuditId::KIND, id))
    }

    async fn prune(&self, before: DateTime<Utc>) -> Result<u64> {
        let db = self.db();
        let old = Query::select()
            .column("id")
            .from(AUDIT)
            .and_where(Expr::col("at").lt(before.timestamp_micros()))
            .limit(PRUNED)
            // Two that remove the same rows in another order would wait for each other.
            .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
            .take();
        let statement = Query::delete().from_table(AUDIT).and_where(Expr::col("id").in_subquery(old)).take();
        let mut removed = 0;
        loop {
            let count = db.within("removing audit records", db.write(&statement)).await?;
            removed += count;
            if count < PRUNED {
                return Ok(removed);
            }
        }
    }
}

/// One page, and one record more that says whether there is another page.
pub(super) fn page_of(query: &AuditQuery, limit: usize) -> Result<SelectStatement> {
    let mut filter = Condition::all()
        .add_option(query.action.as_deref().map(|action| is("action", action)))
        .add_option(query.action.as_deref().filter(|action| *action != AuditRecord::CALL).map(|_| no_call()))
        .add_option(query.actor.as_deref().map(|actor| is("actor_id", actor)))
        .add_option(query.consumer.as_deref().map(|consumer| is("consumer", consumer)))
        .add_option(query.from.map(|from| Expr::col("at").gte(from.timestamp_micros())))
        .add_option(query.until.map(|until| Expr::col("at").lt(until.timestamp_micros())));
    if let Some(cursor) = &query.cursor {
        let (at, id) = parse(cursor)?;
        let same = Condition::all().add(Expr::col("at").eq(at)).add(Expr::col("id").lt(id));
        // The first part says what the index can use.
        filter = filter.add(Expr::col("at").lte(at)).add(Condition::any().add(Expr::col("at").lt(at)).add(same));
    }
    Ok(Query::select()
        .columns(["id", "at", "doc"])
        .from(AUDIT)
        .cond_where(filter)
        .order_by("at", Order::Desc)
        .order_by("id", Order::Desc)
        .limit(limit as u64 + 1)
        .take())
}

/// What the index by action leaves out, in the words of its condition: bound values would not tell a database that it may use it.
fn no_call() -> Expr {
    Expr::cust("action <> 'tools/call'")
}

/// Records make up most of what a busy gateway writes, so each text is built once per batch and not per record.
fn statements(backend: DbBackend, records: &[AuditRecord]) -> Result<Vec<Statement>> {
    let mut statements = Vec::new();
    let mut rest = records;
    for size in ROWS {
        if rest.len() < size {
            continue;
        }
        let sql = text(backend, size);
        let whole = rest.len() - rest.len() % size;
        for chunk in rest[..whole].chunks(size) {
            let mut bound = Vec::with_capacity(size * COLUMNS.len());
            for record in chunk {
                bound.extend(values(record)?);
            }
            statements.push(Statement::from_sql_and_values(backend, sql.as_str(), bound));
        }
        rest = &rest[whole..];
    }
    Ok(statements)
}

fn text(backend: DbBackend, rows: usize) -> String {
    let mut statement = Query::insert()
        .into_table(AUDIT)
        .columns(COLUMNS)
        .on_conflict(OnConflict::column("id").do_nothing().to_owned())
        .take();
    for _ in 0..rows {
        statement.values_panic(COLUMNS.map(|_| Expr::val(0)));
    }
    backend.build(&statement).sql
}

fn values(record: &AuditRecord) -> Result<[Value; 7]> {
    let outcome = match record.outcome {
        Outcome::Success => "success",
        Outcome::Error => "error",
        Outcome::Denied => "denied",
        Outcome::Cancelled => "cancelled",
    };
    let doc = serde_json::to_string(record).map_err(|error| unwritable(AuditId::KIND, error))?;
    Ok([
        (*record.id.as_uuid()).into(),
        record.at.timestamp_micros().into(),
        record.action.as_str().into(),
        record.actor.id.clone().into(),
        record.call.as_ref().map(|call| call.consumer.clone()).into(),
        outcome.into(),
        doc.into(),
    ])
}

fn record(row: &QueryResult) -> Result<AuditRecord> {
    let doc: String = column(row, "doc")?;
    serde_json::from_str(&doc).map_err(|error| unreadable(AuditId::KIND, document::why(&error)))
}

pub(super) fn cursor(at: i64, id: Uuid) -> Cursor {
    let mut bytes = at.to_be_bytes().to_vec();
    bytes.extend_from_slice(id.as_bytes());
    Cursor(URL_SAFE_NO_PAD.encode(bytes))
}

fn parse(cursor: &Cursor) -> Result<(i64, Uuid)> {
    let bytes = URL_SAFE_NO_PAD.decode(&cursor.0).map_err(|_| bad_cursor())?;
    let (at, id) = bytes.split_first_chunk::<8>().ok_or_else(bad_cursor)?;
    Ok((i64::from_be_bytes(*at), Uuid::from_slice(id).map_err(|_| bad_cursor())?))
}
