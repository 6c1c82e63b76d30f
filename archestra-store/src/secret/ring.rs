//! The claim of a replica that it runs with its key ring, which keeps others with another ring out.

use super::SqlSecrets;
use crate::sql::{
    SqlStore,
    database::{Database, column, execute, row},
};
use archestra_core::{Error, Result};
use sea_orm::sea_query::{Expr, ExprTrait as _, OnConflict, Query};
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

const RINGS: &str = "key_ring";
/// What stands before the fingerprint of whoever has the database alone: no ring has such a one, so that none fits it.
const ALONE: &str = "alone:";
/// How often a claim is renewed.
const RENEW: Duration = Duration::from_secs(10);
/// How long that may take: as long as a large commit may keep it waiting.
const WITHIN: Duration = Duration::from_secs(30);
/// The pause after a renewal that failed.
const AGAIN: Duration = Duration::from_secs(2);
/// After so long without renewal a replica counts as gone. That is longer than one that lives needs for a renewal, and longer
/// than the pause before it.
const GONE: Duration = Duration::from_secs(60);
/// After so long its row is removed.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3600);

/// Says to all other replicas which key ring this one uses, for as long as it lives.
#[derive(Debug)]
pub struct RingClaim {
    db: Database,
    instance: String,
    lost: CancellationToken,
    heartbeat: AbortOnDropHandle<()>,
}

impl RingClaim {
    async fn of(db: &Database, instance: &str, fingerprint: String, every: Duration) -> Result<Self> {
        let db = db.clone();
        db.within("claiming the key ring", claim(&db, instance, &fingerprint)).await?;
        let lost = CancellationToken::new();
        let heartbeat = tokio::spawn(renew(db.clone(), instance.to_owned(), fingerprint, every, lost.clone()));
        Ok(Self { db, instance: instance.to_owned(), lost, heartbeat: AbortOnDropHandle::new(heartbeat) })
    }

    /// Waits until another replica has claimed what this claim excludes, which it can only when this one was cut off from the
    /// database for a minute. One of the two must then stop.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Takes the claim back, so that another ring may be used at once and not only a minute later.
    ///
    /// # Errors
    /// Why the database does not answer; the claim then expires by itself.
    pub async fn release(self) -> Result<()> {
        self.heartbeat.abort();
        let gone = Query::delete().from_table(RINGS).and_where(Expr::col("instance").eq(self.instance.as_str())).take();
        self.db.within("releasing the key ring", self.db.write(&gone)).await.map(|_| ())
    }
}

impl SqlSecrets {
    /// Claims that the replica `instance` runs with this ring. The claim is renewed until the returned value is dropped.
    ///
    /// # Errors
    /// [`Error::Conflict`] when another replica that was there within the last minute uses another ring, or has the database
    /// [alone](Self::claim_alone), and why the database does not answer.
    pub async fn claim_ring(&self, instance: &str) -> Result<RingClaim> {
        RingClaim::of(self.db(), instance, self.ring().fingerprint(), RENEW).await
    }

    /// The same for one that must be the only one, as [`SqlStore::claim_alone`].
    ///
    /// # Errors
    /// As there.
    pub async fn claim_alone(&self, instance: &str) -> Result<RingClaim> {
        claim_alone(self.db(), instance).await
    }
}

impl SqlStore {
    /// Claims the database for one that must be the only one, as for a [`restore`](Self::restore): while it has its claim, no
    /// replica gets one with its key ring. The claim is renewed until the returned value is dropped.
    ///
    /// # Errors
    /// [`Error::Conflict`] when any replica was there within the last minute, and why the database does not answer.
    pub async fn claim_alone(&self, instance: &str) -> Result<RingClaim> {
        claim_alone(self.db(), instance).await
    }
}

async fn claim_alone(db: &Database, instance: &str) -> Result<RingClaim> {
    // Two of them must not fit each other either, nor be taken for each other where both have the same name.
    let unique = uuid::Uuid::now_v7().simple();
    RingClaim::of(db, &format!("{instance} {unique}"), format!("{ALONE}{unique}"), RENEW).await
}

async fn claim(db: &Database, instance: &str, fingerprint: &str) -> Result<()> {
    let tx = db.begin().await?;
    // On a database with many writers this row makes one claim wait for the other.
    execute(
        &tx,
        &Query::update().table("feed_head").value("floor", Expr::col("floor")).and_where(Expr::col("id").eq(1)).take(),
    )
    .await?;
    let now = || db.dialect.now_ms();
    execute(
        &tx,
        &Query::delete().from_table(RINGS).and_where(Expr::col("seen_at").lt(now().sub(millis(FORGOTTEN)))).take(),
    )
    .await?;
    let other = Query::select()
        .columns(["instance", "fingerprint"])
        .from(RINGS)
        .and_where(Expr::col("instance").ne(instance))
        .and_where(Expr::col("fingerprint").ne(fingerprint))
        .and_where(Expr::col("seen_at").gt(now().sub(millis(GONE))))
        .limit(1)
        .take();
    if let Some(row) = row(&tx, &other).await? {
        let (other, theirs): (String, String) = (column(&row, "instance")?, column(&row, "fingerprint")?);
        return Err(taken(instance, fingerprint, &other, &theirs));
    }
    let seen = Query::insert()
        .into_table(RINGS)
        .columns(["instance", "fingerprint", "seen_at"])
        .values_panic([Expr::val(instance), Expr::val(fingerprint), now()])
        .on_conflict(OnConflict::column("instance").update_columns(["fingerprint", "seen_at"]).to_owned())
        .take();
    execute(&tx, &seen).await?;
    db.commit(tx).await
}

/// Why `instance` cannot claim what another one excludes.
fn taken(instance: &str, fingerprint: &str, other: &str, theirs: &str) -> Error {
    let reason = if theirs.starts_with(ALONE) {
        format!("{other} has this database for itself; wait until it has ended, or a minute if it was killed")
    } else if fingerprint.starts_with(ALONE) {
        format!("replica {other} runs on this database; stop it first, and wait a minute if it was killed")
    } else {
        let reason = format!(
            "replica {other} runs on this database with another one; give all replicas the same key file, or stop that replica and wait a minute"
        );
        return Error::conflict("key ring of replica", instance, reason);
    };
    Error::conflict("claim of", instance, reason)
}

/// Renews a claim that has never been gone: nobody can have claimed another ring meanwhile, so that there is nothing to wait for.
async fn still_there(db: &Database, instance: &str, fingerprint: &str) -> Result<bool> {
    let now = || db.dialect.now_ms();
    let seen = Query::update()
        .table(RINGS)
        .value("seen_at", now())
        .and_where(Expr::col("instance").eq(instance))
        .and_where(Expr::col("fingerprint").eq(fingerprint))
        .and_where(Expr::col("seen_at").gt(now().sub(millis(GONE))))
        .take();
    Ok(db.write(&seen).await? > 0)
}

async fn renew(db: Database, instance: String, fingerprint: String, every: Duration, lost: CancellationToken) {
    let mut pause = every;
    loop {
        sleep(pause).await;
        let renewed = async {
            match still_there(&db, &instance, &fingerprint).await {
                Ok(true) => Ok(()),
                Ok(false) => claim(&db, &instance, &fingerprint).await,
                Err(error) => Err(error),
            }
        };
        let outcome = match timeout(WITHIN, renewed).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::Timeout { operation: "renewing the claim of the key ring", after: WITHIN }),
        };
        pause = match outcome {
            Ok(()) => every,
            Err(error @ Error::Conflict { .. }) => {
                tracing::error!(%error, "the claim of the key ring is lost");
                return lost.cancel();
            }
            Err(error) => {
                tracing::warn!(%error, "the claim of the key ring was not renewed; trying again");
                AGAIN
            }
        };
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SqlConfig, SqlStore};
    use archestra_core::{ErrorKind, secret::KeyRing};
    use std::sync::Arc;

    #[test]
    fn a_claim_that_is_renewed_as_slowly_as_it_may_be_is_not_gone() {
        assert!(GONE > RENEW + WITHIN + AGAIN);
    }

    #[tokio::test]
    async fn whoever_must_be_alone_is_refused_beside_others_and_keeps_them_out() {
        let store = SqlStore::connect(SqlConfig::new("sqlite::memory:")).await.unwrap();
        let secrets = SqlSecrets::new(&store, Arc::new(KeyRing::generate().unwrap()));
        let refused = |claimed: Result<RingClaim>| {
            let error = claimed.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict);
            error.to_string()
        };
        let replica = secrets.claim_ring("replica-1").await.unwrap();
        let said = refused(secrets.claim_alone("migration-1").await);
        assert!(said.contains("replica-1 runs on this database; stop it first"), "{said}");
        replica.release().await.unwrap();
        let alone = secrets.claim_alone("migration-1").await.unwrap();
        for claimed in [secrets.claim_ring("replica-2").await, secrets.claim_alone("migration-1").await] {
            let said = refused(claimed);
            assert!(said.contains("migration-1 ") && said.contains(" has this database for itself"), "{said}");
        }
        // Whoever was killed is gone after a while.
        let gone = Query::update().table(RINGS).value("seen_at", 0).take();
        store.db().write(&gone).await.unwrap();
        drop(secrets.claim_ring("replica-2").await.unwrap());
        alone.release().await.unwrap();
    }

    #[tokio::test]
    async fn a_claim_is_lost_to_whoever_came_while_it_was_gone_and_to_nobody_else() {
        let store = SqlStore::connect(SqlConfig::new("sqlite::memory:")).await.unwrap();
        let secrets = |ring: &Arc<KeyRing>| SqlSecrets::new(&store, Arc::clone(ring));
        let (ours, theirs) = (Arc::new(KeyRing::generate().unwrap()), Arc::new(KeyRing::generate().unwrap()));
        let every = Duration::from_millis(50);
        let claim = RingClaim::of(store.db(), "replica-1", ours.fingerprint(), every).await.unwrap();
        let soon = every * 6;
        assert!(timeout(soon, claim.lost()).await.is_err(), "it is renewed");
        // Cut off for long enough, and nobody came, or one with the same ring.
        let gone = Query::update().table(RINGS).value("seen_at", 0).take();
        store.db().write(&gone).await.unwrap();
        let same = secrets(&ours).claim_ring("replica-2").await.unwrap();
        assert!(timeout(soon, claim.lost()).await.is_err(), "it is had again");
        same.release().await.unwrap();
        // Cut off, and somebody with another ring came, unless ours was renewed between the two.
        let other = loop {
            store.db().write(&gone).await.unwrap();
            if let Ok(other) = secrets(&theirs).claim_ring("replica-3").await {
                break other;
            }
        };
        timeout(Duration::from_secs(60), claim.lost()).await.expect("it is lost");
        let said = secrets(&ours).claim_ring("replica-1").await.unwrap_err().to_string();
        assert!(said.contains("replica-3") && said.contains("the same key file"), "{said}");
        // What is lost stays lost, and takes nothing from who has it.
        claim.release().await.unwrap();
        assert!(timeout(soon, other.lost()).await.is_err());
        assert!(still_there(store.db(), "replica-3", &theirs.fingerprint()).await.unwrap());
    }

    #[tokio::test]
    async fn a_claim_is_renewed_without_a_turn_unless_it_was_gone() {
        let store = SqlStore::connect(SqlConfig::new("sqlite::memory:")).await.unwrap();
        let secrets = SqlSecrets::new(&store, Arc::new(KeyRing::generate().unwrap()));
        let (db, fingerprint) = (store.db(), secrets.ring().fingerprint());
        let _claim = secrets.claim_ring("replica-1").await.unwrap();
        assert!(still_there(db, "replica-1", &fingerprint).await.unwrap());
        assert!(!still_there(db, "replica-2", &fingerprint).await.unwrap());
        assert!(!still_there(db, "replica-1", "another").await.unwrap());
        let gone = Query::update().table(RINGS).value("seen_at", 0).take();
        db.write(&gone).await.unwrap();
        assert!(!still_there(db, "replica-1", &fingerprint).await.unwrap());
    }
}
