//! Secrets: nothing of them on disk, no row that stands in for another, no start with a wrong key ring.

use crate::support::{dump, file, fresh_path, holds, memory, open, ring};
use archestra_core::{
    Error, ErrorKind,
    catalog::CatalogStore,
    feed::ChangeSet,
    identity::{IdentityStore, TokenOwner},
    secret::{Expect, KeyRing, SecretBundle, SecretStore, SecretValue, SecretVersion},
    state::{StateKey, StateStore},
    testing::fixtures,
};
use archestra_store::{Resealed, SqlSecrets, SqlStore};
use sea_orm::ConnectionTrait as _;
use std::{
    io::Write,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

const CANARY: &str = "canary-5up3r-s3cr3t-value";

async fn raw(path: &Path, sql: &str) {
    let raw = sea_orm::Database::connect(format!("sqlite://{}", path.display())).await.unwrap();
    raw.execute_unprepared(sql).await.unwrap();
    raw.close().await.unwrap();
}

#[tokio::test]
async fn nothing_secret_is_in_the_file_or_in_what_is_printed() {
    let path = fresh_path();
    let store = open(&path).await;
    let secrets = SqlSecrets::new(&store, ring());
    let reference = fixtures::secret_ref("entry/one");
    let version = secrets.put(&reference, &fixtures::bundle(&[("token", CANARY)]), Expect::Absent).await.unwrap();
    secrets
        .put(&reference, &fixtures::bundle(&[("token", CANARY), ("other", "canary-2")]), Expect::Version(version))
        .await
        .unwrap();
    let (plain, token) = fixtures::token("ci", TokenOwner::Organization);
    IdentityStore::commit(&store, ChangeSet::new().create(token)).await.unwrap();
    CatalogStore::commit(&store, ChangeSet::new().create(fixtures::remote_entry("beside it"))).await.unwrap();
    assert_eq!(secrets.get(&reference).await.unwrap().bundle.get("token").unwrap().expose(), CANARY);
    let printed = format!("{store:?} {secrets:?} {:?}", secrets.get(&reference).await.unwrap());
    assert!(!printed.contains("canary"), "{printed}");
    for bytes in [dump(&path), {
        store.close().await;
        dump(&path)
    }] {
        assert!(holds(&bytes, "entry/one") && holds(&bytes, "beside it"), "the dump shows what is stored");
        assert!(!holds(&bytes, "canary") && !holds(&bytes, plain.expose()));
    }
}

#[derive(Debug, Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_value_is_in_logs_and_spans_of_any_level() {
    let printed = Printed::default();
    let writer = printed.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let store = file().await;
    let secrets = SqlSecrets::new(&store, ring());
    let reference = fixtures::secret_ref("entry/one");
    secrets.put(&reference, &fixtures::bundle(&[("token", CANARY)]), Expect::Absent).await.unwrap();
    secrets.get(&reference).await.unwrap();
    let code = StateKey::new("oauth.code", "hash");
    StateStore::put(&store, &code, CANARY.into(), Duration::from_secs(60)).await.unwrap();
    assert!(store.compare_and_set(&code, CANARY.as_bytes(), CANARY.into(), Duration::from_secs(60)).await.unwrap());
    StateStore::take(&store, &code).await.unwrap();
    let mut entry = fixtures::remote_entry("leaky");
    entry.spec.description = Some(CANARY.to_owned());
    CatalogStore::commit(&store, ChangeSet::new().create(entry)).await.unwrap();
    store.close().await;
    drop(guard);
    let printed = printed.0.lock().unwrap().clone();
    assert!(holds(&printed, "sea_orm"), "the log shows what the database does");
    assert!(!holds(&printed, CANARY), "{}", String::from_utf8_lossy(&printed));
}

#[tokio::test]
async fn no_row_stands_in_for_another_or_for_its_past() {
    let path = fresh_path();
    let store = open(&path).await;
    let secrets = SqlSecrets::new(&store, ring());
    let (mine, theirs) = (fixtures::secret_ref("a/mine"), fixtures::secret_ref("a/theirs"));
    secrets.put(&mine, &fixtures::bundle(&[("k", "1")]), Expect::Any).await.unwrap();
    secrets.put(&theirs, &fixtures::bundle(&[("k", "2")]), Expect::Any).await.unwrap();
    raw(&path, "UPDATE secrets SET bytes = (SELECT bytes FROM secrets WHERE ref = 'a/theirs') WHERE ref = 'a/mine'")
        .await;
    assert!(matches!(secrets.get(&mine).await, Err(Error::Backend { reason, .. }) if reason.contains("a/mine")));
    secrets.put(&mine, &fixtures::bundle(&[("k", "3")]), Expect::Version(SecretVersion(1))).await.unwrap();
    assert!(secrets.get(&mine).await.is_ok());
    raw(&path, "UPDATE secrets SET version = 1 WHERE ref = 'a/mine'").await;
    assert_eq!(secrets.get(&mine).await.unwrap_err().kind(), ErrorKind::Backend);
}

#[tokio::test]
async fn a_ring_that_lacks_a_key_is_refused_by_its_id() {
    let store = memory().await;
    let (old, new) = (ring(), ring());
    let secrets = SqlSecrets::new(&store, Arc::clone(&old));
    let reference = fixtures::secret_ref("entry/one");
    secrets.put(&reference, &fixtures::bundle(&[("k", "v")]), Expect::Any).await.unwrap();
    secrets.verify_ring().await.unwrap();

    let wrong = SqlSecrets::new(&store, Arc::clone(&new));
    for error in [
        wrong.verify_ring().await.unwrap_err(),
        wrong.check().await.unwrap_err(),
        wrong.get(&reference).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        assert!(error.to_string().contains(old.newest().as_str()), "{error}");
    }

    let both = Arc::new(KeyRing::parse(&format!("{}{}", *new.to_text(), *old.to_text())).unwrap());
    let rotated = SqlSecrets::new(&store, both);
    rotated.verify_ring().await.unwrap();
    assert!(rotated.get(&reference).await.is_ok());
    let done = Resealed { resealed: 1, left: 0, last: Some("entry/one".to_owned()) };
    assert_eq!(rotated.reseal(None, 10).await.unwrap(), done);
    assert_eq!(rotated.reseal(None, 10).await.unwrap(), Resealed::default());
    assert_eq!(wrong.get(&reference).await.unwrap().version, SecretVersion(1));
    wrong.verify_ring().await.unwrap();
    assert_eq!(secrets.verify_ring().await.unwrap_err().kind(), ErrorKind::PermissionDenied);

    // The same id with another key is noticed, too.
    let forged = old.to_text().replace(old.newest().as_str(), new.newest().as_str());
    let forged = SqlSecrets::new(&store, Arc::new(KeyRing::parse(&forged).unwrap()));
    let error = forged.verify_ring().await.unwrap_err();
    assert!(
        matches!(&error, Error::PermissionDenied { reason, .. } if reason.contains("original key file")),
        "{error}"
    );
}

/// A store whose bundles `entry/00` to `entry/19` are sealed under an old key, and the same with a newer one.
async fn rotated(path: &Path) -> SqlSecrets {
    let store = open(path).await;
    let (old, new) = (ring(), ring());
    let both = Arc::new(KeyRing::parse(&format!("{}{}", *new.to_text(), *old.to_text())).unwrap());
    let secrets = SqlSecrets::new(&store, old);
    for n in 0..20 {
        let reference = fixtures::secret_ref(&format!("entry/{n:02}"));
        secrets.put(&reference, &fixtures::bundle(&[("k", "v")]), Expect::Any).await.unwrap();
    }
    SqlSecrets::new(&store, both)
}

#[tokio::test]
async fn a_damaged_bundle_keeps_no_other_one_from_being_sealed_anew() {
    let path = fresh_path();
    let secrets = rotated(&path).await;
    raw(&path, "UPDATE secrets SET bytes = zeroblob(64) WHERE ref IN ('entry/00', 'entry/07')").await;
    let (mut resealed, mut left, mut after) = (0, 0, None);
    loop {
        let step = secrets.reseal(after.as_deref(), 5).await.unwrap();
        let Some(last) = step.last else { break };
        (resealed, left, after) = (resealed + step.resealed, left + step.left, Some(last));
    }
    assert_eq!((resealed, left), (18, 2));
    assert_eq!(secrets.reseal(None, 50).await.unwrap().left, 2, "they are still there, under the older key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sealing_anew_goes_on_after_an_interruption_and_beside_writers() {
    let path = fresh_path();
    let secrets = rotated(&path).await;
    let interrupted = secrets.reseal(None, 7).await.unwrap();
    assert_eq!((interrupted.resealed, interrupted.last.as_deref()), (7, Some("entry/06")));
    let writers: Vec<_> = (0..20)
        .map(|n| {
            let secrets = secrets.clone();
            tokio::spawn(async move {
                let reference = fixtures::secret_ref(&format!("entry/{n:02}"));
                for round in 0..5_i32 {
                    let written = fixtures::bundle(&[("k", &round.to_string())]);
                    secrets.put(&reference, &written, Expect::Any).await.unwrap();
                    assert_eq!(secrets.get(&reference).await.unwrap().bundle, written);
                }
            })
        })
        .collect();
    // Begun anew, without a note of where it was.
    while secrets.reseal(None, 3).await.unwrap().last.is_some() {}
    for writer in writers {
        writer.await.unwrap();
    }
    for n in 0..20 {
        let stored = secrets.get(&fixtures::secret_ref(&format!("entry/{n:02}"))).await.unwrap();
        assert_eq!(stored.bundle, fixtures::bundle(&[("k", "4")]), "no write is lost");
        assert_eq!(stored.version, SecretVersion(6), "sealing anew makes no version");
    }
    assert_eq!(secrets.reseal(None, 50).await.unwrap(), Resealed::default());
}

#[tokio::test]
async fn replicas_with_different_rings_refuse_to_run_together() {
    let path = fresh_path();
    let stores: [SqlStore; 2] = [open(&path).await, open(&path).await];
    let (one, other) = (ring(), ring());
    let first = SqlSecrets::new(&stores[0], Arc::clone(&one));
    let claim = first.claim_ring("replica-1").await.unwrap();
    let same = SqlSecrets::new(&stores[1], one).claim_ring("replica-2").await.unwrap();
    let different = SqlSecrets::new(&stores[1], other);
    let error = different.claim_ring("replica-3").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("replica-") && error.to_string().contains("same key file"), "{error}");
    same.release().await.unwrap();
    claim.release().await.unwrap();
    drop(different.claim_ring("replica-3").await.unwrap());
    // A replica that is gone without a word blocks others for a minute only.
    raw(&path, "UPDATE key_ring SET seen_at = seen_at - 61000").await;
    first.claim_ring("replica-1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_claims_for_different_rings_one_wins() {
    let store = file().await;
    let claims: Vec<_> = (0..8)
        .map(|n| {
            let secrets = SqlSecrets::new(&store, ring());
            tokio::spawn(async move { secrets.claim_ring(&format!("replica-{n}")).await })
        })
        .collect();
    let mut won = Vec::new();
    for claim in claims {
        won.extend(claim.await.unwrap());
    }
    assert_eq!(won.len(), 1);
}

#[tokio::test]
async fn a_reference_is_never_served_as_a_value() {
    let store = memory().await;
    let secrets = SqlSecrets::new(&store, ring());
    let reference = fixtures::secret_ref("installations/a/1");
    let at = SecretValue::kept_at("team/tickets#token".parse().unwrap());
    let kept: SecretBundle = [("token", at)].into_iter().collect();
    let refused = secrets.put(&reference, &kept, Expect::Any).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
    let references = secrets.of_references();
    let typed = references.put(&reference, &fixtures::bundle(&[("token", CANARY)]), Expect::Any).await.unwrap_err();
    assert_eq!(typed.kind(), ErrorKind::Invalid, "{typed}");
    references.put(&reference, &kept, Expect::Absent).await.unwrap();
    for handle in [&secrets, &references] {
        assert_eq!(handle.written(&reference).await.unwrap().bundle, kept);
        let error = handle.get(&reference).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Backend);
        assert!(
            error.to_string().contains("token of secret installations/a/1 is kept in Vault, at team/tickets#token")
        );
    }
    let version = secrets.written(&reference).await.unwrap().version;
    let value = fixtures::bundle(&[("token", CANARY)]);
    secrets.put(&reference, &value, Expect::Version(version)).await.unwrap();
    assert_eq!(secrets.get(&reference).await.unwrap().bundle, value, "a value that is given anew is served");
}
