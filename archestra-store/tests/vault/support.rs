//! A real OpenBao that `ARCHESTRA_TEST_VAULT_ADDR` and `ARCHESTRA_TEST_VAULT_TOKEN` name, as its administrator sees it.

use archestra_store::{VaultAuth, VaultConfig, VaultStore};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Without it no HTTP client can be made.
pub(crate) fn tls() {
    let _installed_before = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

#[allow(clippy::disallowed_methods, reason = "tests are told where the server is")]
fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; `eval \"$(.ci/openbao)\"` starts a server"))
}

pub(crate) fn address() -> String {
    variable("ARCHESTRA_TEST_VAULT_ADDR")
}

pub(crate) fn root_token() -> String {
    variable("ARCHESTRA_TEST_VAULT_TOKEN")
}

/// A name that nothing else has.
pub(crate) fn unique(kind: &str) -> String {
    format!("{kind}-{}", uuid::Uuid::now_v7().simple())
}

/// One request of the administrator; `None` for an answer without content.
pub(crate) async fn admin(method: &str, path: &str, body: Value) -> Option<Value> {
    let (status, answer) = request(&address(), &root_token(), method, path, body).await;
    assert!((200..300).contains(&status), "{method} {path}: {status} {answer:?}");
    answer
}

/// One request, with its status.
pub(crate) async fn request(address: &str, token: &str, method: &str, path: &str, body: Value) -> (u16, Option<Value>) {
    let host = address.strip_prefix("http://").unwrap().trim_end_matches('/');
    let mut stream = TcpStream::connect(host).await.unwrap();
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let head = format!(
        "{method} /v1/{path} HTTP/1.0\r\nHost: {host}\r\nX-Vault-Token: {token}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).ok())
}

/// A new mount of the KV secrets engine.
pub(crate) async fn mount(version: u8) -> String {
    let mount = unique("kv");
    let options = json!({"type": "kv", "options": {"version": version.to_string()}});
    admin("POST", &format!("sys/mounts/{mount}"), options).await;
    // Version 2 takes a moment until it serves.
    for _ in 0..100 {
        let (status, _) = request(
            &address(),
            &root_token(),
            "LIST",
            &match version {
                2 => format!("{mount}/metadata"),
                _ => mount.clone(),
            },
            Value::Null,
        )
        .await;
        if status == 404 {
            return mount;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the mount {mount} does not come up");
}

pub(crate) fn config(mount: &str, auth: VaultAuth) -> VaultConfig {
    tls();
    let mut config = VaultConfig::new(address(), auth);
    mount.clone_into(&mut config.mount);
    config
}

pub(crate) fn root(mount: &str) -> VaultConfig {
    config(mount, VaultAuth::Token(root_token().into()))
}

/// A store on a new mount.
pub(crate) async fn store(version: u8) -> VaultStore {
    VaultStore::connect(&root(&mount(version).await)).await.unwrap()
}

/// A policy for everything below the prefix of a mount, whichever version it is, and its name.
pub(crate) async fn policy(mount: &str) -> String {
    let name = unique("policy");
    let rules = format!(
        "path \"{mount}/data/archestra/*\" {{ capabilities = [\"create\", \"read\", \"update\"] }}\n\
         path \"{mount}/metadata/archestra\" {{ capabilities = [\"list\"] }}\n\
         path \"{mount}/metadata/archestra/*\" {{ capabilities = [\"list\", \"read\", \"delete\"] }}\n\
         path \"{mount}/archestra\" {{ capabilities = [\"list\"] }}\n\
         path \"{mount}/archestra/*\" {{ capabilities = [\"create\", \"read\", \"update\", \"list\", \"delete\"] }}"
    );
    admin("POST", &format!("sys/policies/acl/{name}"), json!({"policy": rules})).await;
    name
}
