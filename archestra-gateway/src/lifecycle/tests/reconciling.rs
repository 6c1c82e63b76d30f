//! The reconciler: after a restart, against what nobody wants, and for what changes by itself.

use super::*;
use crate::upstream::QUIET;
use archestra_core::{runtime::Phase, testing::Faulty};

/// Runs the reconciler for as long as the guard lives.
struct Running {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    fn of(rig: &Rig) -> Self {
        let (lifecycle, stop) = (rig.lifecycle.clone(), CancellationToken::new());
        let token = stop.clone();
        Self { stop, task: tokio::spawn(async move { lifecycle.run(token).await }) }
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

async fn settle() {
    tokio::time::sleep(Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_everything_runs_again_and_what_was_interrupted_goes_on() {
    let rig = Rig::new();
    let entry = rig.save(hosted("files")).await;
    let ready = rig.install(&entry, owner(), &[("API_KEY", "one")]).await.unwrap().value.id;
    rig.ready(ready).await;
    rig.quiet().await;
    rig.discover.hang();
    let interrupted = rig.install(&entry, owner(), &[("API_KEY", "two")]).await.unwrap().value.id;
    rig.until(interrupted, |one| one.state == InstallationState::Discovering).await;
    rig.lifecycle.shutdown().await;

    let again = rig.restarted();
    assert!(again.runtime.applied().is_empty());
    let running = Running::of(&again);
    again.ready(interrupted).await;
    settle().await;
    assert_eq!(again.runtime.applied().len(), 2);
    assert_eq!(again.runtime.applies(), 2, "nothing is rolled that runs as it should");
    assert_eq!(again.lifecycle.revisions(ready).await.unwrap().len(), 1, "a restart makes no revision");
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_nobody_wants_is_removed() {
    let rig = Rig::new();
    let stray = fixtures::workload(fixtures::workload_spec("stray", &["stray"]));
    rig.runtime.plant(stray);
    let running = Running::of(&rig);
    settle().await;
    assert!(rig.runtime.applied().is_empty());
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_workload_that_vanished_comes_back() {
    let rig = Rig::new();
    let entry = rig.save(hosted("files")).await;
    let id = rig.install(&entry, owner(), &[("API_KEY", "k")]).await.unwrap().value.id;
    let workload = rig.ready(id).await.workload.unwrap();
    let running = Running::of(&rig);
    settle().await;
    rig.runtime.remove(&workload).await.unwrap();
    tokio::time::sleep(Duration::from_secs(70)).await;
    assert_eq!(rig.runtime.only().id, workload);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_changed_is_put_back_and_not_all_the_time() {
    let rig = Rig::new();
    let entry = rig.save(hosted("files")).await;
    let id = rig.install(&entry, owner(), &[("API_KEY", "k")]).await.unwrap().value.id;
    let workload = rig.ready(id).await.workload.unwrap();
    let running = Running::of(&rig);
    settle().await;
    let applies = rig.runtime.applies();
    let began = tokio::time::Instant::now();
    for change in ["an image", "a port"] {
        rig.runtime.drift(&workload, change);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(rig.runtime.is_intact(&workload), "{change} is something else");
    }
    rig.runtime.drift(&workload, "an image");
    settle().await;
    assert!(!rig.runtime.is_intact(&workload), "somebody keeps changing it");
    // As soon as the pause is over, and not when everything is compared the next time after that.
    tokio::time::sleep_until(began + Duration::from_secs(62)).await;
    assert!(rig.runtime.is_intact(&workload));
    assert_eq!(rig.runtime.applies(), applies, "no new revision is made for it");
    assert_eq!(rig.lifecycle.revisions(id).await.unwrap().len(), 1);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_put_back_is_tried_again_without_a_pause() {
    let rig = Rig::new();
    let entry = rig.save(hosted("files")).await;
    let id = rig.install(&entry, owner(), &[("API_KEY", "k")]).await.unwrap().value.id;
    let workload = rig.ready(id).await.workload.unwrap();
    let running = Running::of(&rig);
    settle().await;
    rig.runtime.refuse_next(Error::unavailable("fake", "away"));
    rig.runtime.drift(&workload, "an image");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!rig.runtime.is_intact(&workload));
    rig.runtime.drift(&workload, "an image");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(rig.runtime.is_intact(&workload));
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_needs_no_runtime_goes_on_while_it_is_away() {
    let rig = Rig::new();
    let mut spec = remote("tracker");
    spec.labels.insert("a", "b");
    let tracker = rig.save(spec).await;
    let gateway = rig.save_consumer(automatic("g", "a", "b")).await.unwrap().value.id;
    rig.install(&tracker, owner(), &[("token", "t")]).await.unwrap();
    let files = rig.save(hosted("files")).await;
    let id = rig.install(&files, owner(), &[("API_KEY", "k")]).await.unwrap().value.id;
    rig.ready(id).await;
    rig.quiet().await;
    rig.lifecycle.shutdown().await;
    let lost = rig.all::<Assignment>().await.remove(0);
    rig.lifecycle.commit(CatalogChanges::new().delete(lost.id, Expect::Any)).await.unwrap();

    let again = rig.restarted();
    again.runtime.listable(false);
    let running = Running::of(&again);
    settle().await;
    assert_eq!(again.names(gateway).await.len(), 2, "the assignment is made again");
    assert_eq!(again.discover.asked(), 1, "the remote server is listed again, and the other is left alone");
    assert!(again.runtime.applied().is_empty());
    again.runtime.listable(true);
    settle().await;
    assert_eq!(again.runtime.applied().len(), 1);
    assert_eq!(again.discover.asked(), 2);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_takes_long_holds_nothing_up_and_is_made_once() {
    let rig = Rig::new();
    let entry = rig.save(hosted("files")).await;
    let id = rig.install(&entry, owner(), &[("API_KEY", "k")]).await.unwrap().value.id;
    let workload = rig.ready(id).await.workload.unwrap();
    rig.runtime.plant(fixtures::workload(fixtures::workload_spec("stray", &["stray"])));
    let go_on = rig.runtime.hold_removals();
    let running = Running::of(&rig);
    settle().await;
    for change in ["an image", "a port"] {
        rig.runtime.drift(&workload, change);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(rig.runtime.is_intact(&workload));
    }
    assert_eq!((rig.runtime.applied().len(), rig.runtime.removed()), (2, 1));
    go_on.notify_one();
    settle().await;
    assert_eq!((rig.runtime.applied().len(), rig.runtime.removed()), (1, 1));
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_is_made_while_the_secrets_are_read_is_the_one_that_is_applied() {
    let rig = Rig::new();
    let entry = rig.save(hosted("files")).await;
    let id = rig.install(&entry, owner(), &[("API_KEY", "k")]).await.unwrap().value.id;
    let workload = rig.ready(id).await.workload.unwrap();
    rig.quiet().await;
    let slow = Arc::new(Faulty::new(Arc::new(rig.secrets.clone())));
    slow.faults().delay(Duration::from_secs(3));
    let parts = LifecycleParts {
        catalog: Arc::new(rig.catalog.clone()),
        secrets: slow,
        runtime: Some(Arc::new(rig.runtime.clone())),
        discover: Arc::new(rig.discover.clone()),
        options: LifecycleOptions::default(),
    };
    let replica = Lifecycle::new(parts);
    let (applied, ()) = tokio::join!(replica.apply_newest(&workload), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        rig.lifecycle.reinstall(id, values(&[("REGION", "us")]), None).await.unwrap();
    });
    assert_eq!(applied.unwrap().map(|number| number.0), Some(2));
    assert_eq!(rig.runtime.only().revision.0, 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_its_tools_changed_is_listed_again_once() {
    let rig = Rig::new();
    let entry = rig.save(hosted("files")).await;
    let id = rig.install(&entry, owner(), &[("API_KEY", "k")]).await.unwrap().value.id;
    let workload = rig.ready(id).await.workload.unwrap();
    let running = Running::of(&rig);
    settle().await;
    let before = rig.discover.asked();
    rig.discover.serve(&["echo", "more"]);
    for _ in 0..5 {
        rig.runtime.tools_changed(&workload);
    }
    settle().await;
    let installation = rig.lifecycle.installation(id).await.unwrap().value;
    assert_eq!(installation.tools.keys().collect::<Vec<_>>(), ["echo", "more"]);
    assert_eq!(rig.discover.asked(), before + 1, "announcements are gathered");
    for _ in 0..20 {
        rig.runtime.tools_changed(&workload);
        tokio::time::sleep(QUIET / 10).await;
    }
    tokio::time::sleep(QUIET * 2).await;
    assert_eq!(rig.discover.asked(), before + 4, "at most once within {QUIET:?}, and the last one is not lost");
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_fails_after_an_announcement_is_made_later() {
    let rig = Rig::new();
    let (files, tracker) = (rig.save(hosted("files")).await, rig.save(remote("tracker")).await);
    let local = rig.install(&files, owner(), &[("API_KEY", "k")]).await.unwrap().value.id;
    let far = rig.install(&tracker, owner(), &[("token", "t")]).await.unwrap().value.id;
    let workload = rig.ready(local).await.workload.unwrap();
    let running = Running::of(&rig);
    settle().await;
    let names = async |id| {
        let installation = rig.lifecycle.installation(id).await.unwrap().value;
        assert_eq!(installation.state, InstallationState::Ready);
        installation.tools.into_keys().collect::<Vec<_>>()
    };
    rig.discover.serve(&["echo", "more"]);
    let ill = DiscoverError::Unreachable { reason: "away".to_owned() };
    // As often as one listing tries by itself, and three times more.
    let tries = usize::try_from(LifecycleOptions::default().discover_tries).unwrap();
    rig.discover.fail(tries * 3, &ill);
    rig.runtime.tools_changed(&workload);
    let minute = Duration::from_secs(60);
    tokio::time::sleep(minute).await;
    assert_eq!(names(local).await, ["add", "echo"]);
    tokio::time::sleep(minute * 2).await;
    assert_eq!(names(local).await, ["echo", "more"]);

    // A remote one, whose announcement comes another way.
    rig.discover.fail(1, &ill);
    rig.lifecycle.list_announced(far).await.unwrap_err();
    assert_eq!(names(far).await, ["add", "echo"]);
    tokio::time::sleep(minute).await;
    assert_eq!(names(far).await, ["echo", "more"]);
    let asked = rig.discover.asked();
    tokio::time::sleep(minute * 10).await;
    assert_eq!(rig.discover.asked(), asked, "nothing is owed any more");
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_ready_stays_ready_while_its_workload_fails() {
    let rig = Rig::new();
    let entry = rig.save(hosted("files")).await;
    let id = rig.install(&entry, owner(), &[("API_KEY", "k")]).await.unwrap().value.id;
    let workload = rig.ready(id).await.workload.unwrap();
    let running = Running::of(&rig);
    settle().await;
    rig.runtime.set(&workload, Phase::Error);
    settle().await;
    let status = rig.lifecycle.status(id).await.unwrap();
    assert_eq!(status.installation.value.state, InstallationState::Ready);
    assert_eq!(status.workload.unwrap().phase, Phase::Error);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn secrets_that_no_row_names_are_swept_once_they_are_old() {
    let rig = Rig::new();
    let entry = rig.save(hosted("files")).await;
    let orphan = rig
        .lifecycle
        .keep(secrets::INSTALLATIONS, InstallationId::new(), &fixtures::bundle(&[("a", "b")]))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(rig.lifecycle.sweep().await.unwrap(), 0, "it may be about to be named");
    let options = LifecycleOptions { sweep_grace: Duration::ZERO, ..LifecycleOptions::default() };
    let later = Rig::on(rig.catalog.clone(), rig.secrets.clone(), options);
    let running = Running::of(&later);
    settle().await;
    assert_eq!(rig.secrets.list("").await.unwrap(), [entry.value.secrets.unwrap()]);
    assert!(rig.secrets.get(&orphan).await.is_err());
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_takes_hours_to_list_its_secrets_holds_up_neither_reconciling_nor_the_end() {
    let mut rig = Rig::new();
    let slow = Faulty::new(Arc::new(rig.secrets.clone()));
    let faults = slow.faults();
    rig.lifecycle = Lifecycle::new(LifecycleParts {
        catalog: Arc::new(rig.catalog.clone()),
        secrets: Arc::new(slow),
        runtime: Some(Arc::new(rig.runtime.clone())),
        discover: Arc::new(rig.discover.clone()),
        options: LifecycleOptions::default(),
    });
    let begun = tokio::time::Instant::now();
    let long = Duration::from_secs(2 * 3600);
    faults.delay(long);
    let running = Running::of(&rig);
    settle().await;
    assert_eq!(faults.calls(), 1, "the secrets are being listed");
    faults.heal();
    rig.runtime.plant(fixtures::workload(fixtures::workload_spec("stray", &["stray"])));
    tokio::time::sleep(LifecycleOptions::default().resync * 2).await;
    assert!(rig.runtime.applied().is_empty());
    assert_eq!(faults.calls(), 1, "and nobody lists them beside that");
    running.end().await;
    assert!(begun.elapsed() < long);
}

#[tokio::test(start_paused = true)]
async fn two_replicas_do_everything_once_in_effect() {
    let rig = Rig::new();
    let twin = Rig {
        lifecycle: Lifecycle::new(LifecycleParts {
            catalog: Arc::new(rig.catalog.clone()),
            secrets: Arc::new(rig.secrets.clone()),
            runtime: Some(Arc::new(rig.runtime.clone())),
            discover: Arc::new(rig.discover.clone()),
            options: LifecycleOptions::default(),
        }),
        ..rig.restarted()
    };
    let (one, two) = (Running::of(&rig), Running::of(&twin));
    settle().await;
    let entry = rig.save(hosted("files")).await;
    let owners: Vec<_> = (0..4).map(|_| owner()).collect();
    let installs = owners.iter().enumerate().map(|(n, owner)| {
        let replica = if n % 2 == 0 { &rig } else { &twin };
        replica.install(&entry, *owner, &[("API_KEY", "k")])
    });
    for installed in futures::future::join_all(installs).await {
        rig.ready(installed.unwrap().value.id).await;
    }
    settle().await;
    assert_eq!((rig.runtime.applied().len(), rig.runtime.applies()), (4, 4));
    assert_eq!(rig.all::<Tool>().await.len(), 2);
    one.end().await;
    two.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_assignment_that_two_commits_missed_is_made() {
    let rig = Rig::new();
    let mut spec = remote("tracker");
    spec.labels.insert("a", "b");
    let entry = rig.save(spec).await;
    let gateway = rig.save_consumer(automatic("g", "a", "b")).await.unwrap().value.id;
    rig.install(&entry, owner(), &[("token", "t")]).await.unwrap();
    let lost = rig.all::<Assignment>().await.remove(0);
    rig.lifecycle.commit(CatalogChanges::new().delete(lost.id, Expect::Any)).await.unwrap();
    assert_eq!(rig.names(gateway).await.len(), 1);
    let running = Running::of(&rig);
    settle().await;
    assert_eq!(rig.names(gateway).await.len(), 2);
    running.end().await;
}
