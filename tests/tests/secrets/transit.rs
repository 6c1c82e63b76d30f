//! A key file whose keys are wrapped by a transit key: made at the first start, opened at each other one, and no use without it.

use crate::{TOKEN, apply, leaks, run, works};
use archestra_tests::{Home, Start, openbao::OpenBao, postgres, upstream::Upstream};
use serde_json::{Value, json};
use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

async fn server() -> OpenBao {
    let bao = OpenBao::start().await;
    for name in ["archestra", "other"] {
        bao.post(&format!("transit/keys/{name}"), &json!({})).await.ok();
    }
    bao
}

fn with(bao: &OpenBao, more: &[&str]) -> Start {
    let mut start = bao.start_with("database");
    start.args.extend(["--key-transit", "archestra"].map(str::to_owned));
    start.args.extend(more.iter().map(|arg| (*arg).to_owned()));
    start
}

fn document(upstream: &Upstream) -> Value {
    upstream.document(&json!({"entry": "tracker", "scope": "organization", "values": {"token": TOKEN}}))
}

/// How a start ends that must not succeed.
fn refused(home: &Home, start: &Start, code: i32, told: &str) {
    let (ended, text) = run(home, &["--listen", "127.0.0.1:0", "--metrics-listen", "none"], start);
    assert!(ended == code && text.contains(told), "{ended} {text}");
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn keys_are_made_unwrapped_and_rotated_and_vault_is_asked_at_the_start_alone() {
    let (bao, home, upstream) = (server().await, Home::new(), Upstream::start().await);
    let start = with(&bao, &[]);
    let binary = home.start(&start).await;
    apply(&binary, &document(&upstream)).await.ok();
    works(&binary.gateway("all"), &upstream, TOKEN).await;
    let file = home.path().join("data/archestra.key");
    let first = fs::read_to_string(&file).unwrap();
    assert!(first.lines().count() == 1 && first.contains(" vault:v1:"), "{first}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!leaks(home.path()));
    // From here on nobody needs Vault, neither for what is there nor for what is new.
    bao.seal().await;
    works(&binary.gateway("all"), &upstream, TOKEN).await;
    let renewed = json!({"entry": "tracker", "scope": "organization", "values": {"token": "canary-new"}});
    apply(&binary, &upstream.document(&renewed)).await.ok();
    works(&binary.gateway("all"), &upstream, "canary-new").await;
    binary.stop().await;

    refused(&home, &start, 1, "it is sealed");
    bao.unseal().await;
    let mut without = start.clone();
    without.args.truncate(4);
    refused(&home, &without, 2, "with --key-transit");
    refused(&home, &with(&bao, &["--key-transit-mount", "nowhere"]), 1, "no transit engine is mounted at nowhere");
    for (name, told) in
        [("other", "transit/decrypt/other does not take key"), ("none", "bao write -f transit/keys/none")]
    {
        let mut start = start.clone();
        *start.args.last_mut().unwrap() = name.to_owned();
        refused(&home, &start, 1, told);
    }
    write(&file, &format!("k2 {}\n", bao.wrapped_key("archestra").await));
    refused(&home, &start, 1, "the key ring lacks key");

    // Rotated: the new line on top, then without the old one.
    let newest = format!("k2 {}\n", bao.wrapped_key("archestra").await);
    write(&file, &format!("{newest}{first}"));
    let binary = home.start(&start).await;
    works(&binary.gateway("all"), &upstream, "canary-new").await;
    for _ in 0..200 {
        if binary.log().contains("older keys are no longer needed") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(binary.log().contains("older keys are no longer needed"), "{}", binary.log());
    binary.stop().await;
    write(&file, &newest);
    let binary = home.start(&start).await;
    works(&binary.gateway("all"), &upstream, "canary-new").await;
    binary.stop().await;
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn a_key_file_in_clear_is_moved_into_vault_by_a_rotation() {
    let (bao, home, upstream) = (server().await, Home::new(), Upstream::start().await);
    let binary = home.bare().await;
    apply(&binary, &document(&upstream)).await.ok();
    binary.stop().await;
    let start = with(&bao, &[]);
    refused(&home, &start, 1, "is in clear");
    let file = home.path().join("data/archestra.key");
    let clear = fs::read_to_string(&file).unwrap();
    write(&file, &format!("k2 {}\n{clear}", bao.wrapped_key("archestra").await));
    let binary = home.start(&start).await;
    works(&binary.gateway("all"), &upstream, TOKEN).await;
    assert!(binary.log().contains("a key of the key file is in clear"), "{}", binary.log());
    let key = clear.trim().split_once(' ').unwrap().1;
    assert!(!binary.log().contains(key));
    binary.stop().await;
}

#[tokio::test]
#[ignore = "needs OpenBao and PostgreSQL"]
async fn replicas_on_postgresql_share_wrapped_keys_and_refuse_others() {
    let (bao, upstream, database) = (server().await, Upstream::start().await, postgres::Database::new());
    let [one, two, three] = [Home::new(), Home::new(), Home::new()];
    let start = |more: &[&str]| {
        let mut start = with(&bao, more);
        start.env.push(("ARCHESTRA_DATABASE_URL", database.url()));
        start
    };
    refused(&one, &start(&[]), 2, "bao write -field=ciphertext -f transit/datakey/wrapped/archestra");
    let (shared, own) = (one.path().join("shared.key"), one.path().join("own.key"));
    write(&shared, &format!("k1 {}\n", bao.wrapped_key("archestra").await));
    write(&own, &format!("k1 {}\n", bao.wrapped_key("archestra").await));
    let named = |path: &Path| start(&["--key-file", path.to_str().unwrap()]);
    let first = one.start(&named(&shared)).await;
    apply(&first, &document(&upstream)).await.ok();
    // The same keys, by way of the variable.
    let mut variable = start(&[]);
    variable.env.push(("ARCHESTRA_KEY", fs::read_to_string(&shared).unwrap()));
    let second = two.start(&variable).await;
    for binary in [&first, &second] {
        works(&binary.gateway("all"), &upstream, TOKEN).await;
    }
    refused(&three, &named(&own), 1, "the key file does not fit the database");
    assert!(!database.run("SELECT encode(bytes, 'escape') FROM secrets").contains(TOKEN));
    first.stop().await;
    second.stop().await;
}
