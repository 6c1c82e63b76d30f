//! Bridges as programs, and what is asked of them.

use archestra_core::{bridge::client, runtime::stdio::Channel, secret::SecretValue};
use bytes::Bytes;
use rustix::process::{Pid, Signal};
use std::{net::SocketAddr, path::PathBuf, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
    time::{sleep, timeout},
};

use super::help::until;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
const TOKEN: &str = "a-token-for-tests";

/// A bridge with its server.
pub(crate) struct Bridge {
    process: Child,
    pub(crate) address: SocketAddr,
    health: SocketAddr,
    pub(crate) token: SecretValue,
    token_file: PathBuf,
}

impl Bridge {
    /// With a server in one of the modes of the fixture.
    pub(crate) async fn start(mode: &str, options: &[&str]) -> Self {
        let program = std::env::current_exe().unwrap();
        Self::of_command(&[program.to_str().unwrap(), "fixture_process", "--exact", "--nocapture", mode], options)
    }

    pub(crate) async fn ready(mode: &str, options: &[&str]) -> Self {
        let bridge = Self::start(mode, options).await;
        until("the bridge to be ready", || async {
            bridge.try_health("/ready").await.is_some_and(|(status, _)| status == 200)
        })
        .await;
        bridge
    }

    pub(crate) fn of_command(command: &[&str], options: &[&str]) -> Self {
        let (address, health) = (free_address(), free_address());
        let token_file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("bridge-token-{}", address.port()));
        std::fs::write(&token_file, format!("{TOKEN}\n")).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_archestra-bridge"))
            .args(["--listen", &address.to_string(), "--health", &health.to_string()])
            .arg("--token-file")
            .arg(&token_file)
            .args(options)
            .arg("--")
            .args(command)
            .env("API_KEY", "a value")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { process, address, health, token: SecretValue::new(TOKEN), token_file }
    }

    pub(crate) async fn channel(&self) -> Channel {
        let (channel, driver) = client::connect(self.address, &self.token, 30 * SECOND).await.unwrap();
        drop(tokio::spawn(driver));
        channel
    }

    pub(crate) async fn connect_raw(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    pub(crate) async fn health(&self, path: &str) -> (u16, String) {
        self.try_health(path).await.expect("the health port answers")
    }

    pub(crate) async fn try_health(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.health).await.ok()?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: bridge\r\n\r\n").as_bytes()).await.ok()?;
        let mut response = String::new();
        stream.read_to_string(&mut response).await.ok()?;
        let (head, body) = response.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.trim_end().to_owned()))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.process.id().unwrap().cast_signed();
        rustix::process::kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// The server's process.
    pub(crate) fn server(&self) -> Pid {
        let own = self.process.id().unwrap();
        let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap();
        Pid::from_raw(children.split_ascii_whitespace().next().unwrap().parse().unwrap()).unwrap()
    }

    /// How much of it is in memory, in KiB.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id().unwrap())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel says so");
        line.trim().trim_end_matches("kB").trim_end().parse().unwrap()
    }

    /// The exit code and all that was logged.
    pub(crate) async fn ended(&mut self) -> (Option<i32>, String) {
        let mut log = String::new();
        let mut stderr = self.process.stderr.take().unwrap();
        let ended = timeout(30 * SECOND, async {
            stderr.read_to_string(&mut log).await.unwrap();
            self.process.wait().await.unwrap()
        });
        let status = ended.await.expect("the bridge ends");
        (status.code(), log)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _absent = std::fs::remove_file(&self.token_file);
    }
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub(crate) fn request(id: u32, tool: &str, text: &str) -> Bytes {
    let params = serde_json::json!({"name": tool, "arguments": {"text": text}});
    serde_json::json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}).to_string().into()
}

/// The answer to the request with this id.
pub(crate) async fn answers(channel: &mut Channel, id: u32) -> String {
    loop {
        let frame = timeout(30 * SECOND, channel.recv()).await.expect("an answer in time").expect("an answer");
        let answer: serde_json::Value = serde_json::from_slice(&frame).unwrap();
        if answer["id"] == id {
            sleep(Duration::ZERO).await;
            return answer.to_string();
        }
    }
}
