//! One client's connection: it says who it is, and is given a channel or the announcements.

use super::{State, listen::House, log::Log};
use crate::{
    bridge::{
        frames::Batch,
        protocol::{HELLO_DEADLINE, MAX_HELLO, MAX_LINE, MAX_WAITING, Purpose, Refusal, admit},
        socket::tune,
    },
    runtime::stdio::{Channel, ChannelReceiver, ChannelSender, Line, LineSplitter, Multiplexer},
};
use bytes::Bytes;
use futures::FutureExt;
use std::{io, pin::pin, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{OwnedSemaphorePermit, TryAcquireError},
    time::timeout,
};

/// Serves a connection until it or the server ends.
pub(super) async fn serve(house: Arc<House>, stream: TcpStream, greeting: OwnedSemaphorePermit) {
    if tune(&stream).is_err() {
        return;
    }
    let (mut reader, mut writer) = stream.into_split();
    let mut lines = LineSplitter::new(MAX_HELLO);
    let Ok(hello) = timeout(HELLO_DEADLINE, hello(&mut reader, &mut lines)).await else { return };
    let Some(hello) = hello else { return };
    let admitted = hello.and_then(|hello| enter(&house, &hello));
    drop(greeting);
    let (admitted, _place) = match admitted {
        Ok(admitted) => admitted,
        Err(refusal) => {
            if refusal == Refusal::Unauthorized {
                house.log.say(&"a connection was refused: its token is not the one of this server");
            }
            let _gone = timeout(HELLO_DEADLINE, refuse(&mut writer, &refusal)).await;
            return;
        }
    };
    if writer.write_all(b"ok\n").await.is_err() {
        return;
    }
    let _ended = match admitted {
        Admitted::Channel(channel) => {
            carry(reader, writer, lines.with_limit(MAX_LINE), channel, &house.log).await;
            Ok(())
        }
        Admitted::Events(multiplexer) => announce(reader, writer, &multiplexer).await,
    };
}

enum Admitted {
    Channel(Channel),
    Events(Arc<Multiplexer>),
}

/// The first line; `None` when there is none.
async fn hello(reader: &mut OwnedReadHalf, lines: &mut LineSplitter) -> Option<Result<Vec<u8>, Refusal>> {
    let too_long = || Err(Refusal::Malformed("the first line is too long".to_owned()));
    let mut read = 0;
    loop {
        if let Some(line) = lines.next_line() {
            return Some(match line {
                Line::Whole(line) => Ok(line.to_vec()),
                Line::TooLong { .. } => too_long(),
            });
        }
        if read > MAX_HELLO {
            return Some(too_long());
        }
        match reader.read_buf(lines.room()).await {
            Ok(0) | Err(_) => return None,
            Ok(more) => read += more,
        }
    }
}

fn enter(house: &House, hello: &[u8]) -> Result<(Admitted, OwnedSemaphorePermit), Refusal> {
    let purpose = admit(hello, &house.token)?;
    let multiplexer = match &*house.state.borrow() {
        State::Ready(multiplexer) => Arc::clone(multiplexer),
        State::NotReady(reason) => return Err(Refusal::NotReady(reason.clone())),
    };
    let place = match Arc::clone(&house.places).try_acquire_owned() {
        Ok(place) => place,
        Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => {
            return Err(Refusal::Busy(format!("there are {} connections already", house.max_connections)));
        }
    };
    let admitted = match purpose {
        Purpose::Channel => {
            let channel = multiplexer.channel().map_err(|error| Refusal::NotReady(error.to_string()))?;
            Admitted::Channel(channel)
        }
        Purpose::Events => Admitted::Events(multiplexer),
    };
    Ok((admitted, place))
}

async fn refuse(writer: &mut OwnedWriteHalf, refusal: &Refusal) -> io::Result<()> {
    writer.write_all(refusal.to_line().as_bytes()).await?;
    writer.shutdown().await
}

/// Carries frames both ways. The channel ends with the client's side of the connection; the connection ends when everything
/// that the ended channel still held has been written.
async fn carry(reader: OwnedReadHalf, mut writer: OwnedWriteHalf, lines: LineSplitter, channel: Channel, log: &Log) {
    let (sender, receiver) = channel.split();
    tokio::select! {
        biased;
        () = incoming(reader, lines, sender, log) => {}
        _ended = outgoing(&mut writer, receiver) => {
            // The client sees the end of the connection either way.
            let _gone = writer.shutdown().await;
        }
    }
}

/// Returns when the client is gone.
async fn incoming(mut reader: OwnedReadHalf, mut lines: LineSplitter, sender: ChannelSender, log: &Log) {
    loop {
        let Some(line) = lines.next_line() else {
            if !matches!(reader.read_buf(lines.room()).await, Ok(1..)) {
                return;
            }
            continue;
        };
        let frame = match line {
            Line::Whole([]) => continue,
            Line::Whole(line) => Bytes::copy_from_slice(line),
            Line::TooLong { length, .. } => {
                log.say(&format!("a connection was closed: its message of {length} bytes is longer than {MAX_LINE}"));
                return;
            }
        };
        let mut sending = pin!(sender.send(frame));
        loop {
            // While the message cannot be taken, as when it is not this channel's turn, the client may go away.
            let room = lines.room();
            let may_wait = room.len() < MAX_WAITING;
            tokio::select! {
                biased;
                sent = &mut sending => match sent {
                    Ok(()) => break,
                    // The server has ended. What it said last is still written.
                    Err(_) => return std::future::pending().await,
                },
                read = reader.read_buf(room), if may_wait => {
                    if !matches!(read, Ok(1..)) {
                        return;
                    }
                }
            }
        }
    }
}

async fn outgoing(writer: &mut OwnedWriteHalf, mut receiver: ChannelReceiver) -> io::Result<()> {
    let mut batch = Batch::default();
    while let Some(frame) = receiver.recv().await {
        batch.push(&frame);
        while !batch.is_full() {
            let Some(Some(frame)) = receiver.recv().now_or_never() else { break };
            batch.push(&frame);
        }
        batch.write(writer).await?;
    }
    Ok(())
}

/// Says how often the server's tools have changed, until the client or the server is gone.
async fn announce(mut reader: OwnedReadHalf, mut writer: OwnedWriteHalf, multiplexer: &Multiplexer) -> io::Result<()> {
    let mut changes = multiplexer.tools_changed();
    let mut byte = [0];
    loop {
        let count = *changes.borrow_and_update();
        writer.write_all(format!("tools {count}\n").as_bytes()).await?;
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return Ok(()) },
            _ = multiplexer.closed() => return writer.shutdown().await,
            // The client has nothing more to say.
            _ = reader.read(&mut byte) => return Ok(()),
        }
    }
}
