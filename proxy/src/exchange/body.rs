//! Every body that crosses the sidecar is one type: it counts its bytes into the record, ends the record with its
//! last byte, can be cut by a change of the law, and keeps guards alive as long as it lasts.
//!
//! Knows not where it goes: hyper polls it on the legs to applications, [`crate::exchange::pump`] between sidecars.

use std::{
    any::Any,
    collections::VecDeque,
    future::poll_fn,
    mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use douane_proto::request::clean_trailers;
use h2::RecvStream;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use crate::{
    authz::{Running, SeenBody, Waits},
    exchange::{
        headers::{Length, grpc_status_of},
        headwatch::Answering,
        ledger::{SharedAccess, note},
        retain,
    },
    net::reading::Reading,
    refusal::Refusal,
};

/// A body.
pub struct Body {
    source: Source,
    // Read before its time: given out first.
    held: VecDeque<Frame<Bytes>>,
    tap: Option<Tap>,
    cut: Option<(Rc<Running>, Waits)>,
    answering: Option<Answering>,
    guard: Option<Box<dyn Any>>,
}

/// One of a connection's streams: it is in use until the body that arrives on it has ended.
pub type InUse = Rc<()>;

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// From an application.
    #[error("the application's body")]
    Application(#[from] hyper::Error),
    /// From a peer.
    #[error("the peer's body")]
    Peer(#[from] h2::Error),
    /// Cut by us.
    #[error("cut: {0}")]
    Cut(Refusal),
}

enum Source {
    Nothing,
    Whole(Bytes),
    Application(Incoming, #[expect(dead_code, reason = "held for its drop")] Option<InUse>),
    Peer(RecvStream, Reading),
}

// Whose bytes the record counts.
enum Tap {
    Request(SharedAccess),
    Answer(SharedAccess, Length),
}

impl Body {
    /// No bytes.
    #[must_use]
    pub fn empty() -> Self {
        Source::Nothing.into()
    }

    /// These bytes.
    #[must_use]
    pub fn whole(bytes: Bytes) -> Self {
        Source::Whole(bytes).into()
    }

    /// The request's body: counts what comes from the client.
    #[must_use]
    pub fn counting(mut self, access: &SharedAccess) -> Self {
        self.tap = Some(Tap::Request(SharedAccess::clone(access)));
        self
    }

    /// The answer's body, of this length: counts what goes to the client. The record ends with it, and says so if the
    /// client went before.
    #[must_use]
    pub fn ending(mut self, access: SharedAccess, length: Length) -> Self {
        self.tap = Some(Tap::Answer(access, length));
        self
    }

    /// Ends with an error as soon as what it belongs to must end; `who` of it this is.
    #[must_use]
    pub fn cut_with(mut self, exchange: &Rc<Running>, who: Waits) -> Self {
        self.cut = Some((Rc::clone(exchange), who));
        self
    }

    /// Keeps `guard` until the body has ended; one at most.
    #[must_use]
    pub fn keeping(mut self, guard: impl Any) -> Self {
        self.guard = Some(Box::new(guard));
        self
    }

    /// Is its guard one of these?
    #[must_use]
    pub fn has_guard<G: Any>(&self) -> bool {
        self.guard.as_ref().is_some_and(|guard| guard.is::<G>())
    }

    /// Gives out its guard, if it is one of these.
    pub fn take_guard<G: Any>(&mut self) -> Option<Box<G>> {
        let guard = self.guard.take()?;
        guard.downcast().map_err(|other| self.guard = Some(other)).ok()
    }

    /// The connection does not rest until the body has ended.
    #[must_use]
    pub fn while_answering(mut self, answering: Answering) -> Self {
        self.answering = Some(answering);
        self
    }

    /// Reads until it has seen more than `most` bytes, or all. Whoever reads the body afterwards reads all of it.
    ///
    /// # Errors
    /// Why it ended early.
    pub async fn see(&mut self, most: usize) -> Result<SeenBody, BodyError> {
        let mut seen = BytesMut::new();
        for bytes in self.held.iter().filter_map(Frame::data_ref) {
            seen.extend_from_slice(bytes);
        }
        let mut is_whole = self.source.has_ended();
        while seen.len() <= most && !is_whole {
            let Some(frame) = poll_fn(|cx| self.poll_source(cx)).await.transpose()? else {
                is_whole = true;
                break;
            };
            seen.extend_from_slice(frame.data_ref().map_or(&[][..], Bytes::as_ref));
            is_whole = frame.is_trailers() || self.source.has_ended();
            // Kept at once: whoever no longer waits loses nothing of it.
            self.held.push_back(frame);
        }
        Ok(SeenBody { bytes: seen.freeze(), is_whole })
    }

    /// Reads all of it: bytes, and what follows them. Of more than `most` bytes it reads no further.
    ///
    /// # Errors
    /// Why there is no whole of this size.
    pub async fn gather(mut self, most: usize) -> Result<(Bytes, HeaderMap), String> {
        let (mut all, mut trailers) = (BytesMut::new(), HeaderMap::new());
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut self).poll_frame(cx)).await {
            let frame = frame.map_err(|error| error_text(&error))?;
            match frame.into_data() {
                Ok(bytes) if all.len() + bytes.len() > most => {
                    return Err(format!("it is longer than {most} bytes"));
                }
                Ok(bytes) => all.extend_from_slice(&bytes),
                Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
            }
        }
        Ok((all.freeze(), trailers))
    }

    /// Resolves when the body must end although nobody asks for its next frame (its reader is slow).
    pub fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let Some((exchange, who)) = &self.cut else { return Poll::Pending };
        let refusal = ready!(exchange.poll_ended(cx, *who)).clone();
        self.cut = None;
        self.fail(&refusal);
        Poll::Ready(BodyError::Cut(refusal))
    }

    // What was not read before.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(cut) = self.poll_cut(cx) {
            return Poll::Ready(Some(Err(cut)));
        }
        let frame = match &mut self.source {
            Source::Nothing => None,
            Source::Whole(bytes) => {
                let bytes = mem::take(bytes);
                self.source = Source::Nothing;
                (!bytes.is_empty()).then(|| Ok(Frame::data(bytes)))
            }
            Source::Application(incoming, _) => {
                ready!(Pin::new(incoming).poll_frame(cx)).map(|frame| frame.map_err(BodyError::from))
            }
            Source::Peer(recv, reading) => {
                ready!(poll_peer(recv, reading, cx)).map(|frame| frame.map_err(BodyError::from))
            }
        };
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                let mut frame = match frame.into_trailers() {
                    Ok(mut trailers) => {
                        if let (Source::Peer(..), Some(Tap::Answer(access, _))) = (&self.source, &self.tap) {
                            retain::hear(&trailers, access);
                        }
                        clean_trailers(&mut trailers);
                        // They may have held a mark alone.
                        if trailers.is_empty() {
                            return Poll::Ready(self.end().map(Ok));
                        }
                        // Nothing follows them, and not every reader asks.
                        self.source = Source::Nothing;
                        Frame::trailers(trailers)
                    }
                    Err(data) => data,
                };
                self.saw(&frame);
                if let (Some(trailers), Some(Tap::Answer(access, _))) = (frame.trailers_mut(), &self.tap) {
                    retain::mark(trailers, access);
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                self.broke(&error);
                self.source = Source::Nothing;
                Some(Err(error))
            }
            None => self.end().map(Ok),
        })
    }

    // Behind the last byte stands the mark of a trace that is kept by now and was not when the answer began.
    fn end(&mut self) -> Option<Frame<Bytes>> {
        let owes_mark = self.owes_mark();
        (self.guard, self.answering) = (None, None);
        self.source = Source::Nothing;
        let (true, Some(Tap::Answer(access, _))) = (owes_mark, &self.tap) else { return None };
        let mut trailers = HeaderMap::new();
        retain::mark(&mut trailers, access);
        Some(Frame::trailers(trailers))
    }

    fn owes_mark(&self) -> bool {
        match (&self.source, &self.tap) {
            (Source::Application(..), Some(Tap::Answer(access, _))) => access.borrow().kept_trace().is_some(),
            _ => false,
        }
    }

    fn fail(&mut self, refusal: &Refusal) {
        self.source = Source::Nothing;
        self.held.clear();
        if let Some(Tap::Answer(access, _) | Tap::Request(access)) = &self.tap {
            note(&mut access.borrow_mut().record, refusal);
        }
    }

    fn saw(&self, frame: &Frame<Bytes>) {
        if let Some((exchange, _)) = &self.cut {
            exchange.moves();
        }
        let Some(tap) = &self.tap else { return };
        match (tap, frame.data_ref(), frame.trailers_ref()) {
            (Tap::Request(access), Some(bytes), _) => {
                access.borrow_mut().record.bytes_in += bytes.len() as u64;
            }
            (Tap::Answer(access, _), Some(bytes), _) => {
                access.borrow_mut().record.bytes_out += bytes.len() as u64;
            }
            (Tap::Answer(access, _), None, Some(trailers)) => {
                if let Some(code) = grpc_status_of(trailers) {
                    access.borrow_mut().record.grpc_status = Some(code);
                }
            }
            _ => {}
        }
    }

    fn broke(&self, error: &BodyError) {
        let Some(Tap::Answer(access, _)) = &self.tap else { return };
        let record = &mut access.borrow_mut().record;
        if record.refusal.is_none() {
            record.is_broken_off = true;
            record.refusal = Some("body_broke");
            record.reason = Some(error_text(error));
        }
    }
}

/// What an error says, with its cause.
#[must_use]
pub fn error_text(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.held.is_empty() {
            return self.poll_source(cx);
        }
        if let Poll::Ready(cut) = self.poll_cut(cx) {
            return Poll::Ready(Some(Err(cut)));
        }
        // Counted when it was read.
        Poll::Ready(self.held.pop_front().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.source.has_ended() && !self.owes_mark()
    }

    fn size_hint(&self) -> SizeHint {
        if !self.held.is_empty() {
            return SizeHint::default();
        }
        match &self.source {
            Source::Nothing => SizeHint::with_exact(0),
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Application(incoming, _) => incoming.size_hint(),
            Source::Peer(recv, _) if recv.is_end_stream() => SizeHint::with_exact(0),
            Source::Peer(..) => SizeHint::default(),
        }
    }
}

impl Source {
    fn has_ended(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Application(incoming, _) => incoming.is_end_stream(),
            Self::Peer(recv, _) => recv.is_end_stream(),
        }
    }
}

fn poll_peer(
    recv: &mut RecvStream,
    reading: &mut Reading,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
    match ready!(reading.poll_data(recv, cx)) {
        Some(Ok(bytes)) => {
            // Taken over by the next leg, which asks again only when it has room: this makes room for more.
            let released = recv.flow_control().release_capacity(bytes.len());
            Poll::Ready(Some(released.map(|()| Frame::data(bytes))))
        }
        Some(Err(error)) => Poll::Ready(Some(Err(error))),
        None => {
            let trailers: Option<HeaderMap> = ready!(recv.poll_trailers(cx))?;
            Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
        }
    }
}

impl From<Source> for Body {
    fn from(source: Source) -> Self {
        Self { source, held: VecDeque::new(), tap: None, cut: None, answering: None, guard: None }
    }
}

impl From<Incoming> for Body {
    fn from(incoming: Incoming) -> Self {
        Source::Application(incoming, None).into()
    }
}

impl From<(Incoming, InUse)> for Body {
    fn from((incoming, stream): (Incoming, InUse)) -> Self {
        Source::Application(incoming, Some(stream)).into()
    }
}

impl From<RecvStream> for Body {
    fn from(recv: RecvStream) -> Self {
        Source::Peer(recv, Reading::default()).into()
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let Some(Tap::Answer(access, length)) = &self.tap else { return };
        if self.held.is_empty() && self.source.has_ended() {
            return;
        }
        let Ok(mut access) = access.try_borrow_mut() else { return };
        let record = &mut access.record;
        // Of an answer that tells its length no reader asks for an end behind it.
        let is_whole = length.0.is_some_and(|length| record.bytes_out >= length);
        if !is_whole && record.refusal.is_none() {
            note(record, &Refusal::ClientGone);
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("ended", &self.is_end_stream()).finish_non_exhaustive()
    }
}
