//! The dialer as hyper's client wants it: a service from URI to connection.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tower::Service;

use super::{DialError, Dialer, Trust, tls};

/// Dials everything under one [`Trust`], so that a pool on top of it holds connections of that trust alone.
#[derive(Debug, Clone)]
pub struct Connector {
    dialer: Dialer,
    trust: Trust,
}

impl Connector {
    pub(super) fn new(dialer: Dialer, trust: Trust) -> Self {
        Self { dialer, trust }
    }
}

impl Service<Uri> for Connector {
    type Response = DialedStream;
    type Error = DialError;
    // hyper wants a future that can be moved; this is one allocation per connection, not per request.
    type Future = Pin<Box<dyn Future<Output = Result<DialedStream, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { dialer, trust } = self.clone();
        Box::pin(async move { dialer.open(&uri, trust).await })
    }
}

/// A connection that was allowed, with or without TLS.
#[derive(Debug)]
pub struct DialedStream {
    io: Io,
}

#[derive(Debug)]
enum Io {
    Plain(TokioIo<TcpStream>),
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
}

impl DialedStream {
    pub(super) fn plain(stream: TcpStream) -> Self {
        Self { io: Io::Plain(TokioIo::new(stream)) }
    }

    pub(super) fn tls(stream: TlsStream<TcpStream>) -> Self {
        Self { io: Io::Tls(Box::new(TokioIo::new(stream))) }
    }
}

impl Connection for DialedStream {
    fn connected(&self) -> Connected {
        // No extras: hyper would copy them into every response.
        match &self.io {
            Io::Tls(stream) if tls::chose_h2(stream.inner()) => Connected::new().negotiated_h2(),
            Io::Tls(_) | Io::Plain(_) => Connected::new(),
        }
    }
}

impl Read for DialedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Io::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl Write for DialedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Io::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Io::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(stream) => stream.is_write_vectored(),
            Io::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Io::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }
}
