//! What follows the first line of a connection, on the side of the server: frames of one channel, or announcements.

use super::{frames::Batch, protocol::MAX_WAITING};
use crate::runtime::stdio::{Channel, ChannelReceiver, ChannelSender, Line, LineSplitter, Multiplexer};
use bytes::Bytes;
use futures::FutureExt;
use std::{io, pin::pin};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Carries frames both ways; `too_long` is told of a message beyond the limit, which ends the connection. The channel ends with the client's side of the connection; the connection ends when everything
/// that the ended channel still held has been written.
pub(super) async fn carry<R, W>(
    reader: R,
    mut writer: W,
    lines: LineSplitter,
    channel: Channel,
    too_long: &(dyn Fn(u64) + Send + Sync),
) where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin,
{
    let (sender, receiver) = channel.split();
    tokio::select! {
        biased;
        () = incoming(reader, lines, sender, too_long) => {}
        _ended = outgoing(&mut writer, receiver) => {
            // The client sees the end of the connection either way.
            let _gone = writer.shutdown().await;
        }
    }
}

/// Returns when the client is gone.
async fn incoming<R: AsyncRead + Send + Unpin>(
    mut reader: R,
    mut lines: LineSplitter,
    sender: ChannelSender,
    too_long: &(dyn Fn(u64) + Send + Sync),
) {
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
                too_long(length);
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

async fn outgoing<W: AsyncWrite + Send + Unpin>(writer: &mut W, mut receiver: ChannelReceiver) -> io::Result<()> {
    let mut batch = Batch::default();
    while let Some(frame) = receiver.recv().await {
        batch.push(&frame);
        take_what_is_there(&mut batch, &mut receiver);
        // What the server writes next is read meanwhile, and travels together with it.
        tokio::task::yield_now().await;
        take_what_is_there(&mut batch, &mut receiver);
        batch.write(writer).await?;
    }
    Ok(())
}

fn take_what_is_there(batch: &mut Batch, receiver: &mut ChannelReceiver) {
    while !batch.is_full() {
        let Some(Some(frame)) = receiver.recv().now_or_never() else { break };
        batch.push(&frame);
    }
}

/// Says how often the server's tools have changed, until the client or the server is gone.
pub(super) async fn announce<R, W>(mut reader: R, mut writer: W, multiplexer: &Multiplexer) -> io::Result<()>
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin,
{
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
