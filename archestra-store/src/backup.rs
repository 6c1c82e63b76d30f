//! A backup of a database as lines of JSON, and its restoration into an empty one, of either kind.

mod tables;

use crate::sql::{
    SqlStore,
    database::{Database, column, count, execute, row, rows},
    error::{db_error, unreadable},
};
use archestra_core::{Error, Result};
use chrono::{DateTime, Utc};
use sea_orm::{
    DatabaseTransaction,
    sea_query::{Expr, ExprTrait as _, Func, Order, Query},
};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::{
    collections::BTreeMap,
    io::{self, BufRead, Write},
};
use tables::{INSTANCE, TABLES, Table};
use uuid::Uuid;

/// The form of the lines. It changes when the columns do.
const FORMAT: u32 = 1;
/// How many rows are read or written with one statement.
const ROWS: usize = 200;
/// The longest line: a row whose document is as large as any may be.
const LONGEST: u64 = 64 * 1024 * 1024;
const BACKEND: &str = "database";

/// How many rows of each table a backup holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BackupCounts(pub BTreeMap<String, u64>);

impl BackupCounts {
    /// All rows.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.0.values().sum()
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Header {
    archestra_backup: u32,
    at: DateTime<Utc>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Row { table: String, row: Vec<Json> },
    End { end: BackupCounts },
}

impl SqlStore {
    /// Writes a backup: which database it is of, all records of the catalog and of the identities, and the database secrets as they are, sealed under the
    /// key ring, which is not in it. Short-lived state and audit records are left out. It is as of one moment, and nobody waits
    /// for it.
    ///
    /// # Errors
    /// Why the database does not answer, or nothing more can be written; what was written by then is no backup.
    pub async fn backup<W: Write + Send>(&self, out: &mut W) -> Result<BackupCounts> {
        let db = self.db();
        let header = Header { archestra_backup: FORMAT, at: Utc::now() };
        put(out, &header)?;
        let mut counts = BackupCounts::default();
        let tx = db.begin_snapshot().await?;
        for table in TABLES {
            let written = table_out(db, &tx, table, out).await?;
            counts.0.insert(table.name.to_owned(), written);
        }
        tx.rollback().await.map_err(db_error)?;
        put(out, &Line::End { end: counts.clone() })?;
        out.flush().map_err(unwritable)?;
        Ok(counts)
    }

    /// Restores a backup into this database, which must be empty, whole or not at all.
    ///
    /// The database takes over [which one it is](Self::instance), so that what runs for the one that the backup is of belongs to
    /// it from then on. Both must not be in use at once for the same cluster. Nobody may use this one meanwhile:
    /// [`claim_alone`](Self::claim_alone) makes sure of that.
    ///
    /// # Errors
    /// [`Error::Conflict`] when anything is in the database, [`Error::Invalid`] with the line for what is no whole backup of a
    /// form that this version knows, and why the database does not answer.
    pub async fn restore<R: BufRead + Send>(&self, from: &mut R) -> Result<BackupCounts> {
        let db = self.db();
        let mut lines = Lines { from, number: 0 };
        let header: Header = lines.next()?.ok_or_else(|| lines.broken("it is empty"))?;
        if header.archestra_backup != FORMAT {
            let reason = format!("it is a backup of form {}, and this version knows {FORMAT}", header.archestra_backup);
            return Err(lines.broken(&reason));
        }
        let tx = db.begin().await?;
        // First of all, as for every commit: whoever would write beside it waits, and finds what was restored. Whoever follows the
        // feed reads everything anew.
        let moved = Query::update()
            .table("feed_head")
            .value("revision", Expr::col("revision").add(1))
            .value("floor", Expr::col("revision").add(1))
            .and_where(Expr::col("id").eq(1))
            .take();
        execute(&tx, &moved).await?;
        for table in TABLES.iter().filter(|table| table.name != INSTANCE) {
            if rows_in(&tx, table).await? > 0 {
                return Err(Error::conflict(
                    "database",
                    &*db.name,
                    format!(
                        "{} has rows: a backup is restored only into an empty database, before its first start",
                        table.name
                    ),
                ));
            }
        }
        let own: Option<Uuid> = row(&tx, &Query::delete().from_table(INSTANCE).returning_col("id").take())
            .await?
            .map(|own| column(&own, "id"))
            .transpose()?;
        let counts = all_in(db, &tx, &mut lines).await?;
        if let Some(own) = own.filter(|_| !counts.0.contains_key(INSTANCE)) {
            // A backup that is older than this row leaves the database the one it is.
            let same = Query::insert().into_table(INSTANCE).columns(["id"]).values_panic([Expr::val(own)]).take();
            execute(&tx, &same).await?;
        }
        for table in TABLES {
            let there = rows_in(&tx, table).await?;
            // A table that a backup does not speak of is younger than it.
            let wanted = if table.name == INSTANCE { 1 } else { counts.0.get(table.name).copied().unwrap_or_default() };
            if wanted != there {
                return Err(lines.broken(&format!("it does not hold as many rows of {} as it says", table.name)));
            }
        }
        db.commit(tx).await?;
        Ok(counts)
    }
}

async fn table_out<W: Write + Send>(
    db: &Database,
    tx: &DatabaseTransaction,
    table: &Table,
    out: &mut W,
) -> Result<u64> {
    let mut written = 0;
    let mut after: Option<Vec<Expr>> = None;
    loop {
        let mut page = Query::select();
        page.from(table.name).limit(ROWS as u64);
        for (column, _) in table.columns {
            page.column(*column);
        }
        for column in table.key {
            page.order_by(*column, Order::Asc);
        }
        if let Some(after) = after {
            page.and_where(Expr::tuple(table.key.iter().map(|column| Expr::col(*column))).gt(Expr::tuple(after)));
        }
        let found = db.within("reading rows for a backup", rows(tx, &page)).await?;
        let mut last = None;
        for row in &found {
            let row = table.read(row)?;
            last = Some(table.key_of(&row).ok_or_else(|| unreadable(table.name, "a cell is not of its kind"))?);
            put(out, &Line::Row { table: table.name.to_owned(), row })?;
        }
        written += found.len() as u64;
        if found.len() < ROWS {
            return Ok(written);
        }
        after = last;
    }
}

async fn all_in<R: BufRead + Send>(
    db: &Database,
    tx: &DatabaseTransaction,
    lines: &mut Lines<'_, R>,
) -> Result<BackupCounts> {
    let mut waiting: Option<(&Table, Vec<Vec<Expr>>)> = None;
    loop {
        let line: Line = lines.next()?.ok_or_else(|| lines.broken("it ends before its end"))?;
        match line {
            Line::Row { table, row } => {
                let table = TABLES
                    .iter()
                    .find(|known| known.name == table)
                    .ok_or_else(|| lines.broken(&format!("there is no table {table}")))?;
                let values = table.values(&row).ok_or_else(|| lines.broken("the row is not one of its table"))?;
                if waiting.as_ref().is_some_and(|(other, rows)| other.name != table.name || rows.len() >= ROWS) {
                    flush(db, tx, waiting.take()).await?;
                }
                waiting.get_or_insert_with(|| (table, Vec::new())).1.push(values);
            }
            Line::End { end } => {
                flush(db, tx, waiting.take()).await?;
                return match lines.next::<Json>()? {
                    None => Ok(end),
                    Some(_) => Err(lines.broken("something follows its end")),
                };
            }
        }
    }
}

async fn flush(db: &Database, tx: &DatabaseTransaction, waiting: Option<(&Table, Vec<Vec<Expr>>)>) -> Result<()> {
    let Some((table, rows)) = waiting else { return Ok(()) };
    let mut insert = Query::insert();
    insert.into_table(table.name).columns(table.columns.iter().map(|(column, _)| *column));
    for values in rows {
        insert.values_panic(values);
    }
    db.within("restoring rows", execute(tx, &insert)).await.map(drop)
}

async fn rows_in(tx: &DatabaseTransaction, table: &Table) -> Result<u64> {
    let counted = Query::select().expr_as(Func::count(Expr::col(table.columns[0].0)), "rows").from(table.name).take();
    row(tx, &counted).await?.map_or(Ok(0), |row| count(&row, "rows"))
}

struct Lines<'a, R> {
    from: &'a mut R,
    number: u64,
}

impl<R: BufRead> Lines<'_, R> {
    fn next<T: for<'de> Deserialize<'de>>(&mut self) -> Result<Option<T>> {
        let mut line = Vec::new();
        let read = io::Read::take(&mut *self.from, LONGEST).read_until(b'\n', &mut line);
        self.number += 1;
        match read {
            Ok(0) => Ok(None),
            Ok(_) => serde_json::from_slice(&line).map(Some).map_err(|_| self.broken("this is no line of a backup")),
            Err(error) => Err(Error::Backend {
                backend: BACKEND,
                reason: format!("the backup cannot be read: {error}"),
                source: Some(error.into()),
            }),
        }
    }

    fn broken(&self, reason: &str) -> Error {
        Error::invalid(format!("line {}", self.number), reason, "use a whole backup, as `archestra backup` writes it")
    }
}

fn put<W: Write>(out: &mut W, line: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_vec(line).map_err(|error| Error::backend(BACKEND, error))?;
    text.push(b'\n');
    out.write_all(&text).map_err(unwritable)
}

fn unwritable(error: io::Error) -> Error {
    Error::Backend {
        backend: BACKEND,
        reason: format!("the backup cannot be written: {error}"),
        source: Some(error.into()),
    }
}
