//! How to test a gateway of your own without processes, databases or a network: in-memory backends, a server that answers by
//! script, and the platform as it is.
//!
//! ```sh
//! cargo test --example test_your_gateway
//! ```

use archestra_core::{
    catalog::Scope,
    consumer::{ConsumerKind, CredentialChoice, ToolSelector},
    id::{EntryId, InstallationId},
    installation::Owner,
    runtime::Phase,
    secret::{Expect, KeyRing},
    testing::{
        Answer, MemoryAudit, MemoryCatalog, MemoryIdentity, MemorySecrets, MemoryState, ScriptedRuntime, ScriptedServer,
    },
};
use archestra_gateway::{
    lifecycle::{ConsumerDraft, EntryDraft, InstallRequest},
    platform::{Agent, Platform},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    io::Write,
    sync::Arc,
    time::Duration,
};
use tokio::time::{sleep, timeout};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// An agent closes tickets through a server that the platform runs. What the server does is up to the test.
async fn an_agent_closes_a_ticket() -> Outcome {
    let tickets = ScriptedServer::new("tickets").tool("close", |arguments| match arguments["id"].as_u64() {
        Some(0) => Answer::crash("ticket 0 is cursed"),
        Some(id) => Answer::text(format!("closed {id}")),
        None => Answer::tool_error("which ticket?"),
    });
    let runtime = ScriptedRuntime::new(tickets);
    let platform = platform(&runtime).await?;
    let entry = entry(&platform, "tickets").await?;
    install(&platform, entry).await?;
    let agent = agent(&platform, "closer", entry).await?;

    let answer = agent.call("tickets__close", &json!({ "id": 7 })).await?;
    assert_eq!(text(&answer), "closed 7");

    let answer = agent.call("tickets__close", &json!({})).await?;
    assert_eq!((text(&answer), &answer["isError"]), ("which ticket?", &json!(true)));

    // A server that dies fails the call that it had, clearly, and serves the next one after its restart.
    let answer = agent.call("tickets__close", &json!({ "id": 0 })).await?;
    assert_eq!(answer["isError"], json!(true), "{answer}");
    let workload = runtime.calls().last().map(|call| call.workload.clone()).ok_or("no call was recorded")?;
    runtime.until(&workload, Phase::Running).await;
    let answer = agent.call("tickets__close", &json!({ "id": 8 })).await?;
    assert_eq!(text(&answer), "closed 8");

    // The runtime recorded what reached the server.
    assert_eq!(runtime.calls().last().map(|call| &call.arguments), Some(&json!({ "id": 8 })));
    platform.shutdown().await;
    Ok(())
}

async fn platform(runtime: &ScriptedRuntime) -> Outcome<Platform> {
    // Whoever was first installed the same one.
    let _installed_before = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let platform = Platform::builder()
        .catalog(Arc::new(MemoryCatalog::new()))
        .identity(Arc::new(MemoryIdentity::new()))
        .secrets(Arc::new(MemorySecrets::new()))
        .state(Arc::new(MemoryState::new()))
        .audit(Arc::new(MemoryAudit::new()))
        .runtime(Arc::new(runtime.clone()))
        .key_ring(Arc::new(KeyRing::generate()?));
    Ok(platform.build().await?)
}

async fn entry(platform: &Platform, name: &str) -> Outcome<EntryId> {
    let spec = serde_json::from_value(json!({ "name": name, "selfHosted": { "command": ["scripted"] } }))?;
    let draft = EntryDraft { spec, scope: Scope::Organization, author: None, apply_set: None, saved_by_admin: true };
    Ok(platform.lifecycle().save_entry(None, draft, Expect::Absent).await?.value.id)
}

async fn install(platform: &Platform, entry: EntryId) -> Outcome<InstallationId> {
    let request =
        InstallRequest { entry, owner: Owner::Organization, values: BTreeMap::new(), author: None, apply_set: None };
    Ok(platform.lifecycle().install(request).await?.value.id)
}

/// An agent with all tools of an entry, once they have been discovered.
async fn agent(platform: &Platform, slug: &str, entry: EntryId) -> Outcome<Agent> {
    let draft = ConsumerDraft {
        kind: ConsumerKind::Agent,
        spec: serde_json::from_value(json!({ "slug": slug }))?,
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
    platform.lifecycle().save_consumer(None, draft, Expect::Absent).await?;
    let agent = platform.agent(slug);
    let discovered = async {
        while agent.tools().is_ok_and(|tools| tools.is_empty()) || agent.tools().is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(10), discovered).await?;
    Ok(agent)
}

fn text(answer: &Value) -> &str {
    answer["content"][0]["text"].as_str().unwrap_or_default()
}

#[tokio::main]
async fn main() -> Outcome {
    an_agent_closes_a_ticket().await?;
    writeln!(std::io::stdout(), "it works")?;
    Ok(())
}

#[cfg(test)]
#[tokio::test]
async fn your_gateway_works() {
    an_agent_closes_a_ticket().await.unwrap();
}
