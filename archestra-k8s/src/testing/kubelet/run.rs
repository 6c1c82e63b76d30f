//! What one run of a container does: it serves over the bridge, over attach or over HTTP, or it ends.

use super::{
    bridge,
    container::{Console, Container, Exit, Job},
    http, needs,
    process::Process,
};
use crate::testing::{
    image::{Behaviour, FakeImage},
    store::items,
};
use archestra_core::{
    runtime::stdio::{Line, LineSplitter},
    secret::SecretValue,
};
use bytes::{Bytes, BytesMut};
use serde_json::Value;
use std::{net::SocketAddr, sync::Arc};
use tokio::{
    net::TcpListener,
    sync::{broadcast, mpsc},
    time::sleep,
};

/// Chunks that wait for a slow reader of an attached stream.
const CONSOLE: usize = 1024;
/// The longest line on a server's standard input.
const MAX_LINE: usize = 16 * 1024 * 1024;

/// How a container's server is talked to.
#[derive(Debug)]
enum Face {
    Bridge(bridge::Options),
    Attach,
    Http(u16),
}

fn face(words: &[String], spec: &Value) -> Face {
    let is_bridge = words.first().is_some_and(|word| word.rsplit('/').next() == Some("archestra-bridge"));
    if is_bridge {
        return Face::Bridge(bridge::Options::parse(words));
    }
    if spec["stdin"] == true {
        return Face::Attach;
    }
    let ports = items(spec, "/ports");
    let port = ports.iter().find(|port| port["name"] == "mcp").or_else(|| ports.first());
    let number = port.and_then(|port| port["containerPort"].as_u64()).and_then(|port| u16::try_from(port).ok());
    Face::Http(number.unwrap_or(8080))
}

/// Whether a container comes to run at all.
pub(super) fn starts(image: &FakeImage, spec: &Value) -> bool {
    let first = items(spec, "/command").first().and_then(Value::as_str).unwrap_or_default();
    !matches!(image.behaviour, Behaviour::CommandNotFound) || first.rsplit('/').next() == Some("archestra-bridge")
}

/// One run, until it ends by itself.
pub(super) async fn run(job: &Job<'_>, container: &Arc<Container>, image: &FakeImage) -> Exit {
    let words = job.words();
    match &image.behaviour {
        Behaviour::Exit { code, stderr } => {
            for line in stderr.lines() {
                job.log(line);
            }
            Exit::with_code(*code)
        }
        Behaviour::CommandNotFound => not_found(job, &words),
        Behaviour::NeverReady => silent(job, container, &words).await,
        Behaviour::Serve(server) => {
            let (process, announced) = Process::start((**server).clone(), Arc::clone(&container.log)).await;
            tokio::select! {
                biased;
                reason = process.ended(announced) => {
                    job.log(&reason);
                    Exit::with_code(1)
                }
                exit = serve(job, container, &process, image, &words) => exit,
            }
        }
        Behaviour::PullError(_) => std::future::pending().await,
    }
}

fn not_found(job: &Job<'_>, words: &[String]) -> Exit {
    if let Face::Bridge(options) = face(words, job.spec) {
        job.log(&format!(
            "archestra-bridge: {} cannot be started: No such file or directory (os error 2)",
            options.program
        ));
        return Exit::with_code(127);
    }
    let program = words.first().map_or("", String::as_str);
    let message = format!(
        "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable \
         to start container process: exec: \"{program}\": executable file not found in $PATH: unknown"
    );
    Exit { code: 128, reason: "StartError", message, not_started: true }
}

/// Runs and never answers. What has no probe counts as ready all the same.
async fn silent(job: &Job<'_>, container: &Arc<Container>, words: &[String]) -> Exit {
    match face(words, job.spec) {
        Face::Attach => {
            let (stdin, mut taken) = mpsc::channel(1);
            container.open(Console { stdin, stdout: broadcast::Sender::new(CONSOLE) });
            while taken.recv().await.is_some() {}
        }
        Face::Bridge(options) => {
            let gate = bridge::Gate::shut(token(job, &options));
            if let Ok(listener) = listen(job, options.port).await {
                bridge::serve(listener, gate, None, container).await;
            }
        }
        Face::Http(_) => {}
    }
    std::future::pending().await
}

fn token(job: &Job<'_>, options: &bridge::Options) -> Option<SecretValue> {
    let content = job.inner.read(|store| needs::file(store, job.pod, job.spec, &options.token_file))?;
    Some(SecretValue::new(content.trim()))
}

async fn listen(job: &Job<'_>, port: u16) -> Result<TcpListener, Exit> {
    TcpListener::bind(SocketAddr::from((job.run.ip, port))).await.map_err(|error| {
        job.log(&format!("{}:{port} cannot be listened on: {error}", job.run.ip));
        Exit::with_code(98)
    })
}

async fn serve(
    job: &Job<'_>,
    container: &Arc<Container>,
    process: &Process,
    image: &FakeImage,
    words: &[String],
) -> Exit {
    match face(words, job.spec) {
        Face::Attach => attach(container, process).await,
        Face::Bridge(options) => {
            let Some(token) = token(job, &options) else {
                job.log(&format!("archestra-bridge: the token file {} cannot be read", options.token_file));
                return Exit::with_code(64);
            };
            let listener = match listen(job, options.port).await {
                Ok(listener) => listener,
                Err(exit) => return exit,
            };
            let health = match options.health {
                Some(port) => match listen(job, port).await {
                    Ok(listener) => Some(listener),
                    Err(exit) => return exit,
                },
                None => None,
            };
            sleep(image.ready_after).await;
            job.ready(true);
            let gate = bridge::Gate::open(token, options.exclusive);
            tokio::join!(bridge::serve(listener, gate, Some(process), container), http::health(health, container));
            Exit::with_code(0)
        }
        Face::Http(port) => {
            sleep(image.ready_after).await;
            let listener = match listen(job, port).await {
                Ok(listener) => listener,
                Err(exit) => return exit,
            };
            job.ready(true);
            http::serve(listener, container, process).await;
            Exit::with_code(0)
        }
    }
}

/// The server's own streams: whoever attaches writes to the one and reads all of the other.
async fn attach(container: &Arc<Container>, process: &Process) -> Exit {
    let Some(channel) = process.door().channel().await else { return Exit::with_code(1) };
    let (sender, mut receiver) = channel.split();
    let (stdin, mut taken) = mpsc::channel::<Bytes>(64);
    let stdout = broadcast::Sender::new(CONSOLE);
    container.open(Console { stdin, stdout: stdout.clone() });
    let read = async {
        let mut lines = LineSplitter::new(MAX_LINE);
        while let Some(chunk) = taken.recv().await {
            lines.room().extend_from_slice(&chunk);
            while let Some(line) = lines.next_line() {
                if let Line::Whole(line) = line
                    && !line.is_empty()
                    && sender.send(Bytes::copy_from_slice(line)).await.is_err()
                {
                    return;
                }
            }
        }
    };
    let write = async {
        while let Some(frame) = receiver.recv().await {
            container.log.write(&String::from_utf8_lossy(&frame));
            let mut line = BytesMut::from(&*frame);
            line.extend_from_slice(b"\n");
            // Nobody may be attached, and then it is lost.
            drop(stdout.send(line.freeze()));
        }
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
    Exit::with_code(0)
}

/// The first word after `--`, or the one at a flag.
pub(super) fn after<'a>(words: &'a [String], flag: &str) -> Option<&'a str> {
    let at = words.iter().position(|word| word == flag)?;
    words.get(at + 1).map(String::as_str)
}
