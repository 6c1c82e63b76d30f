//! Every conformance suite against the in-memory backends and the scripted runtime.
#![cfg(feature = "testing")]

use archestra_core::{
    credential::{CredentialResolver, DefaultResolver},
    testing::{
        Answer, Eras, MemoryAudit, MemoryCatalog, MemoryIdentity, MemorySecrets, MemoryState, Script, ScriptedRuntime,
        ScriptedServer,
        conformance::{self, runtime::RuntimeFixture},
        fixtures,
    },
};
use std::{sync::Arc, time::Duration};

archestra_core::catalog_store_conformance!(catalog, async { Arc::new(MemoryCatalog::new()) });
archestra_core::catalog_store_pair_conformance!(catalog_pair, async {
    let store = MemoryCatalog::new();
    (Arc::new(store.clone()), Arc::new(store))
});
archestra_core::identity_store_conformance!(identity, async { Arc::new(MemoryIdentity::new()) });
archestra_core::identity_store_pair_conformance!(identity_pair, async {
    let store = MemoryIdentity::new();
    (Arc::new(store.clone()), Arc::new(store))
});
archestra_core::secret_store_conformance!(secrets, async { Arc::new(MemorySecrets::new()) });
archestra_core::secret_store_pair_conformance!(secrets_pair, async {
    let store = MemorySecrets::new();
    (Arc::new(store.clone()), Arc::new(store))
});
archestra_core::state_store_conformance!(state, async { Arc::new(MemoryState::new()) });
archestra_core::state_store_pair_conformance!(state_pair, async {
    let store = MemoryState::new();
    (Arc::new(store.clone()), Arc::new(store))
});
archestra_core::audit_sink_conformance!(audit, async { Arc::new(MemoryAudit::new()) });
archestra_core::credential_resolver_conformance!(resolver, async { Arc::new(DefaultResolver) });
archestra_core::runtime_conformance!(scripted, async { scripted_fixture(Eras::Both) });
archestra_core::runtime_conformance!(scripted_legacy, async { scripted_fixture(Eras::Legacy) });

#[test]
fn the_default_resolver_follows_the_default_order() {
    conformance::run(async {
        let resolver: Arc<dyn CredentialResolver> = Arc::new(DefaultResolver);
        conformance::credential_resolver::follows_the_default_order(&resolver).await;
    });
}

fn scripted_fixture(eras: Eras) -> RuntimeFixture {
    let echo = ScriptedServer::new("echo")
        .eras(eras)
        .start_log("the echo server is up")
        .tool("echo", |arguments| Answer::text(arguments["text"].as_str().unwrap_or_default()));
    let runtime = ScriptedRuntime::new(echo);
    runtime.script("exits", Script::Exit("exit status 1".to_owned()));
    runtime.script(
        "missing",
        Script::Break { reason: "no such command".to_owned(), hint: Some("check `command`".to_owned()) },
    );
    runtime.script("silent", Script::Silent);
    RuntimeFixture::new(Arc::new(runtime), fixtures::workload_spec("echo", &["echo"]))
        .started_line("echo server is up")
        .exits(fixtures::workload_spec("exits", &["false"]))
        .missing(fixtures::workload_spec("missing", &["no-such-command"]))
        .silent(fixtures::workload_spec("silent", &["cat"]))
        .limit(Duration::from_secs(10))
}
