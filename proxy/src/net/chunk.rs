//! What one read of a socket brought, as bytes that travel on without being copied. A connection holds no buffer while it
//! waits: each read borrows one of its thread's, which comes back when the last of its bytes has left.
//!
//! Knows not where the bytes go.

use std::{
    cell::RefCell,
    io, mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

use crate::{
    budget::{self, Loan},
    tls,
};

/// Bytes of one buffer, and the most that one read takes: sixteen TLS records for one system call.
const CHUNK: usize = 256 * 1024;
/// Less than this part of a buffer is copied out of it, so that what waits for a slow reader holds no more than twice its
/// size.
const WORTH_KEEPING: usize = CHUNK / 2;
/// One read takes this much where there is little room.
const FRUGAL: usize = 16 * 1024;
/// Buffers kept for the next reads on this thread.
const SPARE_BUFFERS: usize = 4;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Reads what is there; `None` at the end.
pub(super) fn poll_read<R>(from: &mut R, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>>
where
    R: AsyncRead + Unpin,
{
    tls::flush_overdue();
    let mut chunk = Chunk::borrow();
    let most = if budget::is_tight() { FRUGAL } else { CHUNK };
    let mut buffer = ReadBuf::new(chunk.buffer.get_mut(..most).unwrap_or_default());
    // `poll_read`, not `try_read`: tokio then knows from a short read that the socket is empty and spares the next EAGAIN.
    ready!(Pin::new(from).poll_read(cx, &mut buffer))?;
    let read = buffer.filled();
    Poll::Ready(Ok(match read.len() {
        0 => None,
        WORTH_KEEPING.. => {
            chunk.filled = read.len();
            chunk.held.resize(CHUNK);
            Some(Bytes::from_owner(chunk))
        }
        _ => Some(Bytes::copy_from_slice(read)),
    }))
}

#[derive(Debug)]
struct Chunk {
    buffer: Vec<u8>,
    filled: usize,
    // While its bytes travel.
    held: Loan,
}

impl Chunk {
    fn borrow() -> Self {
        let spare = SPARE.with_borrow_mut(Vec::pop);
        Self { buffer: spare.unwrap_or_else(|| vec![0; CHUNK]), filled: 0, held: Loan::default() }
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        self.buffer.get(..self.filled).unwrap_or_default()
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let buffer = mem::take(&mut self.buffer);
        // A thread that ends needs none.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARE_BUFFERS {
                spare.push(buffer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn a_large_read_is_held_until_its_bytes_have_left_and_a_small_one_holds_no_buffer() {
        let (mut near, mut far) = tokio::io::duplex(4 * CHUNK);
        near.write_all(&vec![7; CHUNK]).await.unwrap();

        let large = poll_fn(|cx| poll_read(&mut far, cx)).await.unwrap().unwrap();
        near.write_all(b"small").await.unwrap();
        let small = poll_fn(|cx| poll_read(&mut far, cx)).await.unwrap().unwrap();

        assert_eq!((large.len(), &small[..]), (CHUNK, &b"small"[..]));
        assert_eq!(budget::held(), CHUNK);
        drop(large);
        assert_eq!(budget::held(), 0);
        drop(near);
        assert!(poll_fn(|cx| poll_read(&mut far, cx)).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn where_there_is_little_room_a_read_is_small() {
        budget::fix(1 << 20);
        let _crowd = budget::hold(1 << 20);
        let (mut near, mut far) = tokio::io::duplex(CHUNK);
        near.write_all(&vec![7; CHUNK]).await.unwrap();

        let read = poll_fn(|cx| poll_read(&mut far, cx)).await.unwrap().unwrap();

        assert_eq!(read.len(), FRUGAL);
    }
}
