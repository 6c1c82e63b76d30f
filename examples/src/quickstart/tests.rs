//! What a start makes that ends half-way, and what stays away.

use super::{NAME, Quickstart, run};
use archestra_core::{
    catalog::{CatalogStore, CatalogStoreExt, Entry, Lookup},
    consumer::Consumer,
    feed::Expect,
    id::InstallationId,
    installation::{Installation, Owner},
    secret::KeyRing,
    testing::{
        Faults, Faulty, MemoryAudit, MemoryCatalog, MemoryIdentity, MemorySecrets, MemoryState, ScriptedRuntime,
        ScriptedServer,
    },
};
use archestra_gateway::platform::Platform;
use std::{path::Path, sync::Arc};

struct Rig {
    platform: Platform,
    catalog: MemoryCatalog,
    state: MemoryState,
    faults: Faults,
}

impl Rig {
    async fn new() -> Self {
        let _installed_before = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (catalog, state) = (MemoryCatalog::new(), MemoryState::new());
        let faulty = Faulty::new(Arc::new(catalog.clone()));
        let faults = faulty.faults();
        let platform = Platform::builder()
            .catalog(Arc::new(faulty))
            .identity(Arc::new(MemoryIdentity::new()))
            .secrets(Arc::new(MemorySecrets::new()))
            .state(Arc::new(state.clone()))
            .audit(Arc::new(MemoryAudit::new()))
            .runtime(Arc::new(ScriptedRuntime::new(ScriptedServer::new("demo"))))
            .key_ring(Arc::new(KeyRing::generate().unwrap()));
        Self { platform: platform.build().await.unwrap(), catalog, state, faults }
    }

    async fn start(&self) -> Option<Option<InstallationId>> {
        let stores: (&dyn CatalogStore, _) = (&self.catalog, &self.state as _);
        run(Quickstart::IfEmpty, self.platform.lifecycle(), stores, Path::new("/bin/archestra")).await.ok()
    }

    async fn gateway(&self) -> Option<archestra_core::feed::Versioned<Consumer>> {
        self.catalog.find_one::<Consumer>(Lookup::ConsumerAt(NAME.to_owned())).await.unwrap()
    }
}

#[tokio::test]
async fn wherever_a_start_ended_the_next_one_finishes_it() {
    for works in 0..100 {
        let rig = Rig::new().await;
        rig.faults.fail_after(works);
        let first = rig.start().await;
        rig.faults.heal();
        let second = rig.start().await;
        assert!(matches!((&first, &second), (Some(Some(_)), Some(None)) | (None, Some(Some(_)))), "{works}");
        let entry = rig.catalog.find_one::<Entry>(Lookup::EntryNamed(NAME.to_owned())).await.unwrap().unwrap();
        let at = Lookup::InstallationOf(entry.value.id, Owner::Organization);
        assert!(rig.catalog.find_one::<Installation>(at).await.unwrap().is_some(), "{works}");
        assert!(rig.gateway().await.is_some(), "{works}");
        rig.platform.shutdown().await;
        if first.is_some() {
            assert!(works > 3, "it ends somewhere in between");
            return;
        }
    }
    panic!("it never works");
}

#[tokio::test]
async fn a_gateway_that_somebody_deleted_stays_away() {
    let rig = Rig::new().await;
    assert!(matches!(rig.start().await, Some(Some(_))));
    let gateway = rig.gateway().await.unwrap().value.id;
    rig.platform.lifecycle().delete_consumer(gateway, Expect::Any).await.unwrap();
    assert_eq!(rig.start().await, Some(None));
    assert!(rig.gateway().await.is_none());
    rig.platform.shutdown().await;
}
