//! A server that answers as it is told, for troubles that a real one does not have on demand.

use archestra_store::{VaultAuth, VaultConfig};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// What was asked.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) token: String,
    pub(crate) body: String,
}

/// What is answered.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    status: u16,
    body: String,
    after: Duration,
    cut: bool,
    location: Option<String>,
}

impl Told {
    pub(crate) fn ok(data: &Value) -> Self {
        Self::text(200, &json!({"data": data}).to_string())
    }

    pub(crate) fn error(status: u16, text: &str) -> Self {
        Self::text(status, &json!({"errors": [text]}).to_string())
    }

    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self { status, body: body.to_owned(), after: Duration::ZERO, cut: false, location: None }
    }

    /// Sends whoever asked elsewhere, in a page as web servers do it.
    pub(crate) fn elsewhere(status: u16, location: &str) -> Self {
        let page = format!("<a href=\"{location}\">Elsewhere</a>.\n\n");
        Self { location: Some(location.to_owned()), ..Self::text(status, &page) }
    }

    pub(crate) fn after(mut self, after: Duration) -> Self {
        self.after = after;
        self
    }

    /// Ends the connection instead of answering.
    pub(crate) fn cut() -> Self {
        Self { cut: true, ..Self::text(0, "") }
    }
}

/// What a healthy server says to a token, about a mount of version 2, and about a token that asks for itself.
pub(crate) fn healthy(asked: &Asked) -> Option<Told> {
    match asked.path.as_str() {
        "/v1/auth/token/lookup-self" => Some(Told::ok(&json!({"ttl": 0, "renewable": false}))),
        "/v1/sys/internal/ui/mounts/secret" => {
            Some(Told::ok(&json!({"type": "kv", "path": "secret/", "options": {"version": "2"}})))
        }
        _ => None,
    }
}

/// The server, for as long as this lives.
pub(crate) struct Fake {
    pub(crate) address: String,
    task: Option<JoinHandle<()>>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Fake {
    pub(crate) async fn start(answer: impl Fn(&Asked) -> Told + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let answer = Arc::new(answer);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = Arc::clone(&answer);
                tokio::spawn(async move { serve(stream, &*answer).await });
            }
        });
        Self { address, task: Some(task) }
    }

    /// Leaves it to the runtime of the test, which ends it.
    pub(crate) fn until_the_test_ends(mut self) {
        self.task = None;
    }

    /// Settings for it that wait longer than a busy machine keeps anybody waiting.
    pub(crate) fn config(&self) -> VaultConfig {
        crate::support::tls();
        let mut config = VaultConfig::new(&self.address, VaultAuth::Token("fake-token".into()));
        config.request_timeout = Duration::from_secs(3);
        config.deadline = Duration::from_secs(60);
        config
    }
}

async fn serve(stream: TcpStream, answer: &(impl Fn(&Asked) -> Told + Send + Sync)) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    let mut words = line.split(' ');
    let mut asked = Asked {
        method: words.next()?.to_owned(),
        path: words.next()?.to_owned(),
        token: String::new(),
        body: String::new(),
    };
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "x-vault-token" => value.clone_into(&mut asked.token),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    asked.body = String::from_utf8(body).unwrap();
    let told = answer(&asked);
    tokio::time::sleep(told.after).await;
    if told.cut {
        return None;
    }
    let location = told.location.map(|location| format!("Location: {location}\r\n")).unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {} Told\r\n{location}Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        told.status,
        told.body.len()
    );
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(told.body.as_bytes()).await.ok()?;
    stream.shutdown().await.ok()
}
