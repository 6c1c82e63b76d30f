//! The client against raw listeners that misbehave on purpose.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::StatusCode;
use http::header::{HOST, LOCATION};
use http_body_util::BodyExt;
use rustls::crypto::aws_lc_rs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::upstream::dial::{ClientTls, DialOptions, DialPolicy};

fn client(policy: DialPolicy) -> HttpClient {
    drop(aws_lc_rs::default_provider().install_default());
    let tls = ClientTls::new(std::iter::empty::<&[u8]>()).unwrap();
    HttpClient::new(Dialer::new(DialOptions::new(policy, tls)), PoolOptions::default())
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn post(uri: &str) -> Request<Full<Bytes>> {
    Request::post(uri).body(Full::new(Bytes::from_static(b"{}"))).unwrap()
}

struct Server {
    port: u16,
    connections: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    /// Serves each connection with `serve`, which is told how many came before it.
    async fn start<F>(serve: impl Fn(TcpStream, usize) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.spawn(serve(stream, counter.fetch_add(1, Ordering::SeqCst)));
            }
        });
        Self { port, connections, _task: AbortOnDropHandle::new(task) }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Reads one request without looking further than its head and, for a POST, the two bytes of its body.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    let mut byte = [0];
    while !read.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).await.ok()? == 0 {
            return None;
        }
        read.push(byte[0]);
    }
    let head = String::from_utf8(read).unwrap();
    if head.starts_with("POST") {
        stream.read_exact(&mut [0; 2]).await.ok()?;
    }
    Some(head)
}

async fn answer_all(mut stream: TcpStream, response: String) {
    while read_request(&mut stream).await.is_some() {
        stream.write_all(response.as_bytes()).await.unwrap();
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn a_connection_is_used_again_and_never_across_trusts() {
    let server = Server::start(|stream, _| answer_all(stream, ok("hello"))).await;
    let client = client(DialPolicy::loopback());
    for (trust, connections) in [(Trust::Registry, 1), (Trust::Registry, 1), (Trust::Runtime, 2), (Trust::Runtime, 2)] {
        let response = client.request(post(&server.url("/")), trust, soon()).await.unwrap();
        assert_eq!(read_limited(response.into_body(), 64, soon()).await.unwrap(), "hello");
        assert_eq!(server.connections(), connections);
    }
    let error = client.request(post(&server.url("/?key=s3cr3t")), Trust::Installation, soon()).await.unwrap_err();
    assert!(matches!(error, HttpError::Refused(_)), "{error:?}");
    assert!(error.is_connect() && !error.is_retryable());
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_pooled_connection_the_server_closed_is_replaced() {
    let closed = Arc::new(tokio::sync::Notify::new());
    let closes = Arc::clone(&closed);
    let server = Server::start(move |mut stream, _| {
        let closes = Arc::clone(&closes);
        async move {
            read_request(&mut stream).await.unwrap();
            stream.write_all(ok("one").as_bytes()).await.unwrap();
            drop(stream);
            closes.notify_one();
        }
    })
    .await;
    let client = client(DialPolicy::loopback());
    for round in 1..=3 {
        let response = client.request(post(&server.url("/")), Trust::Registry, soon()).await.unwrap();
        assert_eq!(read_limited(response.into_body(), 64, soon()).await.unwrap(), "one");
        assert_eq!(server.connections(), round);
        closed.notified().await;
        // What the kernel knows by now the client's task learns when it has been its turn.
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn a_dead_port_is_a_retryable_connect_error_without_the_query() {
    let server = Server::start(|stream, _| answer_all(stream, ok(""))).await;
    let (url, port) = (server.url("/mcp?key=s3cr3t"), server.port);
    drop(server);
    for _ in 0..3000 {
        if TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let error = client(DialPolicy::loopback()).request(post(&url), Trust::Registry, soon()).await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with(&format!("cannot connect to 127.0.0.1:{port}: Connection refused")), "{text}");
    assert!(error.is_connect() && error.is_retryable() && !error.is_timeout());
    assert!(!format!("{error:?}").contains("s3cr3t"));
}

#[tokio::test]
async fn a_server_that_hangs_up_on_a_request_is_not_asked_twice() {
    let server = Server::start(|mut stream, _| async move {
        read_request(&mut stream).await;
    })
    .await;
    let error = client(DialPolicy::loopback())
        .request(post(&server.url("/?s3cr3t")), Trust::Registry, soon())
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the exchange with 127.0.0.1:{} failed: connection closed before message completed", server.port)
    );
    assert!(!error.is_connect() && !error.is_retryable());
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_server_that_does_not_speak_http_is_a_protocol_error() {
    let server = Server::start(|stream, _| answer_all(stream, "SSH-2.0-OpenSSH\r\n\r\n".to_owned())).await;
    let error =
        client(DialPolicy::loopback()).request(post(&server.url("/")), Trust::Registry, soon()).await.unwrap_err();
    assert!(matches!(error, HttpError::Protocol { sent: Sent::Perhaps, .. }), "{error:?}");
}

#[tokio::test]
async fn a_silent_server_meets_the_deadline() {
    let server = Server::start(|mut stream, _| async move {
        read_request(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    // Enough for the connection, which is not what is waited for.
    let deadline = Instant::now() + Duration::from_secs(2);
    let error =
        client(DialPolicy::loopback()).request(post(&server.url("/")), Trust::Registry, deadline).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("waiting for a response from 127.0.0.1:{} took longer than ", server.port)),
        "{text}"
    );
    assert!(error.is_timeout() && !error.is_connect() && !error.is_retryable());
}

#[tokio::test]
async fn a_url_with_credentials_is_refused_and_not_repeated() {
    let error = client(DialPolicy::loopback())
        .request(post("http://user:s3cr3t@127.0.0.1:1/"), Trust::Registry, soon())
        .await
        .unwrap_err();
    assert!(matches!(error, HttpError::Url(_)), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("s3cr3t"));
}

async fn redirecting(location: impl Fn(u16, usize) -> String + Clone + Send + Sync + 'static) -> Server {
    Server::start(move |mut stream, _| {
        let location = location.clone();
        async move {
            let port = stream.local_addr().unwrap().port();
            let mut round = 0;
            while let Some(head) = read_request(&mut stream).await {
                let response = if head.starts_with("GET /end") {
                    ok("end")
                } else {
                    let location = location(port, round);
                    format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
                };
                round += 1;
                stream.write_all(response.as_bytes()).await.unwrap();
            }
        }
    })
    .await
}

async fn follow(server: &Server) -> Result<Response<Incoming>, HttpError> {
    let uri: Uri = server.url("/start?key=s3cr3t").parse().unwrap();
    client(DialPolicy::loopback()).get_following(&uri, &HeaderMap::new(), Trust::Registry, soon()).await
}

#[tokio::test]
async fn redirects_are_followed_only_within_the_origin_and_only_on_request() {
    let server = redirecting(|_, round| if round == 0 { "/next".to_owned() } else { "/end#x".to_owned() }).await;
    let response = follow(&server).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "end");
    assert_eq!(server.connections(), 1);

    let plain = client(DialPolicy::loopback());
    let response = plain.request(post(&server.url("/start")), Trust::Registry, soon()).await.unwrap();
    assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(response.headers()[LOCATION], "/next");

    let absolute = redirecting(|port, _| format!("http://127.0.0.1:{port}/end")).await;
    assert_eq!(follow(&absolute).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn other_redirects_are_typed_errors() {
    for (location, fault, to) in [
        ("http://127.0.0.2/end?s3cr3t", RedirectFault::CrossOrigin, Some("127.0.0.2")),
        ("https://127.0.0.1/end", RedirectFault::CrossOrigin, Some("127.0.0.1")),
        ("//169.254.169.254/latest", RedirectFault::CrossOrigin, Some("169.254.169.254")),
        ("http://user:s3cr3t@127.0.0.9/", RedirectFault::CrossOrigin, Some("127.0.0.9")),
        ("file:///etc/passwd", RedirectFault::CrossOrigin, None),
        ("http://[", RedirectFault::BadLocation, None),
        ("/again", RedirectFault::TooMany, None),
    ] {
        let server = redirecting(move |_, _| location.to_owned()).await;
        let error = follow(&server).await.unwrap_err();
        let text = error.to_string();
        assert!(!text.contains("s3cr3t") && text.contains(&format!("127.0.0.1:{}", server.port)), "{text}");
        assert!(
            matches!(&error, HttpError::Redirect { fault: f, to: t, .. } if *f == fault && t.as_deref() == to),
            "{error:?}"
        );
    }
    let own_port = redirecting(|port, _| format!("http://user:s3cr3t@127.0.0.1:{port}/end")).await;
    let error = follow(&own_port).await.unwrap_err();
    assert!(matches!(error, HttpError::Redirect { fault: RedirectFault::BadLocation, .. }), "{error:?}");
}

#[tokio::test]
async fn bodies_are_read_up_to_the_limit() {
    let announced = Server::start(|stream, _| answer_all(stream, ok(&"x".repeat(100)))).await;
    let chunked = Server::start(|mut stream, _| async move {
        while read_request(&mut stream).await.is_some() {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
            for _ in 0..10 {
                if stream.write_all(b"a\r\nxxxxxxxxxx\r\n").await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            drop(stream.write_all(b"0\r\n\r\n").await);
        }
    })
    .await;
    for server in [announced, chunked] {
        let client = client(DialPolicy::loopback());
        for limit in [100, 5000] {
            let response = client.request(post(&server.url("/")), Trust::Registry, soon()).await.unwrap();
            assert_eq!(read_limited(response.into_body(), limit, soon()).await.unwrap(), "x".repeat(100));
        }
        for limit in [0, 9, 99] {
            let response = client.request(post(&server.url("/")), Trust::Registry, soon()).await.unwrap();
            let error = read_limited(response.into_body(), limit, soon()).await.unwrap_err();
            assert!(matches!(error, HttpError::TooLarge { limit: l } if l == limit), "{error:?}");
            assert_eq!(error.to_string(), format!("the body is larger than {limit} bytes"));
        }
    }
}

#[tokio::test]
async fn a_slow_body_meets_the_deadline_and_a_broken_one_is_told() {
    let server = Server::start(|mut stream, connection| async move {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc").await.unwrap();
        if connection == 0 {
            std::future::pending::<()>().await;
        }
    })
    .await;
    let client = client(DialPolicy::loopback());
    let response = client.request(post(&server.url("/")), Trust::Registry, soon()).await.unwrap();
    let deadline = Instant::now() + Duration::from_millis(100);
    let error = read_limited(response.into_body(), 1000, deadline).await.unwrap_err();
    assert!(error.to_string().starts_with("receiving the body took longer than "), "{error}");

    let response = client.request(post(&server.url("/")), Trust::Registry, soon()).await.unwrap();
    let error = read_limited(response.into_body(), 1000, soon()).await.unwrap_err();
    assert!(error.to_string().starts_with("the exchange failed: "), "{error}");
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn the_request_arrives_as_it_was_made() {
    let server = Server::start(|mut stream, _| async move {
        let head = read_request(&mut stream).await.unwrap();
        stream.write_all(ok(&head).as_bytes()).await.unwrap();
    })
    .await;
    let mut request = post(&server.url("/mcp?a=b"));
    request.headers_mut().insert("mcp-name", "tool".parse().unwrap());
    let response = client(DialPolicy::loopback()).request(request, Trust::Registry, soon()).await.unwrap();
    let head = read_limited(response.into_body(), 4096, soon()).await.unwrap();
    let head = std::str::from_utf8(&head).unwrap();
    assert!(head.starts_with("POST /mcp?a=b HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("mcp-name: tool\r\n") && head.contains("content-length: 2\r\n"), "{head}");
    assert!(head.contains(&format!("{HOST}: 127.0.0.1:{}\r\n", server.port)), "{head}");
}
