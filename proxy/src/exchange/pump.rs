//! A body onto an HTTP/2 stream, as fast as its flow control permits, trailers included.

use std::{future::poll_fn, pin::Pin, task::Poll};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body as _;

use crate::exchange::body::{Body, BodyError};

/// Sends all of `body`. A body that ends early resets the stream: the other side must not take half for whole.
///
/// # Errors
/// Why it was not sent to its end.
pub async fn send(mut body: Body, mut stream: SendStream<Bytes>) -> Result<(), BodyError> {
    let sent = try_send(&mut body, &mut stream).await;
    if sent.is_err() {
        // Also where the frames themselves were at fault: the other side would wait for the rest for ever.
        stream.send_reset(Reason::CANCEL);
    }
    sent
}

async fn try_send(body: &mut Body, stream: &mut SendStream<Bytes>) -> Result<(), BodyError> {
    loop {
        let frame = poll_fn(|cx| {
            if let Poll::Ready(reason) = stream.poll_reset(cx) {
                return Poll::Ready(Some(Err(BodyError::Peer(match reason {
                    Ok(reason) => reason.into(),
                    Err(error) => error,
                }))));
            }
            Pin::new(&mut *body).poll_frame(cx)
        })
        .await;
        let Some(frame) = frame.transpose()? else {
            return Ok(stream.send_data(Bytes::new(), true)?);
        };
        let bytes = match frame.into_data() {
            Ok(bytes) => bytes,
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => return Ok(stream.send_trailers(trailers)?),
                Err(_) => continue,
            },
        };
        if send_part(body, stream, bytes).await? == Sent::Last {
            return Ok(());
        }
    }
}

#[derive(PartialEq, Eq)]
enum Sent {
    Last,
    More,
}

async fn send_part(
    body: &mut Body,
    stream: &mut SendStream<Bytes>,
    mut bytes: Bytes,
) -> Result<Sent, BodyError> {
    loop {
        // Known to be the last: its frame says so, and none of its own follows.
        let last = body.is_end_stream();
        if bytes.is_empty() && !last {
            return Ok(Sent::More);
        }
        if bytes.is_empty() {
            stream.send_data(bytes, true)?;
            return Ok(Sent::Last);
        }
        stream.reserve_capacity(bytes.len());
        let capacity = poll_fn(|cx| {
            // A slow reader must not outlive a change of the law.
            if let Poll::Ready(cut) = body.poll_cut(cx) {
                return Poll::Ready(Err(cut));
            }
            stream.poll_capacity(cx).map(|capacity| Ok(capacity.transpose()?))
        })
        .await?;
        let Some(capacity) = capacity else {
            return Err(BodyError::Peer(Reason::CANCEL.into()));
        };
        let part = bytes.split_to(capacity.min(bytes.len()));
        let ends = last && bytes.is_empty();
        stream.send_data(part, ends)?;
        if ends {
            return Ok(Sent::Last);
        }
    }
}
