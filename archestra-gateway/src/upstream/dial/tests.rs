//! The dialer against listeners on this machine and a resolver that answers what the test wants.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::Uri;
use hyper_util::client::legacy::connect::Connection;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use super::*;

/// Answers from a table; each question gets the next answer, the last one for ever. A missing name never answers.
#[derive(Debug, Default)]
struct Script {
    answers: HashMap<&'static str, Vec<Vec<IpAddr>>>,
    asked: AtomicUsize,
}

#[async_trait]
impl Resolve for Script {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        match self.answers.get(host) {
            Some(answers) => Ok(answers[asked.min(answers.len() - 1)].clone()),
            None => std::future::pending().await,
        }
    }
}

fn client_tls() -> ClientTls {
    drop(aws_lc_rs::default_provider().install_default());
    ClientTls::new(std::iter::empty::<&[u8]>()).unwrap()
}

fn dialer(policy: DialPolicy) -> Dialer {
    Dialer::new(DialOptions::new(policy, client_tls()))
}

fn scripted(policy: DialPolicy, host: &'static str, answers: &[&[&str]]) -> Dialer {
    let parse = |answer: &&[&str]| answer.iter().map(|text| text.parse().unwrap()).collect();
    let answers = HashMap::from([(host, answers.iter().map(parse).collect())]);
    let resolver = Arc::new(Script { answers, asked: AtomicUsize::new(0) });
    let connect_timeout = Duration::from_secs(2);
    Dialer::new(DialOptions { resolver, connect_timeout, ..DialOptions::new(policy, client_tls()) })
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn uri(text: &str) -> Uri {
    text.parse().unwrap()
}

#[tokio::test]
async fn loopback_is_refused_until_the_operator_lists_it() {
    let (_listener, port) = listener().await;
    let error = dialer(DialPolicy::public_only()).tcp("127.0.0.1", port, Trust::Registry).await.unwrap_err();
    assert!(error.to_string().contains("--private-networks"), "{error}");

    let stream = dialer(DialPolicy::loopback()).tcp("127.0.0.1", port, Trust::Registry).await.unwrap();
    assert!(stream.nodelay().unwrap());
    dialer(DialPolicy::public_only()).tcp("127.0.0.1", port, Trust::Runtime).await.unwrap();

    let error = dialer(DialPolicy::loopback()).tcp("127.0.0.1", port, Trust::Installation).await.unwrap_err();
    assert!(matches!(error, DialError::Refused { why: Refusal::Untrusted { block: "loopback" }, .. }), "{error:?}");
}

#[tokio::test]
async fn names_are_judged_by_what_they_resolve_to() {
    let (_listener, port) = listener().await;
    let error = dialer(DialPolicy::public_only()).tcp("localhost", port, Trust::Registry).await.unwrap_err();
    assert!(matches!(&error, DialError::Refused { host, .. } if host == "localhost"), "{error:?}");

    let metadata = scripted(DialPolicy::loopback(), "meta.example", &[&["169.254.169.254"]]);
    let error = metadata.tcp("meta.example", 80, Trust::Registry).await.unwrap_err();
    assert!(matches!(error, DialError::Refused { why: Refusal::Never { block: "link-local" }, .. }), "{error:?}");

    let nothing = scripted(DialPolicy::loopback(), "none.example", &[&[]]);
    let error = nothing.tcp("none.example", 80, Trust::Registry).await.unwrap_err();
    assert_eq!(error.to_string(), "the host none.example has no address");
}

#[tokio::test]
async fn a_name_that_changes_its_answer_is_judged_by_each_answer() {
    let (_listener, port) = listener().await;
    let flipping = scripted(DialPolicy::loopback(), "flip.example", &[&["127.0.0.1"], &["10.0.0.1"]]);
    flipping.tcp("flip.example", port, Trust::Registry).await.unwrap();
    let error = flipping.tcp("flip.example", port, Trust::Registry).await.unwrap_err();
    assert!(matches!(error, DialError::Refused { .. }), "{error:?}");
}

#[tokio::test]
async fn only_the_allowed_addresses_of_a_name_are_dialled() {
    let (listener, port) = listener().await;
    let mixed = scripted(DialPolicy::loopback(), "mixed.example", &[&["169.254.169.254", "10.0.0.1", "127.0.0.1"]]);
    let stream = mixed.tcp("mixed.example", port, Trust::Registry).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_does_not_answer() {
    let (_listener, port) = listener().await;
    // Nothing listens on the second loopback address.
    let two = scripted(DialPolicy::loopback(), "two.example", &[&["127.0.0.2", "127.0.0.1"]]);
    let stream = two.tcp("two.example", port, Trust::Registry).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap().ip().to_string(), "127.0.0.1");
}

#[tokio::test]
async fn a_dead_port_and_an_unknown_name_are_named() {
    let (listener, port) = listener().await;
    drop(listener);
    let error = dialer(DialPolicy::loopback()).tcp("127.0.0.1", port, Trust::Registry).await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with(&format!("cannot connect to 127.0.0.1:{port}: Connection refused")), "{text}");

    let error = dialer(DialPolicy::loopback()).tcp("no-such-host.invalid", 80, Trust::Registry).await.unwrap_err();
    assert!(error.to_string().starts_with("cannot resolve the host no-such-host.invalid: "), "{error}");
}

#[tokio::test]
async fn a_silent_resolver_meets_the_deadline() {
    tokio::time::pause();
    let error =
        scripted(DialPolicy::loopback(), "other", &[]).tcp("mute.example", 80, Trust::Registry).await.unwrap_err();
    assert_eq!(error.to_string(), "resolving the host mute.example took longer than 2s");
}

#[tokio::test]
async fn a_connection_nobody_accepts_meets_the_deadline() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    // With its queue full, the kernel leaves further connections unanswered.
    let mut queue = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_secs(2), TcpStream::connect(address)).await {
        queue.push(stream.unwrap());
    }

    let options = DialOptions::new(DialPolicy::loopback(), client_tls());
    let dialer = Dialer::new(DialOptions { connect_timeout: Duration::from_millis(300), ..options });
    let error = dialer.tcp("127.0.0.1", address.port(), Trust::Registry).await.unwrap_err();
    assert_eq!(error.to_string(), format!("connecting to {address} took longer than 300ms"));
    drop(queue);
}

#[tokio::test]
async fn urls_we_do_not_dial_are_refused_by_the_connector_too() {
    let dialer = dialer(DialPolicy::loopback());
    for bad in ["http://user:s3cr3t@127.0.0.1/", "ftp://127.0.0.1/", "/relative"] {
        let error = dialer.open(&uri(bad), Trust::Runtime).await.unwrap_err();
        assert!(matches!(error, DialError::Url(_)), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("s3cr3t"));
    }
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_named() {
    let (listener, port) = listener().await;
    let _server = AbortOnDropHandle::new(tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut hello = [0; 512];
        let _ = stream.read(&mut hello).await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    }));
    let target = uri(&format!("https://127.0.0.1:{port}/"));
    let error = dialer(DialPolicy::loopback()).open(&target, Trust::Registry).await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with(&format!("the TLS handshake with 127.0.0.1:{port} failed: ")), "{text}");
    assert!(matches!(error, DialError::Tls { .. }));
}

#[tokio::test]
async fn a_silent_tls_server_meets_the_deadline() {
    let (_listener, port) = listener().await;
    let options = DialOptions::new(DialPolicy::loopback(), client_tls());
    let dialer = Dialer::new(DialOptions { connect_timeout: Duration::from_secs(2), ..options });
    let error = dialer.open(&uri(&format!("https://127.0.0.1:{port}/")), Trust::Registry).await.unwrap_err();
    assert_eq!(error.to_string(), format!("the TLS handshake with 127.0.0.1:{port} took longer than 2s"));
}

/// A TLS server with a certificate of its own for `localhost`, which accepts one connection; and that certificate.
async fn tls_server(alpn: &[&[u8]]) -> (AbortOnDropHandle<()>, u16, String) {
    drop(aws_lc_rs::default_provider().install_default());
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate: CertificateDer<'static> = certified.cert.der().clone();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let mut config =
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (listener, port) = listener().await;
    let server = AbortOnDropHandle::new(tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        if let Ok(mut stream) = acceptor.accept(stream).await {
            drop(stream.read_u8().await);
        }
    }));
    (server, port, certified.cert.pem())
}

#[tokio::test]
async fn a_certificate_nobody_vouches_for_is_refused() {
    let (_server, port, _) = tls_server(&[]).await;
    let dialer = scripted(DialPolicy::loopback(), "localhost", &[&["127.0.0.1"]]);
    let error = dialer.open(&uri(&format!("https://localhost:{port}/")), Trust::Registry).await.unwrap_err();
    assert!(error.to_string().contains("invalid peer certificate"), "{error}");
}

#[tokio::test]
async fn an_additional_root_is_trusted_and_the_protocol_negotiated() {
    for (offered, h2) in [(b"h2".as_slice(), true), (b"http/1.1".as_slice(), false)] {
        let (_server, port, pem) = tls_server(&[offered]).await;
        let tls = ClientTls::new([pem]).unwrap();
        let answers = HashMap::from([("localhost", vec![vec!["127.0.0.1".parse().unwrap()]])]);
        let resolver = Arc::new(Script { answers, asked: AtomicUsize::new(0) });
        let options = DialOptions { resolver, ..DialOptions::new(DialPolicy::loopback(), tls) };
        let stream =
            Dialer::new(options).open(&uri(&format!("https://localhost:{port}/")), Trust::Registry).await.unwrap();
        assert_eq!(stream.connected().is_negotiated_h2(), h2);
    }
}

#[test]
fn a_missing_crypto_provider_is_an_error_that_says_what_to_do() {
    let error = ClientTls::with_installed(None, std::iter::empty::<&[u8]>()).unwrap_err();
    assert!(matches!(error, TlsSetupError::NoCryptoProvider));
    assert!(error.to_string().contains("install_default()"), "{error}");
}

#[test]
fn bad_roots_are_named() {
    let provider = || -> Arc<CryptoProvider> { Arc::new(aws_lc_rs::default_provider()) };
    let error = ClientTls::with_provider(provider(), ["no certificate"]).unwrap_err();
    assert_eq!(error.to_string(), "the additional CA file number 1 is not usable: it holds no PEM certificate");
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(ClientTls::with_provider(provider(), [broken]), Err(TlsSetupError::Root { number: 1, .. })));
}
