//! The bridge in a container: private channels to the server over TCP, for whoever has the token.

use super::{container::Container, process::Process, run::after};
use archestra_core::{
    runtime::stdio::{Channel, Line, LineSplitter},
    secret::SecretValue,
};
use bytes::{Bytes, BytesMut};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

const MAX_LINE: usize = 16 * 1024 * 1024;
const HELLO: Duration = Duration::from_secs(5);

/// What the bridge was started with.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) port: u16,
    pub(super) health: Option<u16>,
    pub(super) token_file: String,
    pub(super) exclusive: bool,
    pub(super) program: String,
}

impl Options {
    pub(super) fn parse(words: &[String]) -> Self {
        let port = |flag: &str| after(words, flag)?.rsplit(':').next()?.parse().ok();
        Self {
            port: port("--listen").unwrap_or(7420),
            health: port("--health"),
            token_file: after(words, "--token-file").unwrap_or_default().to_owned(),
            exclusive: words.iter().take_while(|word| *word != "--").any(|word| word == "--exclusive"),
            program: after(words, "--").unwrap_or_default().to_owned(),
        }
    }
}

/// Who is let in, and how many at once.
#[derive(Debug)]
pub(super) struct Gate {
    token: Option<SecretValue>,
    turns: Semaphore,
}

impl Gate {
    /// For whoever has the token.
    pub(super) fn open(token: SecretValue, exclusive: bool) -> Self {
        Self { token: Some(token), turns: Semaphore::new(if exclusive { 1 } else { Semaphore::MAX_PERMITS }) }
    }

    /// For nobody, since the server is not ready.
    pub(super) fn shut(token: Option<SecretValue>) -> Self {
        Self { token, turns: Semaphore::new(0) }
    }
}

/// Serves connections until it is dropped. Without a process nobody is let in.
pub(super) async fn serve(listener: TcpListener, gate: Gate, process: Option<&Process>, container: &Arc<Container>) {
    let gate = Arc::new(gate);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { return };
                let channel = match process {
                    Some(process) => process.door().channel().await,
                    None => None,
                };
                let (gate, container) = (Arc::clone(&gate), Arc::clone(container));
                drop(connections.spawn(async move {
                    // The end of a connection is all that its client needs to know.
                    drop(container.in_reach(converse(stream, &gate, channel, &container)).await);
                }));
            }
        }
    }
}

async fn converse(
    mut stream: TcpStream,
    gate: &Gate,
    channel: Option<Channel>,
    container: &Container,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut lines = LineSplitter::new(MAX_LINE);
    let hello = timeout(HELLO, async {
        loop {
            if let Some(line) = lines.next_line() {
                return match line {
                    Line::Whole(line) => Some(String::from_utf8_lossy(line).into_owned()),
                    Line::TooLong { .. } => None,
                };
            }
            if !matches!(stream.read_buf(lines.room()).await, Ok(1..)) {
                return None;
            }
        }
    });
    let Ok(Some(hello)) = hello.await else { return Ok(()) };
    let words: Vec<_> = hello.split(' ').collect();
    let refusal = match words.as_slice() {
        ["ARCHESTRA-BRIDGE/1", given, ..] if gate.token.as_ref().is_none_or(|token| token.expose() != *given) => {
            Some("refused unauthorized the token is not the one of this server\n")
        }
        ["ARCHESTRA-BRIDGE/1", _] | ["ARCHESTRA-BRIDGE/1", _, "events"] => None,
        _ => Some("refused malformed the first line must be `ARCHESTRA-BRIDGE/1 <token>`\n"),
    };
    if let Some(refusal) = refusal {
        return stream.write_all(refusal.as_bytes()).await;
    }
    let Some(channel) = channel else {
        return stream.write_all(b"refused not-ready the server has not answered yet\n").await;
    };
    stream.write_all(b"ok\n").await?;
    if words.len() == 3 {
        return announce(stream, container).await;
    }
    let Ok(_turn) = gate.turns.acquire().await else { return Ok(()) };
    carry(stream, lines, channel).await
}

/// Says how often the server's tools have changed, until the client is gone.
async fn announce(mut stream: TcpStream, container: &Container) -> std::io::Result<()> {
    let mut tools = container.tools.subscribe();
    loop {
        let count = *tools.borrow_and_update();
        stream.write_all(format!("tools {count}\n").as_bytes()).await?;
        let mut sink = [0; 64];
        tokio::select! {
            changed = tools.changed() => if changed.is_err() { return Ok(()) },
            read = stream.read(&mut sink) => if read? == 0 { return Ok(()) },
        }
    }
}

async fn carry(stream: TcpStream, mut lines: LineSplitter, channel: Channel) -> std::io::Result<()> {
    let (mut reader, mut writer) = stream.into_split();
    let (sender, mut receiver) = channel.split();
    let read = async {
        loop {
            while let Some(line) = lines.next_line() {
                if let Line::Whole(line) = line
                    && !line.is_empty()
                    && sender.send(Bytes::copy_from_slice(line)).await.is_err()
                {
                    // What the server says last is still on its way.
                    std::future::pending::<()>().await;
                }
            }
            if !matches!(reader.read_buf(lines.room()).await, Ok(1..)) {
                return;
            }
        }
    };
    let write = async {
        while let Some(frame) = receiver.recv().await {
            let mut line = BytesMut::from(&*frame);
            line.extend_from_slice(b"\n");
            if writer.write_all(&line).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
    writer.shutdown().await
}
