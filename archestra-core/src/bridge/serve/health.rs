//! Health checks: the least of HTTP that a prober needs.

use super::State;
use std::{io, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::timeout,
};

/// How long one check may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// How much of a request is read.
const MAX_HEAD: usize = 4096;

/// Answers one request, and closes.
pub(super) async fn answer(mut stream: TcpStream, state: &watch::Receiver<State>) {
    // A prober that is gone needs no answer.
    let _gone = timeout(DEADLINE, exchange(&mut stream, state)).await;
}

async fn exchange(stream: &mut TcpStream, state: &watch::Receiver<State>) -> io::Result<()> {
    let mut head = Vec::with_capacity(512);
    while !ends(&head) {
        if head.len() > MAX_HEAD || stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let (status, body) = respond(&head, &state.borrow());
    let length = body.len() + 1;
    let response = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}\n"
    );
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}

fn ends(head: &[u8]) -> bool {
    head.windows(4).any(|window| window == b"\r\n\r\n")
}

fn respond(head: &[u8], state: &State) -> (&'static str, String) {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    if words.next() != Some(b"GET") {
        return ("405 Method Not Allowed", "only GET is answered".to_owned());
    }
    let target = words.next().unwrap_or_default();
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    match (path, state) {
        (b"/live", _) => ("200 OK", "live".to_owned()),
        (b"/ready", State::Ready(multiplexer)) => match multiplexer.closed_now() {
            None => ("200 OK", "ready".to_owned()),
            Some(closed) => ("503 Service Unavailable", closed.to_string()),
        },
        (b"/ready", State::Leaving(_)) => ("503 Service Unavailable", "the server is being stopped".to_owned()),
        (b"/ready", State::NotReady(reason)) => ("503 Service Unavailable", reason.clone()),
        _ => ("404 Not Found", "there are /ready and /live".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::{State, ends, respond};

    #[test]
    fn what_is_asked_is_answered() {
        let state = State::NotReady("the server is starting".to_owned());
        for (head, status) in [
            ("GET /live HTTP/1.1\r\n\r\n", "200 OK"),
            ("GET /live?x=1 HTTP/1.1\r\nhost: a\r\n\r\n", "200 OK"),
            ("GET /ready HTTP/1.1\r\n\r\n", "503 Service Unavailable"),
            ("GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
            ("POST /ready HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
            ("\r\n\r\n", "405 Method Not Allowed"),
        ] {
            assert!(ends(head.as_bytes()));
            assert_eq!(respond(head.as_bytes(), &state).0, status, "{head}");
        }
        assert_eq!(respond(b"GET /ready HTTP/1.1\r\n\r\n", &state).1, "the server is starting");
    }
}
