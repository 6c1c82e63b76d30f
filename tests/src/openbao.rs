//! An OpenBao of a test's own, which it may seal and unseal; the program is the one that `ARCHESTRA_TEST_BAO` names.

use crate::{Answer, Api, Start, binary};
use http::Method;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// Where the secrets of a binary are.
const DATA: &str = "secret/data/archestra";
const METADATA: &str = "secret/metadata/archestra";
/// How long it may take until it answers.
const UP: Duration = Duration::from_secs(30);

/// The server. Dropped, it is killed.
#[derive(Debug)]
pub struct OpenBao {
    child: Child,
    _directory: TempDir,
    address: String,
    token: String,
    key: String,
}

impl Drop for OpenBao {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl OpenBao {
    /// Starts it, with version 2 of the KV secrets engine at `secret` and the transit engine at `transit`.
    pub async fn start() -> Self {
        let program = std::env::var("ARCHESTRA_TEST_BAO")
            .expect("ARCHESTRA_TEST_BAO is not set: run `eval \"$(.ci/openbao)\"`, which gets the program");
        let directory = tempfile::tempdir().unwrap();
        let port = binary::free_port();
        let file = directory.path().join("bao.hcl");
        let listener = format!("listener \"tcp\" {{\n  address = \"127.0.0.1:{port}\"\n  tls_disable = true\n}}\n");
        std::fs::write(&file, format!("storage \"inmem\" {{}}\n{listener}")).unwrap();
        let child = Command::new(program)
            .arg("server")
            .arg(format!("-config={}", file.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let address = format!("http://127.0.0.1:{port}");
        let mut server = Self { child, _directory: directory, address, token: String::new(), key: String::new() };
        let until = Instant::now() + UP;
        while server.api().try_get("/v1/sys/seal-status").await.is_none() {
            assert!(Instant::now() < until, "OpenBao does not answer");
            sleep(Duration::from_millis(50)).await;
        }
        let made = server.post("sys/init", &json!({"secret_shares": 1, "secret_threshold": 1})).await.ok();
        made["keys_base64"][0].as_str().unwrap().clone_into(&mut server.key);
        made["root_token"].as_str().unwrap().clone_into(&mut server.token);
        server.unseal().await;
        server.post("sys/mounts/secret", &json!({"type": "kv", "options": {"version": "2"}})).await.ok();
        server.post("sys/mounts/transit", &json!({"type": "transit"})).await.ok();
        server.until("LIST", "secret/metadata", 404).await;
        server
    }

    /// What makes a binary use it: `--secrets`, the address, the token of its administrator.
    pub fn start_with(&self, secrets: &str) -> Start {
        let args = ["--secrets", secrets, "--vault-address", &self.address].map(str::to_owned).to_vec();
        let env = vec![("ARCHESTRA_QUICKSTART", "false".to_owned()), ("ARCHESTRA_VAULT_TOKEN", self.token.clone())];
        Start { args, env }
    }

    /// A `POST` of its administrator.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.api().post(&format!("/v1/{path}"), body).await
    }

    /// A new key that the transit key `name` wraps.
    pub async fn wrapped_key(&self, name: &str) -> String {
        let made = self.post(&format!("transit/datakey/wrapped/{name}"), &json!({})).await.ok();
        made["data"]["ciphertext"].as_str().unwrap().to_owned()
    }

    /// The references of all secrets that a binary keeps in it, under the prefix that it has unless it is told otherwise.
    pub async fn secrets(&self) -> BTreeSet<String> {
        let (mut found, mut folders) = (BTreeSet::new(), vec![String::new()]);
        while let Some(folder) = folders.pop() {
            let path = format!("/v1/{METADATA}/{folder}");
            let answer = self.api().try_send(Method::from_bytes(b"LIST").unwrap(), &path, None).await.unwrap();
            for key in answer.json()["data"]["keys"].as_array().into_iter().flatten() {
                let below = format!("{folder}{}", key.as_str().unwrap());
                match below.ends_with('/') {
                    true => folders.push(below),
                    // It is whose prefix this is, and no secret.
                    false if below.starts_with('~') => {}
                    false => drop(found.insert(below)),
                }
            }
        }
        found
    }

    /// Writes the secret of one reference under another one, too.
    pub async fn copy(&self, from: &str, to: &str) {
        let read = self.api().get(&format!("/v1/{DATA}/{from}")).await.ok();
        self.post(&format!("{DATA}/{to}"), &json!({"data": read["data"]["data"]})).await.ok();
    }

    /// Removes a secret.
    pub async fn remove(&self, reference: &str) {
        self.api().delete(&format!("/v1/{METADATA}/{reference}")).await.ok();
    }

    /// Seals it.
    pub async fn seal(&self) {
        self.post("sys/seal", &json!({})).await.ok();
    }

    /// Unseals it, and waits until it serves.
    pub async fn unseal(&self) {
        let answer = self.post("sys/unseal", &json!({"key": self.key})).await.ok();
        assert_eq!(answer["sealed"], false, "{answer}");
        self.until("GET", "auth/token/lookup-self", 200).await;
    }

    async fn until(&self, method: &str, path: &str, status: u16) {
        let until = Instant::now() + UP;
        loop {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let answer = self.api().try_send(method, &format!("/v1/{path}"), None).await;
            if answer.as_ref().is_some_and(|answer| answer.status == status) {
                return;
            }
            assert!(Instant::now() < until, "OpenBao does not come up: {answer:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn api(&self) -> Api {
        Api::new(self.address.clone(), (!self.token.is_empty()).then(|| self.token.clone()))
    }
}
