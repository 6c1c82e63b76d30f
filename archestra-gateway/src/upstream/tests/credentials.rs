//! What requests carry, where it comes from, and what happens when it cannot be had.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use archestra_core::credential::CredentialPlan;
use archestra_core::secret::SecretRef;
use serde_json::{Value, json};

use super::peer::{Peer, json_reply, modern, reply, result};
use super::support::{Caller, Secrets, entry, installation, modern_call, options, remote, upstreams, upstreams_with};
use crate::upstream::{CredentialFault, Target, UpstreamError, UpstreamOptions, Upstreams};

async fn echo() -> Peer {
    modern(|seen| async move {
        if seen.header("authorization") == "Bearer revoked" {
            return reply(401, "text/plain", "");
        }
        json_reply(&result(&seen.message["id"], &json!({ "resultType": "complete" })))
    })
    .await
}

fn at(reference: &str) -> Option<SecretRef> {
    Some(reference.parse().unwrap())
}

fn static_target(url: &str) -> Arc<Target> {
    let mut entry = entry(json!({
        "name": "tracker", "remote": { "url": url },
        "credential": { "static": [
            { "name": "token", "header": "Authorization", "prefix": "Bearer ", "required": true },
            { "name": "shared", "header": "X-Shared", "value": { "stored": true } },
            { "name": "account", "header": "X-Account", "secret": false, "prompt": true },
        ] },
        "additionalHeaders": [{ "name": "x-tenant", "prompt": true }, { "name": "x-kind", "value": "fixed" }],
    }));
    entry.secrets = at("entry/a/1");
    let mut installation = installation(&entry);
    installation.values.insert("account".to_owned(), "acc".to_owned());
    installation.values.insert("x-tenant".to_owned(), "acme".to_owned());
    installation.secret_fields.insert("token".to_owned());
    installation.secrets = at("installation/b/1");
    Arc::new(Target::new(Arc::new(entry), Arc::new(installation)))
}

fn plan() -> CredentialPlan {
    CredentialPlan::Static { installation: at("installation/b/1"), entry: at("entry/a/1") }
}

fn stored() -> Arc<Secrets> {
    let secrets = Secrets::with("installation/b/1", &[("token", "t0k")]);
    secrets.set("entry/a/1", &[("field.shared", "sh4red")]);
    secrets
}

fn caller() -> Caller {
    Caller::modern(modern_call("1", "")).with(plan())
}

#[tokio::test]
async fn static_fields_come_from_where_they_are_kept_and_are_read_once() {
    let (peer, secrets) = (echo().await, stored());
    let (upstreams, target) = (upstreams_with(options(), None, Arc::clone(&secrets)), static_target(&peer.url()));
    let calls = (0..16).map(|_| {
        let (upstreams, target) = (upstreams.clone(), Arc::clone(&target));
        tokio::spawn(async move { caller().message(&upstreams, &target).await })
    });
    futures::future::join_all(calls).await.into_iter().for_each(|call| drop(call.unwrap()));
    assert_eq!(secrets.reads.load(Ordering::SeqCst), 2, "one read of each bundle serves all");
    for seen in peer.all() {
        for (name, value) in [
            ("authorization", "Bearer t0k"),
            ("x-shared", "sh4red"),
            ("x-account", "acc"),
            ("x-tenant", "acme"),
            ("x-kind", "fixed"),
        ] {
            assert_eq!(seen.header(name), value, "{name} of {}", seen.method());
        }
    }
    upstreams.forget(target.installation().id);
    caller().message(&upstreams, &target).await;
    assert_eq!(secrets.reads.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn what_cannot_be_read_is_never_left_out() {
    let peer = echo().await;
    let outcome = |secrets: Arc<Secrets>| {
        let (upstreams, target) = (upstreams_with(options(), None, secrets), static_target(&peer.url()));
        async move { caller().messages(&upstreams, &target).await }
    };
    let secrets = stored();
    secrets.down.store(true, Ordering::SeqCst);
    let down = outcome(secrets).await.unwrap_err();
    assert!(
        matches!(down, UpstreamError::Credential { fault: CredentialFault::StoreUnavailable { .. }, .. }),
        "{down}"
    );
    assert!(!down.client_text().contains("vault"));

    let secrets = stored();
    secrets.set("installation/b/1", &[]);
    let missing = outcome(secrets).await.unwrap_err();
    assert!(
        matches!(&missing, UpstreamError::Credential { fault: CredentialFault::Missing { field }, .. } if field == "token"),
        "{missing}"
    );

    let secrets = stored();
    secrets.set("entry/a/1", &[]);
    let missing = outcome(secrets).await.unwrap_err();
    assert!(
        matches!(&missing, UpstreamError::Credential { fault: CredentialFault::Missing { field }, .. } if field == "shared"),
        "{missing}"
    );

    let gone = outcome(Arc::default()).await.unwrap_err();
    assert!(
        matches!(gone, UpstreamError::Credential { fault: CredentialFault::StoreUnavailable { .. }, .. }),
        "{gone}"
    );

    let secrets = stored();
    secrets.set("installation/b/1", &[("token", "two\nlines s3cr3t")]);
    let unsendable = outcome(secrets).await.unwrap_err();
    assert!(matches!(unsendable, UpstreamError::Credential { fault: CredentialFault::Unsendable { .. }, .. }));
    assert!(!format!("{unsendable} {unsendable:?}").contains("s3cr3t"));
    assert!(peer.all().is_empty());
}

#[tokio::test]
async fn a_refused_credential_is_read_again_for_the_next_call() {
    let (peer, secrets) = (echo().await, stored());
    secrets.set("installation/b/1", &[("token", "revoked")]);
    let (upstreams, target) = (upstreams_with(options(), None, Arc::clone(&secrets)), static_target(&peer.url()));
    let outcome = caller().messages(&upstreams, &target).await;
    assert!(matches!(outcome, Err(UpstreamError::Unauthorized { .. })), "{outcome:?}");
    secrets.set("installation/b/1", &[("token", "renewed")]);
    caller().message(&upstreams, &target).await;
}

/// Upstreams that may use what is kept elsewhere for so long.
fn referring(secrets: &Arc<Secrets>, credential_ttl: Duration) -> Upstreams {
    secrets.refers.store(true, Ordering::SeqCst);
    upstreams_with(UpstreamOptions { credential_ttl, ..options() }, None, Arc::clone(secrets))
}

#[tokio::test]
async fn what_the_store_keeps_itself_holds_for_a_minute() {
    let (peer, secrets) = (echo().await, stored());
    let kept = UpstreamOptions { credential_ttl: Duration::ZERO, ..options() };
    let (upstreams, target) = (upstreams_with(kept, None, Arc::clone(&secrets)), static_target(&peer.url()));
    caller().message(&upstreams, &target).await;
    upstreams.skip(Duration::from_secs(25));
    caller().message(&upstreams, &target).await;
    assert_eq!(secrets.reads.load(Ordering::SeqCst), 2, "it is not half as old yet");
    secrets.down.store(true, Ordering::SeqCst);
    upstreams.skip(Duration::from_secs(10));
    caller().message(&upstreams, &target).await;
    upstreams.skip(Duration::from_secs(30));
    let outcome = caller().messages(&upstreams, &target).await;
    let Err(UpstreamError::Credential { fault: CredentialFault::StoreUnavailable { .. }, .. }) = outcome else {
        panic!("{outcome:?}");
    };
}

#[tokio::test]
async fn what_is_kept_elsewhere_is_read_again_while_calls_go_on() {
    let secrets = stored();
    let upstreams = referring(&secrets, Duration::from_secs(600));
    renewed_while_calls_go_on(&secrets, &upstreams, Duration::from_secs(301)).await;
}

#[tokio::test]
async fn what_is_changed_in_its_place_is_read_again_while_calls_go_on() {
    let secrets = stored();
    let upstreams = upstreams_with(options(), None, Arc::clone(&secrets));
    renewed_while_calls_go_on(&secrets, &upstreams, Duration::from_secs(31)).await;
}

/// The value changes, and is used without a call that waits, once what was read is older than `half` of what it may be.
async fn renewed_while_calls_go_on(secrets: &Secrets, upstreams: &Upstreams, half: Duration) {
    let peer = echo().await;
    let target = static_target(&peer.url());
    caller().message(upstreams, &target).await;
    secrets.set("installation/b/1", &[("token", "renewed")]);
    secrets.slow.store(true, Ordering::SeqCst);
    upstreams.skip(half);
    // The store does not answer yet, and nobody waits for it.
    for _ in 0..3 {
        caller().message(upstreams, &target).await;
    }
    let last = || peer.seen("tools/call").last().unwrap().header("authorization").to_owned();
    assert_eq!(last(), "Bearer t0k");
    assert_eq!(secrets.reads.load(Ordering::SeqCst), 3, "one attempt for all, which waits for its first answer");
    secrets.slow.store(false, Ordering::SeqCst);
    secrets.go.notify_one();
    for _ in 0..3000 {
        caller().message(upstreams, &target).await;
        if last() == "Bearer renewed" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the new value is never used");
}

#[tokio::test]
async fn what_cannot_be_read_again_in_time_is_used_no_more() {
    let (peer, secrets) = (echo().await, stored());
    let (upstreams, target) = (referring(&secrets, Duration::from_secs(600)), static_target(&peer.url()));
    caller().message(&upstreams, &target).await;
    secrets.down.store(true, Ordering::SeqCst);
    upstreams.skip(Duration::from_secs(301));
    caller().message(&upstreams, &target).await;
    upstreams.skip(Duration::from_secs(301));
    let outcome = caller().messages(&upstreams, &target).await;
    let Err(UpstreamError::Credential { fault: CredentialFault::StoreUnavailable { .. }, .. }) = outcome else {
        panic!("{outcome:?}");
    };
    secrets.down.store(false, Ordering::SeqCst);
    caller().message(&upstreams, &target).await;
}

#[tokio::test]
async fn headers_of_a_resolver_are_used_until_they_expire() {
    let peer = echo().await;
    let (upstreams, target) = (upstreams(), remote(&peer.url()));
    let given = |expires_at| CredentialPlan::Headers { headers: vec![("X-Key".to_owned(), "k".into())], expires_at };
    let now = SystemTime::now();
    let fresh = Caller::modern(modern_call("1", "")).with(given(Some(now + Duration::from_secs(60))));
    fresh.message(&upstreams, &target).await;
    assert_eq!(peer.seen("tools/call")[0].header("x-key"), "k");
    let stale = Caller::modern(modern_call("1", "")).with(given(Some(now - Duration::from_secs(1))));
    let outcome = stale.messages(&upstreams, &target).await;
    assert!(matches!(outcome, Err(UpstreamError::Credential { fault: CredentialFault::Expired, .. })), "{outcome:?}");
}

#[tokio::test]
async fn plans_that_cannot_be_carried_out_are_refused() {
    let peer = echo().await;
    let (upstreams, target) = (upstreams(), remote(&peer.url()));
    let plans = [
        CredentialPlan::OAuth { installation: "a/b/c".parse().unwrap(), entry: None },
        CredentialPlan::ClientCredentials { installation: None, entry: None },
        CredentialPlan::Passthrough,
    ];
    for plan in plans {
        let outcome: Result<Vec<Value>, _> =
            Caller::modern(modern_call("1", "")).with(plan).messages(&upstreams, &target).await;
        let Err(UpstreamError::Credential { fault: CredentialFault::NotAvailable { .. }, .. }) = outcome else {
            panic!("{outcome:?}");
        };
    }
    assert!(peer.all().is_empty());
}

#[tokio::test]
async fn nothing_prints_a_credential() {
    let (peer, secrets) = (echo().await, stored());
    let (upstreams, target) = (upstreams_with(options(), None, secrets), static_target(&peer.url()));
    caller().message(&upstreams, &target).await;
    let shown = format!("{upstreams:?} {target:?}");
    assert!(!shown.contains("t0k") && !shown.contains("sh4red"), "{shown}");
}
