//! What watches an HTTP/1 connection for ambiguous framing, against a second opinion: it never clears a stream of requests
//! in which a plain reading finds doubt, and where the bytes were cut makes no difference.
#![no_main]

use std::{
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use douane_proxy::{
    config::Limits,
    exchange::headwatch::{HeadWatch, Verdict},
};
use libfuzzer_sys::fuzz_target;
use tokio::{
    io::{AsyncRead, ReadBuf},
    runtime::{Builder, Runtime},
};

thread_local! {
    // Its time limits need a clock; nothing waits for one here.
    static CLOCK: Runtime = Builder::new_current_thread().enable_time().build().expect("a runtime without sockets");
}

fuzz_target!(|input: (Vec<u8>, u8)| {
    let (mut bytes, cut) = input;
    // A head is looked at with the ends of its lines: with the last of them, however it came.
    bytes.extend_from_slice(b"\r\n\r\n");
    CLOCK.with(|clock| {
        let _entered = clock.enter();
        let whole = watch(&bytes, bytes.len().max(1));
        assert_eq!(whole, watch(&bytes, usize::from(cut).max(1)), "in pieces of {cut}");
        if is_doubtful(&bytes) {
            assert_eq!(whole, Verdict::Doubtful);
        }
    });
});

struct Pieces<'a>(std::slice::Chunks<'a, u8>);

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if let Some(piece) = self.0.next() {
            buf.put_slice(piece);
        }
        Poll::Ready(Ok(()))
    }
}

fn watch(bytes: &[u8], size: usize) -> Verdict {
    let (watched, verdict) = HeadWatch::new(Pieces(bytes.chunks(size)), Limits::default());
    let mut watched = pin!(watched);
    let mut room = vec![0; bytes.len() + 1];
    loop {
        let mut buf = ReadBuf::new(&mut room);
        let mut cx = Context::from_waker(Waker::noop());
        match watched.as_mut().poll_read(&mut cx, &mut buf) {
            Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
            _ => return verdict.verdict(),
        }
    }
}

// A plain reading: the first request that is whole must say its length in one way.
fn is_doubtful(bytes: &[u8]) -> bool {
    let mut headers = [httparse::EMPTY_HEADER; 100];
    let mut request = httparse::Request::new(&mut headers);
    let Ok(httparse::Status::Complete(length)) = request.parse(bytes) else { return false };
    let head = bytes.get(..length).unwrap_or_default();
    let values = |name: &str| -> Vec<&[u8]> {
        request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value).collect()
    };
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    let bare = head.iter().enumerate().any(|(at, byte)| *byte == b'\n' && (at == 0 || head.get(at - 1) != Some(&b'\r')));
    let number = |value: &&[u8]| std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse::<u64>().ok();
    let odd_length = lengths.iter().any(|value| number(value).is_none()) || lengths.windows(2).any(|pair| pair.first() != pair.last());
    let odd_coding = codings.len() > 1 || codings.iter().any(|value| !value.eq_ignore_ascii_case(b"chunked"));
    bare || odd_length || odd_coding || !lengths.is_empty() && !codings.is_empty()
}
