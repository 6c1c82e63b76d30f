//! The client over HTTP/2, against hyper's own server.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::upstream::dial::{ClientTls, DialOptions, DialPolicy};

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, HttpError> {
    let version = format!("{:?} ", request.version());
    let body = read_limited(request.into_body(), 1024, Instant::now() + Duration::from_secs(5)).await?;
    Ok(Response::new(Full::new([version.as_bytes(), &body].concat().into())))
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, connections: Arc<AtomicUsize>) {
    let mut open = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.fetch_add(1, Ordering::SeqCst);
        let tls = tls.clone();
        open.spawn(async move {
            let stream = tls.accept(stream).await.unwrap();
            let server = auto::Builder::new(TokioExecutor::new());
            drop(server.serve_connection(TokioIo::new(stream), service_fn(echo)).await);
            Ok::<_, Infallible>(())
        });
    }
}

#[tokio::test]
async fn concurrent_requests_share_one_http2_connection() {
    drop(aws_lc_rs::default_provider().install_default());
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let mut config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri: Uri = format!("https://{}/mcp", listener.local_addr().unwrap()).parse().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let _server = AbortOnDropHandle::new(tokio::spawn(serve(listener, acceptor, Arc::clone(&connections))));

    let tls = ClientTls::new([certified.cert.pem()]).unwrap();
    let dialer = Dialer::new(DialOptions::new(DialPolicy::loopback(), tls));
    let client = HttpClient::new(dialer, PoolOptions::default());
    let call = |index: usize| {
        let (client, uri) = (client.clone(), uri.clone());
        async move {
            let deadline = Instant::now() + Duration::from_secs(5);
            let request = Request::post(uri).body(Full::new(Bytes::from(index.to_string()))).unwrap();
            let response = client.request(request, Trust::Registry, deadline).await.unwrap();
            let body = read_limited(response.into_body(), 1024, deadline).await.unwrap();
            assert_eq!(body, format!("HTTP/2.0 {index}"));
        }
    };
    call(0).await;
    let mut calls: JoinSet<()> = (1..=50).map(call).collect();
    while let Some(done) = calls.join_next().await {
        done.unwrap();
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}
