//! Reads a stream of an HTTP/2 connection whose windows may shrink.
//!
//! h2 tells a stream's peer of room when bytes are read, once that is half of what the peer has left. Where all has been
//! read when the window shrinks, by more than the peer has left, nobody ever tells: the stream would stand still for good.
//! So who waits on a stream of which much was read is nudged, and looks again whether there is room to tell of.
//!
//! Knows not when windows shrink: see `exchange::window`. A short body costs a comparison.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use h2::RecvStream;

/// The smallest window that streams are given: one of which less was read always has room that its peer knows of.
pub const LEAST_STREAM_WINDOW: u32 = 16 * 1024;

thread_local! {
    static NUDGES: Cell<u64> = const { Cell::new(0) };
    static WAITING: RefCell<BTreeMap<u64, Waker>> = const { RefCell::new(BTreeMap::new()) };
    static PLACES: Cell<u64> = const { Cell::new(0) };
}

/// What one reader of a stream remembers.
#[derive(Debug, Default)]
pub struct Reading {
    read: u64,
    nudges: u64,
    place: Option<Place>,
}

// Among those who wait; left when dropped.
#[derive(Debug)]
struct Place(u64);

/// Windows have shrunk: whoever on this thread waits for bytes looks whether its peer must be told of room.
pub fn nudge() {
    NUDGES.set(NUDGES.get() + 1);
    WAITING.take().into_values().for_each(Waker::wake);
}

impl Reading {
    /// The next bytes; whoever has taken them gives their room back.
    pub fn poll_data(
        &mut self,
        recv: &mut RecvStream,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, h2::Error>>> {
        let nudges = NUDGES.get();
        if self.nudges != nudges {
            self.nudges = nudges;
            // Of a stream that has ended there is nothing to tell.
            let _ = recv.flow_control().release_capacity(0);
        }
        let polled = recv.poll_data(cx);
        match &polled {
            Poll::Ready(Some(Ok(bytes))) => self.read += bytes.len() as u64,
            Poll::Pending if self.read >= u64::from(LEAST_STREAM_WINDOW) => self.wait(cx),
            _ => {}
        }
        polled
    }

    fn wait(&mut self, cx: &Context<'_>) {
        let Place(place) = self.place.get_or_insert_with(|| {
            PLACES.set(PLACES.get() + 1);
            Place(PLACES.get())
        });
        WAITING.with_borrow_mut(|waiting| {
            if !waiting.get(place).is_some_and(|waker| waker.will_wake(cx.waker())) {
                waiting.insert(*place, cx.waker().clone());
            }
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A thread that ends nudges nobody.
        let _ = WAITING.try_with(|waiting| waiting.borrow_mut().remove(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, rc::Rc};

    use tokio::{io::DuplexStream, sync::Notify};

    use super::*;

    const WINDOW: u32 = 256 * 1024;
    /// Less than half of what is left then: h2 tells nothing of it.
    const FIRST: usize = 80 * 1024;
    const THEN: usize = 64 * 1024;

    /// Serves as long as it is not yet so.
    async fn drive(server: &mut h2::server::Connection<DuplexStream, Bytes>, is_so: impl Fn() -> bool) {
        while !is_so() {
            tokio::select! {
                _ = server.accept() => {}
                () = tokio::task::yield_now() => {}
            }
        }
    }

    #[test]
    fn a_stream_whose_window_shrank_below_what_its_peer_has_left_goes_on_after_a_nudge() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let (near, far) = tokio::io::duplex(1 << 20);
            let mut builder = h2::server::Builder::new();
            builder.initial_window_size(WINDOW).initial_connection_window_size(4 * WINDOW);
            let (client, server) =
                tokio::join!(h2::client::handshake(near), builder.handshake::<_, Bytes>(far));
            let ((mut client, connection), mut server) = (client.unwrap(), server.unwrap());
            tokio::task::spawn_local(connection);
            let (_answer, mut send) = client.send_request(http::Request::new(()), false).unwrap();
            let (goes_on, read) = (Rc::new(Notify::new()), Rc::new(Cell::new(0)));
            let waits_for = Rc::clone(&goes_on);
            tokio::task::spawn_local(async move {
                crate::net::relay::send_all(&mut send, vec![0; FIRST].into()).await.unwrap();
                waits_for.notified().await;
                crate::net::relay::send_all(&mut send, vec![0; THEN].into()).await.unwrap();
                std::future::pending::<()>().await;
            });
            let (request, _respond) = server.accept().await.unwrap().unwrap();
            let (mut recv, reads) = (request.into_body(), Rc::clone(&read));
            tokio::task::spawn_local(async move {
                let mut reading = Reading::default();
                while let Some(Ok(bytes)) = poll_fn(|cx| reading.poll_data(&mut recv, cx)).await {
                    recv.flow_control().release_capacity(bytes.len()).unwrap();
                    reads.set(reads.get() + bytes.len());
                }
            });
            drive(&mut server, || read.get() == FIRST && WAITING.with_borrow(|waiting| waiting.len() == 1))
                .await;

            server.set_initial_window_size(LEAST_STREAM_WINDOW).unwrap();
            goes_on.notify_one();
            let turns = Cell::new(0);
            drive(&mut server, || turns.replace(turns.get() + 1) == 100).await;
            assert_eq!(read.get(), FIRST, "it stands still");
            nudge();

            drive(&mut server, || read.get() == FIRST + THEN).await;
        });
    }

    #[test]
    fn who_no_longer_waits_is_forgotten() {
        let mut reading = Reading::default();
        reading.wait(&Context::from_waker(Waker::noop()));
        assert_eq!(WAITING.with_borrow(BTreeMap::len), 1);

        drop(reading);

        assert_eq!(WAITING.with_borrow(BTreeMap::len), 0);
    }
}
