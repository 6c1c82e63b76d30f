//! Operations of several replicas that cross each other: what is newest wins, and nothing that is healthy goes.

use super::{super::assign::Assigner, *};
use archestra_core::{catalog::CatalogChanges, runtime::RevisionNumber, testing::Faulty};

/// Another replica on the same stores and the same runtime.
fn replica(rig: &Rig) -> Lifecycle {
    Lifecycle::new(LifecycleParts {
        catalog: Arc::new(rig.catalog.clone()),
        secrets: Arc::new(rig.secrets.clone()),
        runtime: Some(Arc::new(rig.runtime.clone())),
        discover: Arc::new(rig.discover.clone()),
        options: LifecycleOptions::default(),
    })
}

#[tokio::test(start_paused = true)]
async fn an_installation_that_another_replica_took_further_meanwhile_stays() {
    let rig = Rig::new();
    let other = replica(&rig);
    let entry = rig.save(hosted("files")).await;
    let held = rig.runtime.hold_apply();
    let (installed, ()) = tokio::join!(rig.install(&entry, owner(), &[("API_KEY", "k3y")]), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let id = rig.all::<Installation>().await.remove(0).id;
        other.reinstall(id, values(&[("REGION", "us")]), None).await.unwrap();
        held.notify_one();
    });
    let id = installed.unwrap().value.id;
    rig.ready(id).await;
    rig.quiet().await;
    assert_eq!((rig.runtime.only().revision.0, rig.runtime.applies()), (2, 1));
    assert_eq!(rig.lifecycle.status(id).await.unwrap().refused, None);
    other.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_bring_up_that_comes_late_goes_on_with_the_newest_revision() {
    let rig = Rig::new();
    let other = replica(&rig);
    let entry = rig.save(hosted("files")).await;
    let id = rig.install(&entry, owner(), &[("API_KEY", "k3y")]).await.unwrap().value.id;
    rig.ready(id).await;
    rig.quiet().await;
    let held = rig.runtime.hold_apply();
    rig.resave(&entry, |spec| spec.self_hosted.as_mut().unwrap().args.push("--new".to_owned())).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    other.reinstall(id, values(&[("REGION", "us")]), None).await.unwrap();
    held.notify_one();
    rig.quiet().await;
    assert_eq!(rig.ready(id).await.state, InstallationState::Ready);
    assert_eq!(rig.runtime.only().revision.0, 3);
    assert_eq!(rig.lifecycle.status(id).await.unwrap().refused, None);
    other.shutdown().await;
}

/// A replica whose secrets take two seconds, so that an edit comes between what it reads and what it writes.
fn slow(rig: &Rig) -> Lifecycle {
    let secrets = Arc::new(Faulty::new(Arc::new(rig.secrets.clone())));
    secrets.faults().delay(Duration::from_secs(2));
    Lifecycle::new(LifecycleParts {
        catalog: Arc::new(rig.catalog.clone()),
        secrets,
        runtime: Some(Arc::new(rig.runtime.clone())),
        discover: Arc::new(rig.discover.clone()),
        options: LifecycleOptions::default(),
    })
}

#[tokio::test(start_paused = true)]
async fn what_is_reinstalled_or_rolled_back_is_made_of_the_entry_as_it_is_then() {
    let rig = Rig::new();
    let other = slow(&rig);
    let entry = rig.save(hosted("files")).await;
    let id = rig.install(&entry, owner(), &[("API_KEY", "k3y")]).await.unwrap().value.id;
    rig.ready(id).await;
    let edit = async |command: &str| {
        tokio::time::sleep(Duration::from_secs(1)).await;
        rig.resave(&entry, |spec| spec.self_hosted.as_mut().unwrap().command = vec![command.to_owned()]).await;
    };
    let (reinstalled, ()) = tokio::join!(other.reinstall(id, values(&[("API_KEY", "n3w")]), None), edit("other"));
    reinstalled.unwrap();
    rig.ready(id).await;
    let workload = rig.runtime.only();
    assert_eq!((workload.spec.command, workload.secrets["API_KEY"].expose()), (vec!["other".to_owned()], "n3w"));
    other.shutdown().await;

    let last = rig.lifecycle.revisions(id).await.unwrap().last().unwrap().number;
    let other = slow(&rig);
    let (rolled, ()) = tokio::join!(other.rollback(id, RevisionNumber(1), None), edit("third"));
    rolled.unwrap();
    rig.quiet().await;
    let newest = rig.lifecycle.revisions(id).await.unwrap().pop().unwrap();
    assert_eq!((newest.number.0, newest.cause.as_str()), (last.0 + 2, "rollback"), "the edit, then what was asked for");
    other.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_replaced_secret_that_a_row_names_again_stays() {
    let rig = Rig::new();
    let entry = rig.save(remote("tracker")).await;
    let before = rig.install(&entry, owner(), &[("token", "t")]).await.unwrap().value;
    let after = rig.lifecycle.reinstall(before.id, values(&[("token", "n3w")]), None).await.unwrap();
    let old = before.secrets.clone().unwrap();
    assert_ne!(after.value.secrets.as_ref(), Some(&old));
    rig.catalog.commit(CatalogChanges::new().put(before, Expect::Any)).await.unwrap();
    rig.quiet().await;
    rig.secrets.get(&old).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn assignments_that_are_newer_than_what_was_read_to_judge_them_stay() {
    let rig = Rig::new();
    let mut spec = hosted("files");
    spec.labels.insert("a", "b");
    let entry = rig.save(spec).await;
    let gateway = rig.save_consumer(automatic("g", "a", "b")).await.unwrap().value;
    let mut old = Assigner::among(&rig.lifecycle, Vec::new());
    let id = rig.install(&entry, owner(), &[("API_KEY", "k3y")]).await.unwrap().value.id;
    rig.ready(id).await;
    let assigned = rig.names(gateway.id).await;
    assert!(!assigned.is_empty());
    assert!(!old.changes(&gateway).await.unwrap().is_empty(), "by what was read before they are of nothing");
    rig.lifecycle.reassign(&mut old, &gateway).await.unwrap();
    assert_eq!(rig.names(gateway.id).await, assigned);
}

#[tokio::test(start_paused = true)]
async fn an_installation_assigns_nothing_of_what_others_install_meanwhile() {
    let rig = Rig::new();
    let gateway = rig.save_consumer(automatic("g", "a", "b")).await.unwrap().value;
    let labelled = |name| {
        let mut spec = hosted(name);
        spec.labels.insert("a", "b");
        spec
    };
    let (files, mail) = (rig.save(labelled("files")).await, rig.save(labelled("mail")).await);
    let id = rig.install(&mail, owner(), &[("API_KEY", "k3y")]).await.unwrap().value.id;
    rig.ready(id).await;
    // As whoever read its tools after its assignments sees it.
    for assignment in rig.all::<Assignment>().await {
        rig.lifecycle.commit(CatalogChanges::new().delete(assignment.id, Expect::Any)).await.unwrap();
    }
    let changes = Assigner::new(&rig.lifecycle).changes_around(&files.value, &files.value.spec.labels).await.unwrap();
    assert!(changes.is_empty(), "{changes:?}");
    let changes = Assigner::new(&rig.lifecycle).changes_around(&mail.value, &mail.value.spec.labels).await.unwrap();
    assert!(!changes.is_empty());
    assert!(rig.names(gateway.id).await.is_empty());
}
