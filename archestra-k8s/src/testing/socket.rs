//! Attaching and port-forwarding: WebSocket streams of frames `[channel][data]`.

use super::{
    api::{Answer, Body},
    cluster::Inner,
    kinds::named,
    kubelet::{Console, Container, NODE, PodRun},
    query::Query,
    refusal::Refusal,
    store::{Key, items, text},
};
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt as _, Empty};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::{net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{broadcast::error::RecvError, mpsc},
    task::JoinSet,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

pub(super) const STDIN: u8 = 0;
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
pub(super) const STATUS: u8 = 3;
pub(super) const CLOSE: u8 = 255;
const PROTOCOLS: [&str; 3] = ["v5.channel.k8s.io", "v4.channel.k8s.io", "portforward.k8s.io"];

pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// A container that a request names.
pub(super) struct Target {
    pub(super) pod: Arc<Value>,
    pub(super) name: String,
    /// Itself, once the kubelet has it.
    pub(super) container: Option<Arc<Container>>,
}

/// The container of a pod that is meant.
pub(super) fn container(inner: &Inner, key: &Key, given: &str) -> Result<Target, Refusal> {
    let pods = named("Pod").ok_or_else(Refusal::no_such_path)?;
    let pod = inner.read(|store| store.get(key).map(Arc::clone)).ok_or_else(|| Refusal::not_found(pods, &key.name))?;
    let names: Vec<&str> = ["/spec/containers", "/spec/initContainers"]
        .into_iter()
        .flat_map(|list| items(&pod, list))
        .map(|container| text(container, "/name"))
        .collect();
    let mains = items(&pod, "/spec/containers").len();
    let name = match (given, names.as_slice()) {
        ("", [only, ..]) if mains == 1 => (*only).to_owned(),
        ("", _) => {
            let message = format!("a container name must be specified for pod {}, choose one of: {names:?}", key.name);
            return Err(Refusal::bad_request(message));
        }
        (given, names) if names.contains(&given) => given.to_owned(),
        (given, _) => {
            return Err(Refusal::bad_request(format!("container {given} is not valid for pod {}", key.name)));
        }
    };
    let run = inner.kubelet.find(&key.namespace, &key.name);
    let container = run.and_then(|run| run.containers.get(&name).map(Arc::clone));
    Ok(Target { pod, name, container })
}

/// What a container waits for.
pub(super) fn waiting_reason(pod: &Value, name: &str) -> String {
    let states =
        ["/status/containerStatuses", "/status/initContainerStatuses"].into_iter().flat_map(|list| items(pod, list));
    let waiting = states
        .filter(|state| state["name"] == name)
        .find_map(|state| state["state"]["waiting"]["reason"].as_str().map(str::to_owned));
    waiting.unwrap_or_else(|| {
        if text(pod, "/spec/nodeName") == NODE { "ContainerCreating".to_owned() } else { "not scheduled".to_owned() }
    })
}

/// Answers a request for a WebSocket; what is to be done with it follows once the client has the answer. It tells whether the
/// end of one stream can be said in its protocol.
pub(super) fn upgrade(mut parts: Parts) -> Result<(Response<Body>, OnUpgrade, bool), Refusal> {
    let protocols = parts.headers.get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
    let offered: Vec<_> = protocols.unwrap_or_default().split(',').map(str::trim).collect();
    let protocol = PROTOCOLS.into_iter().find(|protocol| offered.contains(protocol));
    let key = parts.headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let (Some(protocol), Some(key), Some(upgrade)) = (protocol, key, parts.extensions.remove::<OnUpgrade>()) else {
        return Err(Refusal::bad_request(format!(
            "upgrade request required: a WebSocket with one of the protocols {PROTOCOLS:?}"
        )));
    };
    let accept = HeaderValue::from_str(&derive_accept_key(key))
        .map_err(|_| Refusal::bad_request("invalid Sec-WebSocket-Key"))?;
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    Ok((response, upgrade, protocol.starts_with("v5")))
}

/// Serves a WebSocket for as long as the API server is there.
pub(super) fn run<F>(inner: &Arc<Inner>, upgrade: OnUpgrade, serve: impl FnOnce(Socket) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send,
{
    let (stop, mut interrupted) = (inner.stop.child_token(), inner.faults.interruptions());
    drop(inner.tasks.spawn(async move {
        let serving = async {
            if let Ok(upgraded) = upgrade.await {
                serve(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            _ = interrupted.changed() => {}
            () = serving => {}
        }
    }));
}

pub(super) fn frame(channel: u8, data: &[u8]) -> Message {
    let mut bytes = Vec::with_capacity(data.len() + 1);
    bytes.push(channel);
    bytes.extend_from_slice(data);
    Message::Binary(bytes.into())
}

pub(super) fn attach(inner: &Arc<Inner>, parts: Parts, key: &Key, query: &Query) -> Result<Answer, Refusal> {
    let Target { name, container, .. } = container(inner, key, query.text("container"))?;
    let console = container.and_then(|container| container.console()).ok_or_else(|| {
        Refusal::bad_request(format!("container {name} of pod {} is not running or has no stdin", key.name))
    })?;
    let (response, upgrade, closes) = upgrade(parts)?;
    let (reads, writes) = (query.is_true("stdout"), query.is_true("stdin"));
    let out = console.stdout.subscribe();
    run(inner, upgrade, move |socket| attached(socket, console, out, reads, writes, closes));
    Ok(Answer::Stream(response))
}

async fn attached(
    mut socket: Socket,
    console: Console,
    mut out: tokio::sync::broadcast::Receiver<Bytes>,
    reads: bool,
    writes: bool,
    closes: bool,
) {
    let Console { stdin, stdout } = console;
    // Only the container keeps its stream open.
    drop(stdout);
    let mut stdin = writes.then_some(stdin);
    loop {
        tokio::select! {
            biased;
            chunk = out.recv(), if reads => match chunk {
                Ok(chunk) => {
                    if socket.send(frame(STDOUT, &chunk)).await.is_err() {
                        return;
                    }
                }
                Err(RecvError::Lagged(_)) => return,
                Err(RecvError::Closed) => break,
            },
            message = socket.next() => match message {
                Some(Ok(Message::Binary(data))) => match data.split_first() {
                    Some((&STDIN, input)) if !input.is_empty() => {
                        if let Some(stdin) = &stdin
                            && stdin.send(Bytes::copy_from_slice(input)).await.is_err()
                        {
                            break;
                        }
                    }
                    Some((&CLOSE, [STDIN])) if closes => stdin = None,
                    _ => {}
                },
                Some(Ok(Message::Close(_))) | Some(Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
        }
    }
    let status = json!({"metadata": {}, "status": "Success"}).to_string();
    if socket.send(frame(STATUS, status.as_bytes())).await.is_ok() {
        // The client may have gone first.
        drop(socket.close(None).await);
    }
}

pub(super) fn port_forward(inner: &Arc<Inner>, parts: Parts, key: &Key, query: &Query) -> Result<Answer, Refusal> {
    let pods = named("Pod").ok_or_else(Refusal::no_such_path)?;
    let pod = inner.read(|store| store.get(key).map(Arc::clone)).ok_or_else(|| Refusal::not_found(pods, &key.name))?;
    if text(&pod, "/status/phase") != "Running" {
        let message = format!(
            "unable to forward port because pod is not running. Current status={}",
            text(&pod, "/status/phase")
        );
        return Err(Refusal::bad_request(message));
    }
    let ports: Vec<u16> = query.text("ports").split(',').filter_map(|port| port.parse().ok()).collect();
    let run_of_pod = inner.kubelet.find(&key.namespace, &key.name).filter(|_| !ports.is_empty());
    let pod = run_of_pod.ok_or_else(|| Refusal::bad_request("query parameter \"ports\" is required"))?;
    let (response, upgrade, closes) = upgrade(parts)?;
    run(inner, upgrade, move |socket| forwarded(socket, pod, ports, closes));
    Ok(Answer::Stream(response))
}

/// Carries each port's two channels: data, and the one error that it may have.
async fn forwarded(mut socket: Socket, pod: Arc<PodRun>, ports: Vec<u16>, closes: bool) {
    let (to_client, mut from_pod) = mpsc::channel::<Message>(64);
    let mut to_pod = Vec::new();
    let mut pumps = JoinSet::new();
    for (n, port) in ports.iter().enumerate() {
        let Ok(data) = u8::try_from(2 * n) else { return };
        for channel in [data, data + 1] {
            if socket.send(frame(channel, &port.to_le_bytes())).await.is_err() {
                return;
            }
        }
        let (sender, receiver) = mpsc::channel::<Bytes>(64);
        to_pod.push(Some(sender));
        drop(pumps.spawn(pump(SocketAddr::from((pod.ip, *port)), data, receiver, to_client.clone())));
    }
    drop(to_client);
    loop {
        tokio::select! {
            message = from_pod.recv() => match message {
                Some(message) => {
                    if socket.send(message).await.is_err() {
                        return;
                    }
                }
                None => break,
            },
            message = socket.next() => match message {
                Some(Ok(Message::Binary(data))) => match data.split_first() {
                    Some((&CLOSE, [channel])) if closes => {
                        if let Some(slot) = to_pod.get_mut(usize::from(*channel / 2)) {
                            slot.take();
                        }
                    }
                    Some((channel, input)) if channel % 2 == 0 => {
                        if let Some(Some(sender)) = to_pod.get(usize::from(*channel / 2)) {
                            // A port that is closed says so itself.
                            drop(sender.send(Bytes::copy_from_slice(input)).await);
                        }
                    }
                    _ => {}
                },
                Some(Ok(Message::Close(_))) | Some(Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
        }
    }
    // The client may have gone first.
    drop(socket.close(None).await);
}

async fn pump(address: SocketAddr, channel: u8, mut input: mpsc::Receiver<Bytes>, output: mpsc::Sender<Message>) {
    let stream = match TcpStream::connect(address).await {
        Ok(stream) => stream,
        Err(error) => {
            let message = format!("error forwarding port {}: {error}", address.port());
            // The client may have gone first.
            drop(output.send(frame(channel + 1, message.as_bytes())).await);
            return;
        }
    };
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let (mut reader, mut writer) = stream.into_split();
    let write = async {
        while let Some(chunk) = input.recv().await {
            if writer.write_all(&chunk).await.is_err() {
                return;
            }
        }
        // The other side may still be speaking.
        drop(writer.shutdown().await);
        std::future::pending().await
    };
    let read = async {
        let mut buffer = vec![0; 32 * 1024];
        while let Ok(read @ 1..) = reader.read(&mut buffer).await {
            if output.send(frame(channel, &buffer[..read])).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = write => {}
        () = read => {}
    }
}
