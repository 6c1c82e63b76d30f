//! A gateway within a program of your own: a database in memory, one remote server, one gateway, one agent.
//!
//! ```sh
//! cargo run --example embed -- https://mcp.example.com/mcp
//! ```

use archestra_core::{
    catalog::{CatalogChanges, CatalogStore, Scope},
    consumer::{ConsumerKind, CredentialChoice, ToolSelector},
    installation::Owner,
    secret::{Expect, KeyRing},
};
use archestra_gateway::{
    lifecycle::{ConsumerDraft, EntryDraft, InstallRequest},
    platform::{Options, Platform},
    upstream::dial::PrivateNetworks,
};
use archestra_store::{SqlConfig, SqlSecrets, SqlStore};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    io::Write,
    sync::Arc,
    time::Duration,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("give the URL of a remote MCP server")?;
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| "a TLS provider was installed before")?;

    // The backends: any implementation of the traits; here one database for all of them.
    let store = SqlStore::connect(SqlConfig::new("sqlite::memory:")).await?;
    let ring = Arc::new(KeyRing::generate()?);
    let platform = Platform::builder()
        .catalog(Arc::new(store.clone()))
        .identity(Arc::new(store.clone()))
        .state(Arc::new(store.clone()))
        .audit(Arc::new(store.clone()))
        .secrets(Arc::new(SqlSecrets::new(&store, Arc::clone(&ring))))
        .key_ring(ring)
        .options(Options { private_networks: PrivateNetworks::loopback(), ..Options::default() })
        .build()
        .await?;

    // An entry of the registry, an installation of it, and an agent that is given all its tools.
    let lifecycle = platform.lifecycle();
    let spec = serde_json::from_value(json!({ "name": "remote", "remote": { "url": url } }))?;
    let entry = EntryDraft { spec, scope: Scope::Organization, author: None, apply_set: None, saved_by_admin: true };
    let entry = lifecycle.save_entry(None, entry, Expect::Absent).await?.value.id;
    let install =
        InstallRequest { entry, owner: Owner::Organization, values: BTreeMap::new(), author: None, apply_set: None };
    lifecycle.install(install).await?;
    let agent = ConsumerDraft {
        kind: ConsumerKind::Agent,
        spec: serde_json::from_value(json!({ "slug": "helper" }))?,
        scope: Scope::Organization,
        tools: vec![ToolSelector {
            entry,
            tool: ToolSelector::ALL.to_owned(),
            credential: CredentialChoice::ResolveAtCallTime,
        }],
        identity_provider: None,
        author: None,
        apply_set: None,
        user_teams: BTreeSet::new(),
    };
    lifecycle.save_consumer(None, agent, Expect::Absent).await?;
    let now = CatalogStore::commit(&store, CatalogChanges::new()).await?;
    platform.synced(Some(now), Duration::from_secs(5)).await?;

    // From within the program there is no HTTP and no token between an agent and its tools.
    for tool in platform.agent("helper").tools()? {
        writeln!(std::io::stdout(), "{}", tool.name)?;
    }

    // The same platform for everybody else, until Ctrl-C: `/v1/mcp/helper`, `/api/v1`, `/health/ready`.
    let shutdown = CancellationToken::new();
    let interrupted = async {
        tokio::signal::ctrl_c().await.ok();
        shutdown.cancel();
    };
    let listener = TcpListener::bind("127.0.0.1:9000").await?;
    let (served, ()) = tokio::join!(platform.serve(listener, shutdown.clone()), interrupted);
    platform.shutdown().await;
    store.close().await;
    Ok(served?)
}
