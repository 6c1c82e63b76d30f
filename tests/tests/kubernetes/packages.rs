//! Servers that are fetched when they start, on the base image: one from npm by npx, one from PyPI by uvx.
//!
//! `ARCHESTRA_TEST_BASE_IMAGE` names the image, as `archestra-k8s/deploy/images/build` makes it. Where pods do not reach the registries
//! themselves, `ARCHESTRA_TEST_NPM_REGISTRY` and `ARCHESTRA_TEST_PYPI_INDEX` name others.

use archestra_tests::{
    Home,
    cluster::Cluster,
    hosted::{self, eventually, gateway, save, until_running},
    mcp::text,
};
use serde_json::{Value, json};
use tokio::time::Instant;

#[expect(clippy::disallowed_methods, reason = "the environment says where real parts are")]
fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

/// A variable of a server that says where it fetches packages, if it is told.
fn registry(variable: &str, named_by: &str) -> Value {
    env(named_by).map_or_else(|| json!([]), |url| json!([{ "name": variable, "value": url }]))
}

/// The private networks that the registries are in.
fn networks() -> String {
    let urls = ["ARCHESTRA_TEST_NPM_REGISTRY", "ARCHESTRA_TEST_PYPI_INDEX"].into_iter().filter_map(env);
    let hosts = urls.filter_map(|url| Some(url.split_once("://")?.1.split([':', '/']).next()?.to_owned()));
    let addresses = hosts.filter(|host| host.parse::<std::net::Ipv4Addr>().is_ok());
    addresses.map(|host| format!("{host}/32")).collect::<Vec<_>>().join(",")
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn the_base_image_runs_servers_from_npm_and_pypi() {
    let image = env("ARCHESTRA_TEST_BASE_IMAGE").expect("ARCHESTRA_TEST_BASE_IMAGE is set: eval \"$(.ci/k8s)\"");
    let cluster = Cluster::namespace("packages").await;
    let home = Home::new();
    let networks = networks();
    let mut flags = vec!["--base-image", &image, "--start-timeout", "300s"];
    if !networks.is_empty() {
        flags.extend(["--workload-egress", &networks]);
    }
    let binary = cluster.start(&home, &flags).await;
    let npm = json!({ "command": ["npx", "-y", "@modelcontextprotocol/server-everything@2026.8.31"],
        "env": registry("NPM_CONFIG_REGISTRY", "ARCHESTRA_TEST_NPM_REGISTRY"), "transport": "stdio" });
    let pypi = json!({ "command": ["uvx", "mcp-server-time@2026.10.19"],
        "env": registry("UV_DEFAULT_INDEX", "ARCHESTRA_TEST_PYPI_INDEX"), "transport": "stdio" });
    let servers = [
        ("npm", npm, "echo", json!({ "message": "fetched" }), "Echo: fetched"),
        ("pypi", pypi, "get_current_time", json!({ "timezone": "Asia/Tokyo" }), "Asia/Tokyo"),
    ];
    let begun = Instant::now();
    let mut ids = Vec::new();
    for (name, server, ..) in &servers {
        save(&binary, name, server).await;
        ids.push(hosted::install(&binary, name, json!("organization"), json!({})).await);
    }
    for id in &ids {
        until_running(&binary, id).await;
    }
    println!("both have been fetched and run after {:?}", begun.elapsed());
    let front = gateway(&binary, "all", &["npm", "pypi"]).await;
    for (name, _, tool, arguments, said) in servers {
        let tool = format!("{name}__{tool}");
        front.until_listed(&tool).await;
        let answer = eventually(&front, &tool, arguments).await;
        assert!(text(&answer).contains(said), "{answer}");
    }
    for id in &ids {
        assert_eq!(binary.api().delete(&format!("/api/v1/installations/{id}")).await.status, 204);
    }
    cluster.cleared(hosted::LIMIT).await;
    assert!(binary.stop().await.success());
    cluster.delete().await;
}
