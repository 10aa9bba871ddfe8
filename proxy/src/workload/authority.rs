//! gRPC's C library (Python, C++, Ruby, PHP) names a unix socket by its escaped path: `:authority: run%2Fdouane%2F…`.
//! That is no authority (RFC 3986 3.2.2 has `%` in host names only as an escape, and ours takes none), and our HTTP/2
//! refuses the stream before anybody sees it. So `%` becomes `.` in that one field while it is read: it keeps its length,
//! and with it the client's and our view of the compression's table; nobody reads the field here.
//!
//! Knows HTTP/2's frames and the outer form of compressed fields (RFC 9113 4.1, RFC 7541 6), and nothing of their meaning.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// RFC 9113 3.4.
const PREFACE: usize = 24;
const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// What we let clients send at once; larger frames are refused by HTTP/2 itself.
const MAX_FRAME: usize = 16 * 1024;
/// Read at once.
const CHUNK: usize = 8 * 1024;
/// `:authority` in the static table (RFC 7541 A).
const AUTHORITY: usize = 1;
const AUTHORITY_NAME: &[u8] = b":authority";

/// A connection whose client may call a socket what it likes.
pub(super) struct Tolerant<I> {
    io: I,
    frames: Frames,
    // Read and seen, not taken yet.
    seen: Vec<u8>,
    taken: usize,
}

impl<I> Tolerant<I> {
    pub(super) fn new(io: I) -> Self {
        Self { io, frames: Frames::default(), seen: Vec::new(), taken: 0 }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Tolerant<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.taken == this.seen.len() {
            this.seen.clear();
            this.taken = 0;
            let mut chunk = [0; CHUNK];
            let mut read = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.frames.pass(read.filled(), &mut this.seen);
        }
        let rest = this.seen.get(this.taken..).unwrap_or_default();
        let fits = rest.len().min(buf.remaining());
        buf.put_slice(rest.get(..fits).unwrap_or_default());
        this.taken += fits;
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Tolerant<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

// Where in the stream of frames we are.
#[derive(Debug)]
struct Frames {
    // Bytes that pass as they are.
    pass: usize,
    // A frame's head, or a whole frame of headers, that has not come in full.
    held: Vec<u8>,
}

impl Default for Frames {
    fn default() -> Self {
        Self { pass: PREFACE, held: Vec::new() }
    }
}

impl Frames {
    /// Passes `bytes` on to `seen`, each in its turn.
    fn pass(&mut self, mut bytes: &[u8], seen: &mut Vec<u8>) {
        loop {
            let (now, rest) = bytes.split_at(self.pass.min(bytes.len()));
            seen.extend_from_slice(now);
            self.pass -= now.len();
            bytes = rest;
            if bytes.is_empty() {
                return;
            }
            let missing = self.wanted().saturating_sub(self.held.len());
            let (now, rest) = bytes.split_at(missing.min(bytes.len()));
            self.held.extend_from_slice(now);
            bytes = rest;
            // A head that is whole may want its payload.
            if self.held.len() < self.wanted() {
                continue;
            }
            let Some((length, kind)) = self.head() else { return };
            if is_held(length, kind) {
                tolerate(&mut self.held);
            } else {
                self.pass = length;
            }
            seen.append(&mut self.held);
        }
    }

    fn wanted(&self) -> usize {
        match self.head() {
            Some((length, kind)) if is_held(length, kind) => FRAME_HEAD + length,
            _ => FRAME_HEAD,
        }
    }

    // The length of a frame's payload, and its kind.
    fn head(&self) -> Option<(usize, u8)> {
        let head = self.held.get(..FRAME_HEAD)?;
        let [high, middle, low, kind, ..] = head else { return None };
        Some((u32::from_be_bytes([0, *high, *middle, *low]) as usize, *kind))
    }
}

fn is_held(length: usize, kind: u8) -> bool {
    kind == HEADERS && length <= MAX_FRAME
}

// A whole frame of headers.
fn tolerate(frame: &mut [u8]) {
    let flags = frame.get(4).copied().unwrap_or(0);
    let mut start = FRAME_HEAD;
    let mut end = frame.len();
    if flags & PADDED != 0 {
        end = end.saturating_sub(frame.get(FRAME_HEAD).copied().unwrap_or(0).into());
        start += 1;
    }
    if flags & PRIORITY != 0 {
        start += 5;
    }
    if let Some(block) = frame.get_mut(start..end) {
        // What cannot be read is left as it is: HTTP/2 itself will say so.
        let _ = walk(block);
    }
}

// Each field of a block, of which the last may be cut off.
fn walk(block: &mut [u8]) -> Option<()> {
    let mut at = 0;
    while let Some(first) = block.get(at).copied() {
        let bits = match first {
            0x80.. => 7,
            0x40..=0x7f => 6,
            0x20..=0x3f => 5,
            _ => 4,
        };
        let (index, after) = integer(block, at, bits)?;
        at = after;
        if bits == 7 || bits == 5 {
            continue;
        }
        let mut is_authority = index == AUTHORITY;
        if index == 0 {
            let (name, is_coded) = string(block, &mut at)?;
            is_authority = !is_coded && block.get(name)? == AUTHORITY_NAME;
        }
        let (value, is_coded) = string(block, &mut at)?;
        if is_authority && !is_coded {
            for byte in block.get_mut(value)?.iter_mut().filter(|byte| **byte == b'%') {
                *byte = b'.';
            }
        }
    }
    Some(())
}

// Where a string lies, and whether it is Huffman's code.
fn string(block: &[u8], at: &mut usize) -> Option<(std::ops::Range<usize>, bool)> {
    let is_coded = block.get(*at)? & 0x80 != 0;
    let (length, start) = integer(block, *at, 7)?;
    let end = start.checked_add(length)?;
    *at = end;
    (end <= block.len()).then_some((start..end, is_coded))
}

// RFC 7541 5.1.
fn integer(block: &[u8], at: usize, bits: u32) -> Option<(usize, usize)> {
    let most = (1_usize << bits) - 1;
    let mut value = usize::from(*block.get(at)?) & most;
    let mut next = at + 1;
    if value < most {
        return Some((value, next));
    }
    // More than 21 bits fit in no frame.
    for shift in [0, 7, 14] {
        let byte = usize::from(*block.get(next)?);
        next += 1;
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, next));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(flags: u8, block: &[u8]) -> Vec<u8> {
        let length = u32::try_from(block.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], HEADERS, flags, 0, 0, 0, 1];
        frame.extend_from_slice(block);
        frame
    }

    fn passed(chunks: &[&[u8]]) -> Vec<u8> {
        let (mut frames, mut seen) = (Frames { pass: 0, held: Vec::new() }, Vec::new());
        for chunk in chunks {
            frames.pass(chunk, &mut seen);
        }
        seen
    }

    #[test]
    fn an_escaped_path_becomes_an_authority_of_the_same_length_and_nothing_else_changes() {
        // Indexed POST; a literal path with an escape; the authority by its index.
        let before = b"\x83\x44\x04/a%2\x41\x0erun%2Fapi.sock";
        let after = b"\x83\x44\x04/a%2\x41\x0erun.2Fapi.sock";
        assert_eq!(passed(&[&frame(4, before)]), frame(4, after));
        // By its name, and padded.
        let before = b"\x02\x40\x0a:authority\x03a%b%%";
        let after = b"\x02\x40\x0a:authority\x03a.b%%";
        assert_eq!(passed(&[&frame(4 | PADDED, before)]), frame(4 | PADDED, after));
    }

    proptest! {
        #[test]
        fn whatever_is_sent_passes_whole_but_for_that_sign(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
            cut in 0_usize..600,
        ) {
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            let (mut frames, mut seen) = (Frames { pass: 0, held: Vec::new() }, Vec::new());
            frames.pass(first, &mut seen);
            frames.pass(second, &mut seen);
            seen.extend_from_slice(&frames.held);
            prop_assert_eq!(seen.len(), bytes.len());
            for (got, sent) in seen.iter().zip(&bytes) {
                prop_assert!(got == sent || (*got, *sent) == (b'.', b'%'));
            }
        }

        #[test]
        fn blocks_of_any_bytes_are_walked_without_harm(block in proptest::collection::vec(any::<u8>(), 0..200), flags: u8) {
            let sent = frame(flags, &block);
            prop_assert_eq!(passed(&[&sent]).len(), sent.len());
        }
    }
}
