//! One client's connection: it says who it is, and is given a channel or the announcements.

use super::{State, listen::House};
use crate::{
    bridge::{
        carry::{announce, carry},
        protocol::{HELLO_DEADLINE, MAX_HELLO, MAX_LINE, Purpose, Refusal, admit},
        socket::tune,
    },
    runtime::stdio::{Channel, Line, LineSplitter, Multiplexer},
};
use std::{io, sync::Arc};
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
            let too_long = |length: u64| {
                house
                    .log
                    .say(&format!("a connection was closed: its message of {length} bytes is longer than {MAX_LINE}"));
            };
            carry(reader, writer, lines.with_limit(MAX_LINE), channel, &too_long).await;
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
        State::Ready(multiplexer) | State::Leaving(multiplexer) => Arc::clone(multiplexer),
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
