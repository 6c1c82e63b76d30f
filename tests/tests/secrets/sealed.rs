//! An OpenBao that is sealed and unsealed while calls and changes go on: what was read serves for its time, the rest fails with
//! the reason, nothing that was acknowledged is lost, no call carries a wrong credential, and all goes on without a restart.

use crate::apply;
use archestra_tests::{Answer, Home, Mcp, Running, openbao::OpenBao, upstream::Upstream};
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

/// Servers that are called all the time.
const WARM: usize = 4;
/// Servers whose credential somebody changes all the time.
const CHANGED: usize = 2;
const ROUNDS: usize = 3;
const SEALED: Duration = Duration::from_secs(4);
/// For longer than this nothing that was read is used.
const FORGOTTEN: Duration = Duration::from_secs(66);
/// Until all goes on again.
const RECOVERY: Duration = Duration::from_secs(30);

fn tokens(kind: &str, count: usize) -> BTreeMap<String, String> {
    (0..count).map(|n| (format!("{kind}{n}"), format!("canary-{kind}{n}-0"))).collect()
}

/// A call, which carries the right credential or fails with the reason; what the server was sent.
async fn call(gateway: &Mcp, name: &str) -> Result<String, String> {
    let result = gateway.call(&format!("{name}__echo"), json!({})).await;
    let text = result["content"][0]["text"].as_str().unwrap_or_default().to_owned();
    if result["isError"] == true {
        assert!(text.contains("cannot be read right now"), "{result}");
        assert!(!text.contains("canary"), "{text}");
        return Err(text);
    }
    let sent = text.strip_prefix(&format!("/mcp/{name} Bearer canary-{name}-"));
    Ok(sent.unwrap_or_else(|| panic!("{name} was sent something else: {text}")).to_owned())
}

/// One server's credential, changed again and again; the last change that was acknowledged, and the last that was tried.
struct Changing {
    name: String,
    acknowledged: AtomicU64,
    tried: AtomicU64,
    refused: AtomicU64,
}

impl Changing {
    async fn go_on(&self, binary: &Running, upstream: &Upstream, stop: &AtomicBool) {
        while !stop.load(Ordering::SeqCst) {
            let n = self.tried.fetch_add(1, Ordering::SeqCst) + 1;
            let token = BTreeMap::from([(self.name.clone(), format!("canary-{}-{n}", self.name))]);
            let mut changed = upstream.servers("unused", &token);
            for other in ["entries", "gateways"] {
                changed.as_object_mut().unwrap().remove(other);
            }
            let answer = apply(binary, &changed).await;
            if answer.status == 200 {
                self.acknowledged.store(n, Ordering::SeqCst);
            } else {
                refused(&answer);
                self.refused.fetch_add(1, Ordering::SeqCst);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A change that did not happen says why, and what was to be changed is not in it.
fn refused(answer: &Answer) {
    let text = answer.text();
    assert!(matches!(answer.status, 502..=504), "{} {text}", answer.status);
    assert!(text.contains("vault is not available") || text.contains("took longer"), "{text}");
    assert!(!text.contains("canary"), "{text}");
}

async fn until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let until = Instant::now() + RECOVERY;
    while !holds().await {
        assert!(Instant::now() < until, "{what}: not within {RECOVERY:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs OpenBao"]
async fn sealed_and_unsealed_under_load_nothing_is_lost_and_nothing_is_served_that_should_not_be() {
    let (bao, home) = (OpenBao::start().await, Home::new());
    let upstream = Arc::new(Upstream::start().await);
    let binary = Arc::new(home.start(&bao.start_with("vault")).await);
    for (kind, count) in [("warm", WARM), ("changed", CHANGED), ("cold", ROUNDS)] {
        apply(&binary, &upstream.servers(kind, &tokens(kind, count))).await.ok();
    }
    // Installing reads a credential, which then serves for a while.
    sleep(FORGOTTEN).await;
    let [warm, changed, cold] = ["warm", "changed", "cold"].map(|kind| binary.gateway(kind));
    for n in 0..WARM {
        warm.until_listed(&format!("warm{n}__echo")).await;
        call(&warm, &format!("warm{n}")).await.unwrap();
    }
    cold.until_listed(&format!("cold{}__echo", ROUNDS - 1)).await;

    let stop = Arc::new(AtomicBool::new(false));
    let mut working = JoinSet::new();
    for caller in 0..2 * WARM {
        let (warm, stop) = (warm.clone(), Arc::clone(&stop));
        working.spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                // These were read a moment ago, or are read again when that was too long ago.
                call(&warm, &format!("warm{}", caller % WARM)).await.ok();
                sleep(Duration::from_millis(10)).await;
            }
        });
    }
    let changing: Vec<_> = (0..CHANGED)
        .map(|n| {
            let (name, zero) = (format!("changed{n}"), || AtomicU64::new(0));
            let one = Arc::new(Changing { name, acknowledged: zero(), tried: zero(), refused: zero() });
            let (own, binary, upstream, stop) =
                (Arc::clone(&one), Arc::clone(&binary), Arc::clone(&upstream), Arc::clone(&stop));
            working.spawn(async move { own.go_on(&binary, &upstream, &stop).await });
            one
        })
        .collect();

    for round in 0..ROUNDS {
        sleep(Duration::from_secs(2)).await;
        bao.seal().await;
        let sealed = Instant::now();
        let untouched = format!("cold{round}");
        // What was read before the seal is used, and for what was not there is no way around.
        call(&warm, "warm0").await.expect("what was read a moment ago serves");
        call(&cold, &untouched).await.expect_err("what was never read cannot serve");
        let more = apply(&binary, &upstream.servers("more", &tokens("more", 1))).await;
        refused(&more);
        assert_eq!(binary.api().get("/health/live").await.status, 200);
        assert_eq!(warm.as_token(Some("arch_nobody")).modern("tools/list", json!({})).await.status, 401);
        assert!(upstream.seen().iter().all(|credential| !credential.contains("more")), "a refused change was used");
        sleep(SEALED.saturating_sub(sealed.elapsed())).await;
        bao.unseal().await;
        until("a call after the seal", || async { call(&cold, &untouched).await.is_ok() }).await;
        let before: Vec<_> = changing.iter().map(|one| one.acknowledged.load(Ordering::SeqCst)).collect();
        until("changes after the seal", || async {
            changing.iter().zip(&before).all(|(one, before)| one.acknowledged.load(Ordering::SeqCst) > *before)
        })
        .await;
    }
    stop.store(true, Ordering::SeqCst);
    while let Some(ended) = working.join_next().await {
        ended.unwrap();
    }
    for one in &changing {
        let [acknowledged, tried, refused] =
            [&one.acknowledged, &one.tried, &one.refused].map(|count| count.load(Ordering::SeqCst));
        assert!(refused > 0, "no change met the seal");
        // The last answer is acted on by the time it is given; a change that was refused may have been the last one.
        let served: u64 = call(&changed, &one.name).await.unwrap().parse().unwrap();
        assert!(served >= acknowledged && served <= tried, "{acknowledged} was acknowledged, {served} is served");
    }
    let log = binary.log();
    assert!(log.contains("it is sealed; unseal it") && !log.contains("canary"), "the log says why, and no credential");
    let binary = Arc::into_inner(binary).unwrap();
    assert!(binary.stop().await.success());
}
