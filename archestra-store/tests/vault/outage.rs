//! A server of our own that is sealed and unsealed under load: nothing acknowledged is lost, and it goes on by itself.

use crate::support::{request, tls, unique};
use archestra_core::{
    ErrorKind,
    secret::{Expect, SecretStore},
    testing::fixtures::{bundle, secret_ref},
};
use archestra_store::{VaultAuth, VaultConfig, VaultStore};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::time::sleep;

/// A server with a storage of its own, ended with this.
struct Server {
    child: Child,
    directory: PathBuf,
    address: String,
    token: String,
    key: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        std::fs::remove_dir_all(&self.directory).ok();
    }
}

impl Server {
    async fn start() -> Self {
        #[allow(clippy::disallowed_methods, reason = "tests are told where the program is")]
        let program = std::env::var("ARCHESTRA_TEST_BAO").expect("ARCHESTRA_TEST_BAO names the program `bao`");
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique("bao"));
        std::fs::create_dir_all(&directory).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = format!(
            "storage \"inmem\" {{}}\nlistener \"tcp\" {{\n  address = \"127.0.0.1:{port}\"\n  tls_disable = true\n}}\n"
        );
        let file = directory.join("bao.hcl");
        std::fs::write(&file, settings).unwrap();
        let child = Command::new(program)
            .arg("server")
            .arg(format!("-config={}", file.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self {
            child,
            directory,
            address: format!("http://127.0.0.1:{port}"),
            token: String::new(),
            key: String::new(),
        };
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        let made = server.ask("POST", "sys/init", json!({"secret_shares": 1, "secret_threshold": 1})).await.1.unwrap();
        made["root_token"].as_str().unwrap().clone_into(&mut server.token);
        made["keys_base64"][0].as_str().unwrap().clone_into(&mut server.key);
        server.unseal().await;
        server.ask("POST", "sys/mounts/secret", json!({"type": "kv", "options": {"version": "2"}})).await;
        sleep(Duration::from_millis(500)).await;
        server
    }

    async fn ask(&self, method: &str, path: &str, body: Value) -> (u16, Option<Value>) {
        request(&self.address, &self.token, method, path, body).await
    }

    async fn seal(&self) {
        assert_eq!(self.ask("POST", "sys/seal", json!({})).await.0, 204);
    }

    async fn unseal(&self) {
        let (status, answer) = self.ask("POST", "sys/unseal", json!({"key": self.key})).await;
        assert_eq!((status, answer.unwrap()["sealed"].as_bool()), (200, Some(false)));
        for _ in 0..100 {
            if self.ask("GET", "auth/token/lookup-self", Value::Null).await.0 == 200 || self.token.is_empty() {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
        panic!("it does not come up");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs OpenBao"]
async fn sealed_under_load_nothing_is_lost_and_it_goes_on_by_itself() {
    tls();
    let server = Server::start().await;
    let mut config = VaultConfig::new(&server.address, VaultAuth::Token(server.token.as_str().into()));
    config.deadline = Duration::from_secs(5);
    let store = Arc::new(VaultStore::connect(&config).await.unwrap());
    let stop = tokio_util::sync::CancellationToken::new();
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (store, stop) = (Arc::clone(&store), stop.clone());
            tokio::spawn(async move {
                let reference = secret_ref(&format!("entry/{writer}"));
                let (mut acknowledged, mut refused, mut n) = (0_u64, 0_u64, 0_u64);
                while !stop.is_cancelled() {
                    n += 1;
                    match store.put(&reference, &bundle(&[("n", &n.to_string())]), Expect::Any).await {
                        Ok(_) => acknowledged = n,
                        Err(error) => {
                            refused += 1;
                            let kind = error.kind();
                            assert!(matches!(kind, ErrorKind::Unavailable | ErrorKind::Timeout), "{error:?}");
                        }
                    }
                    match store.get(&reference).await {
                        Ok(stored) => {
                            let read: u64 = stored.bundle.get("n").unwrap().expose().parse().unwrap();
                            assert!(
                                read >= acknowledged && read <= n,
                                "{acknowledged} was acknowledged, {read} is read"
                            );
                        }
                        Err(error) => {
                            let fine = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout)
                                || (acknowledged == 0 && error.kind() == ErrorKind::NotFound);
                            assert!(fine, "{error:?}");
                        }
                    }
                }
                (acknowledged, refused)
            })
        })
        .collect();
    for _ in 0..3 {
        sleep(Duration::from_secs(2)).await;
        server.seal().await;
        let error = store.check().await.unwrap_err();
        assert!(error.to_string().contains("unseal"), "{error}");
        sleep(Duration::from_secs(1)).await;
        server.unseal().await;
    }
    sleep(Duration::from_secs(2)).await;
    store.check().await.unwrap();
    stop.cancel();
    for writer in writers {
        let (acknowledged, refused) = writer.await.unwrap();
        assert!(acknowledged > 0 && refused > 0, "{acknowledged} writes, {refused} refused");
    }
}
