//! Operations of several replicas that cross each other: what is newest wins, and nothing that is healthy goes.

use super::*;

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
