//! Frames on a stream: many small ones are written together, and a line end within one does not begin another.

use bytes::{BufMut, Bytes, BytesMut};
use std::io;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// From here on no more frames are written together.
pub(super) const FULL: usize = 64 * 1024;

/// What is written next.
#[derive(Debug, Default)]
pub(super) struct Batch(BytesMut);

impl Batch {
    /// Appends a frame and its end.
    pub(super) fn push(&mut self, frame: &Bytes) {
        let start = self.0.len();
        self.0.reserve(frame.len() + 1);
        self.0.put_slice(frame);
        if memchr::memchr2(b'\n', b'\r', frame).is_some() {
            // A line end in valid JSON is white space.
            self.0[start..].iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
        }
        self.0.put_u8(b'\n');
    }

    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= FULL
    }

    /// Writes all of it.
    pub(super) async fn write<W: AsyncWrite + Unpin>(&mut self, to: &mut W) -> io::Result<()> {
        to.write_all(&self.0).await?;
        to.flush().await?;
        self.0.clear();
        if self.0.capacity() > 4 * FULL {
            self.0 = BytesMut::new();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Batch;

    #[tokio::test]
    async fn a_frame_is_one_line_whatever_is_in_it() {
        let mut batch = Batch::default();
        batch.push(&"{\"a\":\r\n1}".into());
        batch.push(&"2".into());
        let mut written = Vec::new();
        batch.write(&mut written).await.unwrap();
        batch.push(&"3".into());
        batch.write(&mut written).await.unwrap();
        assert_eq!(written, b"{\"a\":  1}\n2\n3\n");
    }
}
