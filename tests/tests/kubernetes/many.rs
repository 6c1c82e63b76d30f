//! Many installations of a small server, and what they ask of the API server.
//!
//! `ARCHESTRA_TEST_INSTALLATIONS` says how many, 10 if it is absent; `ARCHESTRA_TEST_SECONDS` how long they are left alone.

use archestra_tests::{
    Home, Running,
    cluster::Cluster,
    hosted::{self, gateway, save, until_running},
    mcp::text,
    processes,
};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

/// How many are installed, or removed, at the same time.
const AT_ONCE: usize = 8;
/// How many requests of the API server one installation may take until it runs, and until it is gone.
const INSTALLED: u64 = 15;
const REMOVED: u64 = 20;
/// How many requests there may be at rest that are no watches, however many servers there are: what was left behind is looked for
/// from time to time, and a watch that ended too early begins with a list.
const NOW_AND_THEN: u64 = 16;

fn number(name: &str, default: u64) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the environment says how much is to be tested")]
    let found = std::env::var(name);
    found.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[tokio::test]
#[ignore = "needs a Kubernetes cluster"]
async fn many_small_servers_run_and_ask_for_nothing_at_rest() {
    let count = number("ARCHESTRA_TEST_INSTALLATIONS", 10);
    let rest = Duration::from_secs(number("ARCHESTRA_TEST_SECONDS", 20).max(20));
    let cluster = Cluster::namespace("many").await;
    let home = Home::new();
    let binary = cluster.start(&home, &["--workload-requests", "cpu=5m,memory=16Mi"]).await;
    let names: Vec<_> = (0..count).map(|n| format!("echo-{n}")).collect();
    for name in &names {
        save(&binary, name, &json!({ "command": ["/mcp-echo"], "transport": "stdio" })).await;
    }
    sleep(Duration::from_secs(2)).await;
    let (before, empty) = (Asked::so_far(&binary).await, processes::resident(binary.id()));

    let begun = Instant::now();
    let api = binary.api();
    let ids = each(&names, |name| {
        let api = api.clone();
        async move {
            let body = json!({ "entry": name, "scope": "organization" });
            api.post("/api/v1/installations", &body).await.ok()["id"].as_str().unwrap().to_owned()
        }
    })
    .await;
    let accepted = begun.elapsed();
    for id in &ids {
        let left = Duration::from_secs(10 * count).saturating_sub(begun.elapsed());
        let running = tokio::time::timeout(left.max(hosted::LIMIT), until_running(&binary, id)).await;
        running.unwrap_or_else(|_| panic!("{id} does not run"));
    }
    let running = begun.elapsed();
    let installing = Asked::so_far(&binary).await.since(&before);
    assert_eq!(cluster.pods().await.len() as u64, count);

    let front = gateway(&binary, "all", &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let servers = each(&names, |name| {
        let front = front.clone();
        async move { text(&hosted::eventually(&front, &format!("{name}__whoami"), json!({})).await).to_owned() }
    })
    .await;
    assert_eq!(servers.into_iter().collect::<BTreeSet<_>>().len() as u64, count, "each has its own process");
    let begun = Instant::now();
    for id in &ids {
        assert_eq!(hosted::status(&binary, id).await["workload"]["phase"], "running");
    }
    let asked_status = begun.elapsed();

    sleep(Duration::from_secs(5)).await;
    let quiet = Asked::so_far(&binary).await;
    sleep(rest).await;
    let resting = Asked::so_far(&binary).await.since(&quiet);
    let resident = processes::resident(binary.id());

    let (before, begun) = (Asked::so_far(&binary).await, Instant::now());
    each(&ids, |id| {
        let api = api.clone();
        async move { assert_eq!(api.delete(&format!("/api/v1/installations/{id}")).await.status, 204) }
    })
    .await;
    let removed = begun.elapsed();
    let removing = Asked::so_far(&binary).await.since(&before);
    cluster.emptied(hosted::LIMIT).await;
    let emptied = begun.elapsed();

    println!(
        "{count} installations: accepted in {accepted:?}, all running after {running:?}; removed in {removed:?}, no pod left after {emptied:?}"
    );
    println!(
        "status of one: {:?}; memory of the platform: {} KiB for each",
        asked_status / ids.len() as u32,
        resident.saturating_sub(empty) / 1024 / count
    );
    println!(
        "requests for each installation until it runs: {:.1}: {installing}",
        installing.total() as f64 / count as f64
    );
    println!("requests for each removal: {:.1}: {removing}", removing.total() as f64 / count as f64);
    println!("requests at rest in {rest:?} with all of them: {resting}");
    cluster.cleared(hosted::LIMIT).await;
    assert!(installing.total() <= INSTALLED * count + 50, "{installing}");
    assert!(removing.total() <= REMOVED * count + 50, "{removing}");
    assert!(resting.others() <= NOW_AND_THEN, "{resting}");
    assert!(binary.stop().await.success());
    cluster.delete().await;
}

/// Does this for each of them, few at the same time.
async fn each<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    names: &[String],
    act: impl Fn(String) -> F,
) -> Vec<T> {
    let (mut under_way, mut done, mut names) = (JoinSet::new(), Vec::new(), names.iter());
    loop {
        while under_way.len() < AT_ONCE
            && let Some(name) = names.next()
        {
            under_way.spawn(act(name.clone()));
        }
        match under_way.join_next().await {
            Some(ended) => done.push(ended.unwrap()),
            None => return done,
        }
    }
}

/// How often the API server was asked for what.
struct Asked(BTreeMap<String, u64>);

impl Asked {
    async fn so_far(binary: &Running) -> Self {
        let metrics = binary.metrics().await;
        let lines = metrics.lines().filter_map(|line| line.strip_prefix("runtime_requests_total{"));
        let counts = lines.map(|line| {
            let (labels, count) = line.rsplit_once("} ").unwrap();
            let value = |name: &str| {
                let (_, rest) = labels.split_once(&format!("{name}=\"")).unwrap();
                rest.split_once('"').unwrap().0
            };
            (format!("{} {}", value("verb"), value("resource")), count.parse().unwrap())
        });
        let counts: BTreeMap<_, _> = counts.collect();
        assert!(!counts.is_empty(), "no requests are counted: {metrics}");
        Self(counts)
    }

    fn since(&self, before: &Self) -> Self {
        let more = self.0.iter().map(|(what, count)| (what.clone(), count - before.0.get(what).unwrap_or(&0)));
        Self(more.filter(|(_, count)| *count > 0).collect())
    }

    fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// All but those that watch.
    fn others(&self) -> u64 {
        self.0.iter().filter(|(what, _)| !what.starts_with("watch ")).map(|(_, count)| count).sum()
    }
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let told: Vec<_> = self.0.iter().map(|(what, count)| format!("{count} {what}")).collect();
        f.write_str(if told.is_empty() { "none" } else { "" })?;
        f.write_str(&told.join(", "))
    }
}
