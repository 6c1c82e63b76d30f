//! From replica to replica: the channels of a server whose stream another replica of the platform has.
//!
//! The one that is called says a nonce, `ARCHESTRA-PEER/1 <nonce>`. The caller says what it wants, a nonce of its own and the
//! proof that it has the same keys: `<purpose> <namespace> <workload> <nonce> <key> <mac>`. It is answered `ok <key> <mac>`, by
//! which the other side proves the same, or `refused <code> <reason>`. From there on everything is as on a connection to a
//! [bridge](super): newline-delimited JSON-RPC, or announcements.
//!
//! No key is said, and a proof is good for one connection to the one replica that it was made for: whoever got the address of a
//! replica that is gone learns nothing, and cannot pass a call on to its successor.

use super::{
    carry::{announce, carry},
    client::{ConnectError, Driver, Events, Greeted, LONGEST, within},
    protocol::{HELLO_DEADLINE, MAX_HELLO, MAX_LINE, Purpose, Refusal},
    socket::tune,
};
use crate::{
    runtime::stdio::{Channel, Line, LineSplitter, Multiplexer, MultiplexerOptions},
    secret::{Derived, KeyId},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use std::{io, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

/// How the first line begins.
const GREETING: &str = "ARCHESTRA-PEER/1";
/// How many random bytes each side says.
const NONCE: usize = 18;

/// Whose stream is asked for, and of which replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// What the replica that has it calls itself; another name at each start.
    pub holder: String,
    /// The workload's namespace.
    pub namespace: String,
    /// The workload.
    pub workload: String,
}

/// Many private channels over one connection, as [`client::multiplexer`](super::client::multiplexer) has them.
///
/// # Errors
/// [`ConnectError`], at the latest after `deadline`.
pub async fn multiplexer(
    address: &str,
    keys: &Derived,
    subject: &Subject,
    deadline: Duration,
    options: MultiplexerOptions,
) -> Result<Multiplexer, ConnectError> {
    let greeted = within(deadline, greet(address, keys, subject, Purpose::Channel)).await?;
    Ok(greeted.into_multiplexer(options))
}

/// A private channel over a connection of its own.
///
/// # Errors
/// [`ConnectError`], at the latest after `deadline`.
pub async fn channel(
    address: &str,
    keys: &Derived,
    subject: &Subject,
    deadline: Duration,
) -> Result<(Channel, Driver), ConnectError> {
    within(deadline, greet(address, keys, subject, Purpose::Channel)).await.map(Greeted::into_channel)
}

/// What the server announces, and when the other replica is gone.
///
/// # Errors
/// [`ConnectError`], at the latest after `deadline`.
pub async fn events(
    address: &str,
    keys: &Derived,
    subject: &Subject,
    deadline: Duration,
) -> Result<Events, ConnectError> {
    within(deadline, greet(address, keys, subject, Purpose::Events)).await.map(Greeted::into_events)
}

async fn greet(
    address: &str,
    keys: &Derived,
    subject: &Subject,
    purpose: Purpose,
) -> Result<Greeted<OwnedReadHalf, OwnedWriteHalf>, ConnectError> {
    let stream = TcpStream::connect(address).await?;
    tune(&stream)?;
    let (mut reader, mut writer) = stream.into_split();
    let mut lines = LineSplitter::new(MAX_HELLO);
    let stranger = |what: &str| ConnectError::NotABridge(what.to_owned());
    let theirs = line(&mut reader, &mut lines).await?;
    let theirs = text(&theirs).and_then(|line| line.strip_prefix(GREETING)?.strip_prefix(' ').map(str::to_owned));
    let theirs = theirs.filter(|nonce| is_nonce(nonce)).ok_or_else(|| stranger("it is no replica of the platform"))?;
    let ours = nonce()?;
    let (key, mac) = keys.sign(&statement(Side::Caller, purpose, subject, [&theirs, &ours]));
    let Subject { namespace, workload, .. } = subject;
    let (word, mac) = (word(purpose), URL_SAFE_NO_PAD.encode(mac));
    let hello = format!("{word} {namespace} {workload} {ours} {} {mac}\n", key.as_str());
    writer.write_all(hello.as_bytes()).await?;
    let answer = line(&mut reader, &mut lines).await?;
    let Some(proof) = text(&answer).and_then(|line| line.strip_prefix("ok ")) else {
        return Err(match Refusal::of_answer(&answer) {
            Ok(Some(refusal)) => ConnectError::Refused(refusal),
            Ok(None) => stranger("it did not prove that it has the same keys"),
            Err(reason) => ConnectError::NotABridge(reason),
        });
    };
    let statement = statement(Side::Called, purpose, subject, [&theirs, &ours]);
    if !is_proof(keys, proof, &statement) {
        return Err(stranger("it did not prove that it has the same keys"));
    }
    Ok(Greeted { reader, writer, lines: lines.with_limit(LONGEST) })
}

/// A replica that has proved to be one, and what it wants.
#[derive(Debug)]
pub struct Visitor {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    lines: LineSplitter,
    purpose: Purpose,
    subject: Subject,
    /// The line that lets it in.
    welcome: String,
}

/// Listens to who a connection is of. `None`: it is of none of our replicas, or was meant for another one; it has been told so.
pub async fn receive(stream: TcpStream, keys: &Derived, holder: &str) -> Option<Visitor> {
    tune(&stream).ok()?;
    timeout(HELLO_DEADLINE, admit(stream, keys, holder)).await.ok()?.ok()?
}

async fn admit(stream: TcpStream, keys: &Derived, holder: &str) -> Result<Option<Visitor>, ConnectError> {
    let (mut reader, mut writer) = stream.into_split();
    let mut lines = LineSplitter::new(MAX_HELLO);
    let ours = nonce()?;
    writer.write_all(format!("{GREETING} {ours}\n").as_bytes()).await?;
    let hello = line(&mut reader, &mut lines).await?;
    let Some((purpose, namespace, workload, theirs, proof)) = text(&hello).and_then(words) else {
        refuse(&mut writer, &Refusal::Malformed("the line is not that of a replica".to_owned())).await?;
        return Ok(None);
    };
    let subject = Subject { holder: holder.to_owned(), namespace: namespace.to_owned(), workload: workload.to_owned() };
    if !is_proof(keys, proof, &statement(Side::Caller, purpose, &subject, [&ours, theirs])) {
        tracing::warn!(
            "a connection to the peer listener was refused: it is of no replica that has our keys and meant us"
        );
        refuse(&mut writer, &Refusal::Unauthorized).await?;
        return Ok(None);
    }
    let (key, mac) = keys.sign(&statement(Side::Called, purpose, &subject, [&ours, theirs]));
    let welcome = format!("ok {} {}\n", key.as_str(), URL_SAFE_NO_PAD.encode(mac));
    Ok(Some(Visitor { reader, writer, lines: lines.with_limit(MAX_LINE), purpose, subject, welcome }))
}

impl Visitor {
    /// What it wants.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Sends it away.
    pub async fn refuse(mut self, refusal: &Refusal) {
        let _gone = timeout(HELLO_DEADLINE, refuse(&mut self.writer, refusal)).await;
    }

    /// Serves it from this stream, until it or the stream ends.
    pub async fn serve(mut self, multiplexer: &Multiplexer) {
        let channel = match (self.purpose, multiplexer.closed_now()) {
            (_, Some(closed)) => Err(closed.to_string()),
            (Purpose::Channel, None) => multiplexer.channel().map(Some).map_err(|error| error.to_string()),
            (Purpose::Events, None) => Ok(None),
        };
        let channel = match channel {
            Ok(channel) => channel,
            Err(reason) => return self.refuse(&Refusal::NotReady(reason)).await,
        };
        if self.writer.write_all(self.welcome.as_bytes()).await.is_err() {
            return;
        }
        match channel {
            Some(channel) => {
                let workload = self.subject.workload;
                let too_long = |length| {
                    tracing::warn!(
                        workload,
                        length,
                        "a replica sent a message that is too long; its connection is closed"
                    );
                };
                carry(self.reader, self.writer, self.lines, channel, &too_long).await;
            }
            None => {
                let _ended = announce(self.reader, self.writer, multiplexer).await;
            }
        }
    }
}

async fn refuse(writer: &mut OwnedWriteHalf, refusal: &Refusal) -> io::Result<()> {
    writer.write_all(refusal.to_line().as_bytes()).await?;
    writer.shutdown().await
}

/// Who proves something: what one side said proves nothing about the other.
#[derive(Debug, Clone, Copy)]
enum Side {
    Caller,
    Called,
}

/// What is proved by a signature. The holder's name, which may be anything, comes last.
fn statement(side: Side, purpose: Purpose, subject: &Subject, [called, caller]: [&str; 2]) -> Vec<u8> {
    let side = match side {
        Side::Caller => "caller",
        Side::Called => "called",
    };
    let Subject { holder, namespace, workload } = subject;
    format!("{GREETING} {side} {} {namespace} {workload} {called} {caller} {holder}", word(purpose)).into_bytes()
}

fn word(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Channel => "channel",
        Purpose::Events => "events",
    }
}

/// Purpose, namespace, workload, nonce and proof.
fn words(line: &str) -> Option<(Purpose, &str, &str, &str, &str)> {
    let mut words = line.splitn(5, ' ');
    let purpose = match words.next()? {
        "channel" => Purpose::Channel,
        "events" => Purpose::Events,
        _ => return None,
    };
    let (namespace, workload, nonce) = (words.next()?, words.next()?, words.next()?);
    is_nonce(nonce).then_some((purpose, namespace, workload, nonce, words.next()?))
}

fn is_proof(keys: &Derived, proof: &str, statement: &[u8]) -> bool {
    let proved = || {
        let (key, mac) = proof.split_once(' ')?;
        let key: KeyId = key.parse().ok()?;
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
        Some(keys.verify(&key, statement, &mac))
    };
    proved().unwrap_or(false)
}

fn nonce() -> io::Result<String> {
    let mut bytes = [0; NONCE];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("no random bytes from the operating system"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

fn is_nonce(text: &str) -> bool {
    URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == NONCE)
}

fn text(line: &[u8]) -> Option<&str> {
    std::str::from_utf8(line).ok()
}

async fn line<R: AsyncRead + Send + Unpin>(reader: &mut R, lines: &mut LineSplitter) -> Result<Vec<u8>, ConnectError> {
    let mut read = 0;
    loop {
        match lines.next_line() {
            Some(Line::Whole(line)) => return Ok(line.to_vec()),
            Some(Line::TooLong { .. }) => {
                return Err(ConnectError::NotABridge("its first line is too long".to_owned()));
            }
            None => {}
        }
        if read > MAX_HELLO {
            return Err(ConnectError::NotABridge("its first line does not end".to_owned()));
        }
        match reader.read_buf(lines.room()).await? {
            0 => return Err(ConnectError::Unreachable(io::ErrorKind::UnexpectedEof.into())),
            more => read += more,
        }
    }
}

#[cfg(test)]
mod tests;
