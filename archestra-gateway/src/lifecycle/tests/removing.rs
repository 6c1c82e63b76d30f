//! Removing installations and deleting entries.

use super::*;
use archestra_core::{
    ErrorKind,
    consumer::{CredentialChoice, ToolSelector},
    runtime::Revision,
};

async fn pinned(rig: &Rig) -> (Versioned<Entry>, Installation, Consumer) {
    let entry = rig.save(hosted("files")).await;
    let id = rig.install(&entry, Owner::Organization, &[("API_KEY", "k")]).await.unwrap().value.id;
    let installation = rig.ready(id).await;
    rig.quiet().await;
    let mut gateway = fixtures::gateway("mixed");
    gateway.tools =
        vec![ToolSelector { entry: entry.value.id, tool: "echo".to_owned(), credential: CredentialChoice::Pinned(id) }];
    let gateway = rig.save_consumer(gateway).await.unwrap().value;
    (entry, installation, gateway)
}

#[tokio::test(start_paused = true)]
async fn removing_the_last_installation_keeps_assignments_without_their_pins() {
    let rig = Rig::new();
    let (entry, installation, gateway) = pinned(&rig).await;
    rig.lifecycle.remove(installation.id).await.unwrap();
    assert!(rig.all::<Installation>().await.is_empty());
    assert!(rig.all::<Revision>().await.is_empty());
    assert!(rig.runtime.applied().is_empty());
    assert_eq!(rig.references().await, 1, "only the entry's own secrets are left");

    let assignments = rig.all::<Assignment>().await;
    assert_eq!(assignments.len(), 1);
    assert_eq!(assignments[0].credential, CredentialChoice::ResolveAtCallTime);
    let kept = rig.all::<Consumer>().await.remove(0);
    assert_eq!((kept.id, kept.tools[0].credential), (gateway.id, CredentialChoice::ResolveAtCallTime));
    assert_eq!(rig.all::<Tool>().await.len(), 2);

    // Made again, it serves the same tools under the same names.
    let again = rig.install(&entry, Owner::Organization, &[("API_KEY", "k")]).await.unwrap().value.id;
    rig.ready(again).await;
    assert_eq!(rig.all::<Assignment>().await, assignments);
    assert_eq!(rig.lifecycle.remove(installation.id).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn an_entry_with_installations_is_deleted_only_together_with_them() {
    let rig = Rig::new();
    let (entry, ..) = pinned(&rig).await;
    let id = entry.value.id;
    let error = rig.lifecycle.delete_entry(id, Expect::Any, Cascade::Refuse).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Conflict && error.to_string().contains("1 installations"), "{error}");
    rig.lifecycle.delete_entry(id, Expect::Any, Cascade::Installations).await.unwrap();
    assert!(rig.all::<Entry>().await.is_empty());
    assert!(rig.all::<Consumer>().await[0].tools.is_empty());
    rig.assert_untouched(&fixtures::remote_entry("none")).await;
    assert_eq!(
        rig.lifecycle.delete_entry(id, Expect::Any, Cascade::Refuse).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test(start_paused = true)]
async fn removing_during_the_start_ends_it() {
    let rig = Rig::new();
    let entry = rig.save(hosted("files")).await;
    rig.discover.hang();
    let id = rig.install(&entry, owner(), &[("API_KEY", "k")]).await.unwrap().value.id;
    rig.until(id, |one| one.state == InstallationState::Discovering).await;
    rig.lifecycle.remove(id).await.unwrap();
    rig.quiet().await;
    rig.assert_untouched(&entry.value).await;
}
