//! The accept loop: takes connections until draining begins, never dies of one, and holds a bounded number.
//!
//! Knows not what a connection is for, nor how one too many is told so: the caller's closures do.

use std::{future::Future, io, net::SocketAddr, rc::Rc, time::Duration};

use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, warn};

use crate::{
    limits::{
        crowd::{Crowd, Crowded},
        share::Holder,
    },
    shutdown::Shutdown,
};

// Out of descriptors or memory: give those that run time to end (reliability: 10 to 100 ms, no spin, no exit).
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Accepts until draining begins. Each connection becomes a task of its own, which ends at `forced` at the latest. One
/// that `open` has no room for, and for which nobody can be asked to leave (`make_room`), is not kept waiting but refused: that is cheaper than its handshake, and its client can
/// try another endpoint.
pub async fn run<F, Task>(
    listener: TcpListener,
    open: Rc<Crowd>,
    shutdown: Shutdown,
    serve: F,
    (make_room, refuse): (impl Fn() -> bool, impl Fn(TcpStream, SocketAddr, Crowded)),
) where
    F: Fn(TcpStream, SocketAddr) -> Task,
    Task: Future<Output = ()> + 'static,
{
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.draining.cancelled() => return,
        };
        match accepted {
            Ok((stream, source)) => {
                // A dual-stack socket tells IPv4 peers as ::ffff:a.b.c.d.
                let source = SocketAddr::new(source.ip().to_canonical(), source.port());
                let holder = Holder::Address(source.ip());
                let member = match open.enter(holder.clone()) {
                    Ok(member) => member,
                    Err(Crowded::Full) if open.has_little(&holder) && make_room() => open.enter_for(holder),
                    Err(crowded) => {
                        refuse(stream, source, crowded);
                        continue;
                    }
                };
                let (task, forced) = (serve(stream, source), shutdown.forced.clone());
                shutdown.tasks.spawn_local(async move {
                    let _member = member;
                    tokio::select! {
                        () = task => {}
                        () = forced.cancelled() => {}
                    }
                });
            }
            Err(error) if is_of_one_connection(&error) => debug!(%error, "accept"),
            Err(error) => {
                warn!(%error, "accept");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::{io::AsyncReadExt as _, sync::oneshot};

    use super::*;
    use crate::limits::share::Sharing;

    #[test]
    fn one_connection_too_many_is_refused_at_once_and_the_next_finds_the_freed_place() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(tokio::runtime::LocalOptions::default())
            .unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (ends, ended) = oneshot::channel::<()>();
            let first = Cell::new(Some(ended));
            let refused = Rc::new(Cell::new(0));
            let serve = move |mut stream: TcpStream, _| {
                let ended = first.take();
                async move {
                    if let Some(ended) = ended {
                        let _ = ended.await;
                    }
                    let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"x").await;
                }
            };
            let counted = Rc::clone(&refused);
            let refuse = move |stream: TcpStream, _, _| {
                let _ = stream.set_zero_linger();
                counted.set(counted.get() + 1);
            };
            let open = Crowd::new(1, Sharing::Whole);
            tokio::task::spawn_local(run(listener, open, Shutdown::default(), serve, (|| false, refuse)));

            let mut held = TcpStream::connect(address).await.unwrap();
            let shed = async { TcpStream::connect(address).await?.read_u8().await };
            assert_eq!(shed.await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
            assert_eq!(refused.get(), 1);

            ends.send(()).unwrap();
            assert_eq!(held.read_u8().await.unwrap(), b'x');
            assert!(held.read_u8().await.is_err(), "the first has ended");
            let mut next = TcpStream::connect(address).await.unwrap();
            assert_eq!(next.read_u8().await.unwrap(), b'x');
        });
    }
}
