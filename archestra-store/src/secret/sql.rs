//! `SqlSecrets`: bundles sealed under the key ring, one row each.

use crate::sql::{
    SqlStore,
    database::{Database, begins, column, count, execute, row, rows, stored},
};
use archestra_core::{
    Error, Result,
    secret::{
        Accepts, Derived, Expect, KeyId, KeyRing, KeyRingError, Purpose, SecretBundle, SecretRef, SecretStore,
        SecretVersion, StoredBundle,
    },
};
use async_trait::async_trait;
use chrono::Utc;
use sea_orm::{
    DatabaseTransaction,
    sea_query::{Expr, ExprTrait as _, OnConflict, Order, Query, SelectStatement},
};
use std::{collections::BTreeSet, fmt, sync::Arc};

const SECRETS: &str = "secrets";
const BACKEND: &str = "database secrets";
/// How often a write whose expectation is `Any` begins anew when another one came in between.
const TRIES: u32 = 16;

/// Secrets in the database, each bundle sealed with AES-256-GCM under a key of the ring.
///
/// The seal binds reference and version: a row that is copied to another reference, or put back after it was replaced, does not
/// open. Before use, [`verify_ring`](Self::verify_ring) makes sure of the ring and [`claim_ring`](Self::claim_ring) that no
/// other replica runs with another one.
#[derive(Clone)]
pub struct SqlSecrets {
    store: SqlStore,
    ring: Arc<KeyRing>,
    keys: Arc<Derived>,
    accepts: Accepts,
}

/// What became of some of the bundles that were sealed under older keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resealed {
    /// How many are sealed under the newest key by now.
    pub resealed: u64,
    /// How many do not open, and were left.
    pub left: u64,
    /// The last one that was looked at, after which to go on; `None` when there was none any more.
    pub last: Option<String>,
}

impl fmt::Debug for SqlSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlSecrets").field("ring", &self.ring).field("accepts", &self.accepts).finish_non_exhaustive()
    }
}

impl SqlSecrets {
    /// Secrets in the database of `store` under `ring`.
    #[must_use]
    pub fn new(store: &SqlStore, ring: Arc<KeyRing>) -> Self {
        let keys = Arc::new(ring.derive(Purpose::Secrets));
        Self { store: store.clone(), ring, keys, accepts: Accepts::Values }
    }

    /// The same secrets for a store that resolves references, as [`VaultReadOnly`](super::VaultReadOnly) does: it writes these
    /// here, and values are not what it is given.
    #[must_use]
    pub fn of_references(&self) -> Self {
        Self { accepts: Accepts::References, ..self.clone() }
    }

    /// Makes sure that the ring opens what is stored: it has every key in use, and each is the very key.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`] with the id of the key that is missing or is another one than it was, or why the database
    /// does not answer.
    pub async fn verify_ring(&self) -> Result<()> {
        let db = self.db();
        db.within("verifying the key ring", async {
            self.check_ids().await?;
            for key in self.ring.ids() {
                let one = Query::select().columns(["ref", "version", "key_id", "bytes"]).from(SECRETS).and_where(Expr::col("key_id").eq(key.as_str())).limit(1).take();
                if let Some(row) = row(&db.reader, &one).await? {
                    let reference: String = column(&row, "ref")?;
                    self.open(&reference, &row).map_err(|_| wrong_ring(format!("key {key} of the key ring is not the one that the stored secrets were sealed under: use the original key file")))?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Seals anew the bundles that were sealed under older keys, up to `limit` of those after the reference `after`, in the order
    /// of references, and says what it did. Once a pass from the first to the last of them left none, the older keys are no longer
    /// needed. Versions and contents stay, writers are not disturbed, and it may be interrupted at any time and begun anew.
    ///
    /// A bundle that does not open is left as it is, and logged with its reference; it keeps no other one from being sealed.
    ///
    /// # Errors
    /// Why the database does not answer.
    pub async fn reseal(&self, after: Option<&str>, limit: u64) -> Result<Resealed> {
        let db = self.db();
        db.within("sealing secrets anew", async {
            let newest = self.ring.newest().as_str();
            let mut old = Query::select()
                .columns(["ref", "version", "key_id", "bytes"])
                .from(SECRETS)
                .and_where(Expr::col("key_id").ne(newest))
                .order_by("ref", Order::Asc)
                .limit(limit)
                .take();
            if let Some(after) = after {
                old.and_where(Expr::col("ref").gt(after));
            }
            let old = rows(&db.reader, &old).await?;
            let mut done = Resealed::default();
            for row in &old {
                done.last = Some(column(row, "ref")?);
                self.reseal_row(row, &mut done).await?;
            }
            Ok(done)
        })
        .await
    }

    async fn reseal_row(&self, row: &sea_orm::QueryResult, done: &mut Resealed) -> Result<()> {
        let reference: String = column(row, "ref")?;
        let bytes: Vec<u8> = column(row, "bytes")?;
        let sealed_anew = self.open(&reference, row).and_then(|stored_bundle| {
            let version = stored_bundle.version.0;
            let plain = stored_bundle.bundle.to_plaintext();
            let sealed_anew = self.keys.seal(&plain, &context(&reference, version));
            Ok((version, sealed_anew.map_err(|error| sealed(&reference, error))?))
        });
        let (version, sealed_anew) = match sealed_anew {
            Ok(sealed_anew) => sealed_anew,
            Err(error) => {
                tracing::error!(reference, %error, "a secret cannot be sealed anew; it stays under its older key");
                done.left += 1;
                return Ok(());
            }
        };
        let update = Query::update()
            .table(SECRETS)
            .value("key_id", sealed_anew.key.as_str())
            .value("bytes", sealed_anew.bytes)
            .and_where(Expr::col("ref").eq(reference))
            .and_where(Expr::col("version").eq(stored(version)))
            // What was removed and written anew meanwhile may be at the same version again.
            .and_where(Expr::col("bytes").eq(bytes))
            .take();
        done.resealed += self.db().write(&update).await?;
        Ok(())
    }

    pub(super) fn db(&self) -> &Database {
        self.store.db()
    }

    pub(super) fn ring(&self) -> &KeyRing {
        &self.ring
    }

    async fn check_ids(&self) -> Result<()> {
        let known: BTreeSet<&str> = self.ring.ids().map(KeyId::as_str).collect();
        // From one id to the next one along the index: there are few, and each is that of many rows.
        let mut last: Option<String> = None;
        while let Some(row) = row(&self.db().reader, &key_after(last.as_deref())).await? {
            let id: String = column(&row, "key_id")?;
            if !known.contains(id.as_str()) {
                return Err(wrong_ring(format!("the key ring lacks key {id}: add the key file line it was made with")));
            }
            last = Some(id);
        }
        Ok(())
    }

    fn open(&self, reference: &str, row: &sea_orm::QueryResult) -> Result<StoredBundle> {
        let version = count(row, "version")?;
        let key: String = column(row, "key_id")?;
        let bytes: Vec<u8> = column(row, "bytes")?;
        let plain = key.parse().and_then(|key| self.keys.open(&key, &bytes, &context(reference, version)));
        let plain = plain.map_err(|error| sealed(reference, error))?;
        Ok(StoredBundle { bundle: SecretBundle::from_plaintext(&plain)?, version: SecretVersion(version) })
    }

    /// Writes the version after `present`; `None` when somebody else changed it since it was read.
    async fn write(
        &self,
        tx: &DatabaseTransaction,
        reference: &SecretRef,
        bundle: &SecretBundle,
        present: Option<u64>,
    ) -> Result<Option<SecretVersion>> {
        let version = present.unwrap_or(0) + 1;
        let sealed = self
            .keys
            .seal(&bundle.to_plaintext(), &context(reference.as_str(), version))
            .map_err(|error| sealed(reference.as_str(), error))?;
        let now = Utc::now().timestamp_millis();
        let written = match present {
            Some(present) => {
                let update = Query::update()
                    .table(SECRETS)
                    .value("version", stored(version))
                    .value("key_id", sealed.key.as_str())
                    .value("bytes", sealed.bytes)
                    .value("updated_at", now)
                    .and_where(Expr::col("ref").eq(reference.as_str()))
                    .and_where(Expr::col("version").eq(stored(present)))
                    .take();
                execute(tx, &update).await?
            }
            None => {
                let insert = Query::insert()
                    .into_table(SECRETS)
                    .columns(["ref", "version", "key_id", "bytes", "updated_at"])
                    .values_panic([
                        Expr::val(reference.as_str()),
                        Expr::val(stored(version)),
                        Expr::val(sealed.key.as_str()),
                        Expr::val(sealed.bytes),
                        Expr::val(now),
                    ])
                    .on_conflict(OnConflict::column("ref").do_nothing().to_owned())
                    .take();
                execute(tx, &insert).await?
            }
        };
        Ok((written > 0).then_some(SecretVersion(version)))
    }
}

#[async_trait]
impl SecretStore for SqlSecrets {
    fn accepts(&self) -> Accepts {
        self.accepts
    }

    async fn written(&self, reference: &SecretRef) -> Result<StoredBundle> {
        let statement = Query::select()
            .columns(["version", "key_id", "bytes"])
            .from(SECRETS)
            .and_where(Expr::col("ref").eq(reference.as_str()))
            .take();
        let found = self.db().within("reading a secret", row(&self.db().reader, &statement)).await?;
        let found = found.ok_or_else(|| Error::not_found("secret", reference))?;
        self.open(reference.as_str(), &found)
    }

    async fn get(&self, reference: &SecretRef) -> Result<StoredBundle> {
        self.written(reference).await?.values(reference)
    }

    async fn put(&self, reference: &SecretRef, bundle: &SecretBundle, expect: Expect) -> Result<SecretVersion> {
        self.accepts.check(bundle)?;
        self.rewrite(reference, bundle, expect).await
    }

    async fn rewrite(&self, reference: &SecretRef, bundle: &SecretBundle, expect: Expect) -> Result<SecretVersion> {
        let db = self.db();
        db.within("writing a secret", async {
            for _ in 0..TRIES {
                let tx = db.begin().await?;
                let present = Query::select()
                    .column("version")
                    .from(SECRETS)
                    .and_where(Expr::col("ref").eq(reference.as_str()))
                    .take();
                let present = row(&tx, &present).await?.map(|row| count(&row, "version")).transpose()?;
                let reason = match (expect, present.map(SecretVersion)) {
                    (Expect::Any, _) | (Expect::Absent, None) => None,
                    (Expect::Version(expected), Some(version)) if expected == version => None,
                    (Expect::Absent, Some(_)) => Some("it is there already"),
                    (Expect::Version(_), Some(_)) => Some("it has another version by now; read it again"),
                    (Expect::Version(_), None) => Some("it is not there any more"),
                };
                if let Some(reason) = reason {
                    return Err(Error::conflict("secret", reference, reason));
                }
                if let Some(version) = self.write(&tx, reference, bundle, present).await? {
                    db.commit(tx).await?;
                    return Ok(version);
                }
            }
            Err(Error::conflict("secret", reference, "others keep changing it; try again"))
        })
        .await
    }

    async fn remove(&self, reference: &SecretRef) -> Result<()> {
        let statement = Query::delete().from_table(SECRETS).and_where(Expr::col("ref").eq(reference.as_str())).take();
        self.db().within("removing a secret", self.db().write(&statement)).await.map(|_| ())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<SecretRef>> {
        let mut statement = Query::select().column("ref").from(SECRETS).order_by("ref", Order::Asc).take();
        if !prefix.is_empty() {
            statement.and_where(Expr::col("ref").eq(prefix).or(begins(
                self.db().dialect,
                "ref",
                &format!("{prefix}/"),
            )));
        }
        let found = self.db().within("listing secrets", rows(&self.db().reader, &statement)).await?;
        let mut references: Vec<SecretRef> =
            found.iter().map(|row| column::<String>(row, "ref")?.parse()).collect::<Result<_>>()?;
        // A database may sort by the rules of a language.
        references.sort_unstable();
        Ok(references)
    }

    async fn check(&self) -> Result<()> {
        self.db().within("checking the secrets", self.check_ids()).await
    }
}

/// How the id of a key in use is found that comes after another one.
fn key_after(last: Option<&str>) -> SelectStatement {
    let mut next = Query::select();
    next.column("key_id").from(SECRETS).order_by("key_id", Order::Asc).limit(1);
    if let Some(last) = last {
        next.and_where(Expr::col("key_id").gt(last));
    }
    next.take()
}

/// What a seal is bound to. A reference holds no NUL.
fn context(reference: &str, version: u64) -> Vec<u8> {
    let mut context = reference.as_bytes().to_vec();
    context.push(0);
    context.extend_from_slice(&version.to_be_bytes());
    context
}

fn wrong_ring(reason: String) -> Error {
    Error::PermissionDenied { backend: BACKEND, reason }
}

fn sealed(reference: &str, error: KeyRingError) -> Error {
    match error {
        KeyRingError::Missing(_) => wrong_ring(error.to_string()),
        error => Error::Backend {
            backend: BACKEND,
            reason: format!("secret {reference}: {error}"),
            source: Some(error.into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SqlConfig;
    use archestra_core::testing::fixtures::{bundle, secret_ref};
    use sea_orm::{ConnectionTrait as _, Statement};

    #[tokio::test]
    async fn what_was_removed_and_written_anew_meanwhile_is_not_put_back() {
        let store = SqlStore::connect(SqlConfig::new("sqlite::memory:")).await.unwrap();
        let old = Arc::new(KeyRing::generate().unwrap());
        let newer = KeyRing::generate().unwrap();
        let both = KeyRing::parse(&format!("{}{}", *newer.to_text(), *old.to_text())).unwrap();
        let (before, after) = (SqlSecrets::new(&store, old), SqlSecrets::new(&store, Arc::new(both)));
        let reference = secret_ref("entry/one");
        // Whether another key seals what is new, or the same one as before.
        for writer in [&after, &before] {
            before.put(&reference, &bundle(&[("k", "old")]), Expect::Any).await.unwrap();
            let read = Query::select().columns(["ref", "version", "key_id", "bytes"]).from(SECRETS).take();
            let row = row(&store.db().reader, &read).await.unwrap().unwrap();
            before.remove(&reference).await.unwrap();
            let mut done = Resealed::default();
            after.reseal_row(&row, &mut done).await.unwrap();
            let version = writer.put(&reference, &bundle(&[("k", "new")]), Expect::Absent).await.unwrap();
            assert_eq!(version, SecretVersion(1), "versions begin anew");
            after.reseal_row(&row, &mut done).await.unwrap();
            assert_eq!(done, Resealed::default(), "nothing was sealed anew");
            assert_eq!(after.get(&reference).await.unwrap().bundle, bundle(&[("k", "new")]));
            before.remove(&reference).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_check_reads_no_more_rows_than_there_are_keys() {
        let store = SqlStore::connect(SqlConfig::new("sqlite::memory:")).await.unwrap();
        let (old, newer) = (KeyRing::generate().unwrap(), KeyRing::generate().unwrap());
        let both = Arc::new(KeyRing::parse(&format!("{}{}", *newer.to_text(), *old.to_text())).unwrap());
        let old = SqlSecrets::new(&store, Arc::new(old));
        for (secrets, path) in [(&old, "a/1"), (&SqlSecrets::new(&store, Arc::clone(&both)), "a/2"), (&old, "a/3")] {
            secrets.put(&secret_ref(path), &bundle(&[("k", "v")]), Expect::Any).await.unwrap();
        }
        SqlSecrets::new(&store, both).check().await.unwrap();
        assert!(old.check().await.is_err());
        let reader = &store.db().reader;
        let backend = reader.get_database_backend();
        let next = backend.build(&key_after(Some("k1")));
        let sql = format!("EXPLAIN QUERY PLAN {}", next.sql);
        let plan = reader.query_one_raw(Statement::from_sql_and_values(backend, sql, next.values.unwrap())).await;
        let plan: String = plan.unwrap().unwrap().try_get("", "detail").unwrap();
        assert!(plan.contains("COVERING INDEX secrets_key_id"), "{plan}");
    }
}
