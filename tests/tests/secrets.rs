//! Where secrets are: in Vault, kept there by people themselves, moved between stores, and carried along in backups.
//!
//! What needs OpenBao finds it by `ARCHESTRA_TEST_VAULT_ADDR` and `ARCHESTRA_TEST_VAULT_TOKEN`, as `.ci/openbao` prints them.
#![expect(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "this is test code")]

use archestra_tests::{Answer, Home, Mcp, Running, Start, binary, upstream::Upstream};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use std::{net::TcpListener, path::Path, process::Stdio};

#[path = "secrets/canaries.rs"]
mod canaries;
#[path = "secrets/sealed.rs"]
mod sealed;
#[path = "secrets/transit.rs"]
mod transit;

const TOKEN: &str = "canary-t0k-4711";

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; `eval \"$(.ci/openbao)\"` starts a server"))
}

/// One request of Vault's administrator.
async fn vault(method: &str, path: &str, body: &Value) -> (u16, Value) {
    let request = Request::builder()
        .method(Method::from_bytes(method.as_bytes()).unwrap())
        .uri(format!("{}/v1/{path}", variable("ARCHESTRA_TEST_VAULT_ADDR")))
        .header("x-vault-token", variable("ARCHESTRA_TEST_VAULT_TOKEN"))
        .body(Full::<Bytes>::from(body.to_string()))
        .unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let answer = client.request(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

/// A prefix that nothing else has.
fn prefix(name: &str) -> String {
    format!("test-{name}-{}", binary::free_port())
}

fn with(secrets: &str, prefix: &str) -> Start {
    let args = ["--secrets", secrets, "--vault-prefix", prefix, "--vault-address"];
    let mut args: Vec<String> = args.map(str::to_owned).to_vec();
    args.push(variable("ARCHESTRA_TEST_VAULT_ADDR"));
    let token = ("ARCHESTRA_VAULT_TOKEN", variable("ARCHESTRA_TEST_VAULT_TOKEN"));
    Start { args, env: vec![("ARCHESTRA_QUICKSTART", "false".to_owned()), token] }
}

/// The token that a start has for Vault.
fn vault_token(start: &Start) -> &str {
    let (_, token) = start.env.iter().find(|(name, _)| *name == "ARCHESTRA_VAULT_TOKEN").unwrap();
    token
}

async fn apply(binary: &Running, document: &Value) -> Answer {
    binary.api().post("/api/v1/apply", document).await
}

async fn works(gateway: &Mcp, upstream: &Upstream, credential: &str) {
    gateway.until_listed("tracker__echo").await;
    upstream.seen();
    gateway.call("tracker__echo", json!({})).await;
    assert_eq!(upstream.seen(), [format!("Bearer {credential}")]);
}

/// Runs a command of the binary on the data of `home`.
fn run(home: &Home, arguments: &[&str], start: &Start) -> (i32, String) {
    let (code, text) = home.run(arguments, start);
    assert!(!text.contains(TOKEN), "{text}");
    (code, text)
}

/// Whether any file below a folder holds the token.
fn leaks(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return leaks(&path);
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        bytes.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes())
    })
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn what_people_enter_is_kept_in_vault_and_removed_there() {
    let (home, upstream, prefix) = (Home::new(), Upstream::start().await, prefix("kept"));
    let binary = home.start(&with("vault", &prefix)).await;
    let document = upstream.document(&json!({"entry": "tracker", "scope": "organization", "values": {"token": TOKEN}}));
    apply(&binary, &document).await.ok();
    works(&binary.gateway("all"), &upstream, TOKEN).await;
    let unchanged = apply(&binary, &document).await.ok();
    assert!(!unchanged.to_string().contains("\"update\""), "{unchanged}");

    let folder = format!("secret/metadata/{prefix}/installations");
    let (status, listed) = vault("LIST", &folder, &Value::Null).await;
    assert_eq!((status, listed["data"]["keys"].as_array().unwrap().len()), (200, 1));
    assert!(!leaks(home.path()), "the token is in a file of the server");

    let installations = binary.api().get("/api/v1/installations").await.ok();
    let id = installations["items"][0]["id"].as_str().unwrap().to_owned();
    binary.api().delete(&format!("/api/v1/installations/{id}")).await.ok();
    assert_eq!(vault("LIST", &folder, &Value::Null).await.0, 404, "every version is gone");
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn people_bring_their_own_secrets() {
    let (home, upstream, prefix) = (Home::new(), Upstream::start().await, prefix("own"));
    let path = format!("secret/data/{prefix}/finance/tracker");
    assert_eq!(vault("POST", &path, &json!({"data": {"token": TOKEN}})).await.0, 200);
    let binary = home.start(&with("vault-readonly", &prefix)).await;
    let install = |scope: Value, token: Value| {
        upstream.document(&json!({"entry": "tracker", "scope": scope, "values": {"token": token}}))
    };
    let at = |path: &str| json!({"vault": format!("{path}#token")});
    let here = format!("{prefix}/finance/tracker");
    let finance = json!({"team": "finance"});
    for (scope, token, told) in [
        (finance.clone(), json!(TOKEN), "put the value into Vault"),
        (json!("organization"), at(&here), "install it for a team"),
        (finance.clone(), at("elsewhere/tracker"), "is not below"),
        (finance.clone(), at(&format!("{prefix}/../elsewhere")), "path#key"),
        (finance.clone(), at(&format!("{prefix}/nobody")), "there is nothing at"),
        (finance.clone(), json!({"vault": format!("{here}#absent")}), "there is no key absent"),
    ] {
        let refused = apply(&binary, &install(scope, token)).await;
        assert!((400..500).contains(&refused.status), "{} {}", refused.status, refused.text());
        assert!(refused.text().contains(told) && !refused.text().contains(TOKEN), "{told}: {}", refused.text());
    }
    let document = install(finance, at(&here));
    apply(&binary, &document).await.ok();
    works(&binary.gateway("all"), &upstream, TOKEN).await;
    let unchanged = apply(&binary, &document).await.ok();
    assert!(!unchanged.to_string().contains("\"update\""), "{unchanged}");
    assert!(!leaks(home.path()), "the token is in a file of the server");
    binary.stop().await;
    let binary = home.start(&with("vault-readonly", &prefix)).await;
    works(&binary.gateway("all"), &upstream, TOKEN).await;
    binary.stop().await;

    // Elsewhere a reference is neither a value nor anything that could be copied.
    let (code, text) =
        run(&home, &["secrets", "migrate", "--from", "database", "--to", "vault"], &with("vault", &prefix));
    assert!(
        code == 1 && text.contains("copied 0") && text.contains("1 secrets only say where in Vault"),
        "{code} {text}"
    );
    for secrets in ["database", "vault"] {
        let binary = home.start(&with(secrets, &prefix)).await;
        let gateway = binary.gateway("all");
        gateway.until_listed("tracker__echo").await;
        upstream.seen();
        let result = gateway.call("tracker__echo", json!({})).await;
        assert!(result["isError"] == true && upstream.seen().is_empty(), "{result}");
        binary.stop().await;
    }
    let binary = home.start(&with("database", &prefix)).await;
    apply(&binary, &install(json!({"team": "finance"}), json!("canary-anew"))).await.ok();
    works(&binary.gateway("all"), &upstream, "canary-anew").await;
}

#[tokio::test]
#[ignore = "needs OpenBao"]
async fn secrets_move_to_vault_and_back() {
    let (home, upstream, prefix) = (Home::new(), Upstream::start().await, prefix("moved"));
    let binary = home.bare().await;
    let document = upstream.document(&json!({"entry": "tracker", "scope": "organization", "values": {"token": TOKEN}}));
    apply(&binary, &document).await.ok();
    binary.stop().await;
    let start = with("vault", &prefix);
    for (told, from, to) in [
        ("copied 1 secrets", "database", "vault"),
        ("copied 0 secrets and verified them; 1 were there already", "database", "vault"),
        ("copied 0 secrets", "vault", "database"),
    ] {
        let (code, text) = run(&home, &["secrets", "migrate", "--from", from, "--to", to], &start);
        assert!(code == 0 && text.contains(told), "{code} {text}");
    }
    let binary = home.start(&start).await;
    works(&binary.gateway("all"), &upstream, TOKEN).await;
    binary.stop().await;
    let (code, text) = run(&home, &["secrets", "migrate", "--from", "vault", "--to", "vault"], &start);
    assert!(code == 2 && text.contains("the same store"), "{code} {text}");
}

#[tokio::test]
async fn nothing_is_copied_beside_a_server_and_no_server_starts_beside_a_copy() {
    let (home, upstream) = (Home::new(), Upstream::start().await);
    let binary = home.bare().await;
    let document = upstream.document(&json!({"entry": "tracker", "scope": "organization", "values": {"token": TOKEN}}));
    apply(&binary, &document).await.ok();
    // A Vault that takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", silent.local_addr().unwrap());
    let start = Start {
        args: vec!["--vault-address".to_owned(), address],
        env: vec![("ARCHESTRA_VAULT_TOKEN", TOKEN.to_owned())],
    };
    let migrate = ["secrets", "migrate", "--from", "database", "--to", "vault"];
    let (code, text) = run(&home, &migrate, &start);
    assert!(code == 1 && text.contains("nothing was copied") && text.contains("stop it first"), "{code} {text}");
    works(&binary.gateway("all"), &upstream, TOKEN).await;
    assert!(binary.stop().await.success());

    let mut copying = home.command(&migrate, &start).stderr(Stdio::null()).spawn().unwrap();
    // Vault is asked once the database is claimed.
    let (asked, _) = silent.accept().unwrap();
    let serve = ["--listen", "127.0.0.1:0", "--metrics-listen", "none", "--runtime", "none"];
    for arguments in [&serve[..], &migrate] {
        let (code, text) = run(&home, arguments, &start);
        assert!(code == 1 && text.contains("has this database for itself"), "{code} {text}");
    }
    drop((asked, silent));
    assert!(!copying.wait().unwrap().success(), "there is no Vault");
    let binary = home.bare().await;
    works(&binary.gateway("all"), &upstream, TOKEN).await;
}

#[tokio::test]
async fn a_backup_is_restored_elsewhere_and_serves_again() {
    let (home, other, upstream) = (Home::new(), Home::new(), Upstream::start().await);
    let binary = home.bare().await;
    let document = upstream.document(&json!({"entry": "tracker", "scope": "organization", "values": {"token": TOKEN}}));
    apply(&binary, &document).await.ok();
    let file = home.path().join("backup");
    let named = file.to_str().unwrap();
    let (code, text) = run(&home, &["backup", "--to", named], &Start::default());
    assert!(code == 0 && text.contains("keep the key file"), "{code} {text}");
    assert!(run(&home, &["backup", "--to", named], &Start::default()).1.contains("exists"));
    assert!(!leaks(home.path()));
    binary.stop().await;

    let (code, text) = run(&other, &["restore", "--from", named], &Start::default());
    assert!(code == 0 && text.contains("restored"), "{code} {text}");
    let (code, text) = run(&other, &["restore", "--from", named], &Start::default());
    assert!(code == 1 && text.contains("only into an empty database"), "{code} {text}");
    std::fs::copy(home.path().join("data/archestra.key"), other.path().join("data/archestra.key")).unwrap();
    let binary = other.bare().await;
    works(&binary.gateway("all"), &upstream, TOKEN).await;
}

#[tokio::test]
async fn a_vault_that_cannot_be_used_ends_the_start_with_the_remedy() {
    let home = Home::new();
    for (more, code, told) in [
        (&["--vault-address", "http://127.0.0.1:1"][..], 1, "no connection to http://127.0.0.1:1"),
        (&["--vault-address", "vault.example.com"], 2, "use as in `https://vault.example.com:8200`"),
        (&[], 2, "--vault-address"),
    ] {
        let arguments = [&["--secrets", "vault", "--listen", "127.0.0.1:0", "--metrics-listen", "none"], more].concat();
        let start = Start { args: Vec::new(), env: vec![("ARCHESTRA_VAULT_TOKEN", TOKEN.to_owned())] };
        let (ended, text) = run(&home, &arguments, &start);
        assert!(ended == code && text.contains(told), "{ended} {text}");
    }
}
