//! The accept loop: takes connections until draining begins, never dies of one, and holds a bounded number.
//!
//! Knows not what a connection is for: the caller's closure spawns it at once, so that a slow handshake never blocks
//! the next accept.

use std::{cell::Cell, future::Future, io, net::SocketAddr, rc::Rc, time::Duration};

use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, warn};

use crate::shutdown::Shutdown;

/// How many connections one listener holds; beyond it the kernel's backlog waits, then its clients.
pub const MAX_CONNECTIONS: usize = 10_000;
// Out of descriptors or memory: give those that run time to end (reliability: 10 to 100 ms, no spin, no exit).
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);
// A full house is looked at again this often.
const FULL_PAUSE: Duration = Duration::from_millis(20);

/// Accepts until draining begins. Each connection becomes a task of its own, which ends at `forced` at the latest.
pub async fn run<F, Task>(listener: TcpListener, shutdown: Shutdown, serve: F)
where
    F: Fn(TcpStream, SocketAddr) -> Task,
    Task: Future<Output = ()> + 'static,
{
    let open = Rc::new(Cell::new(0_usize));
    loop {
        if open.get() >= MAX_CONNECTIONS {
            warn!(open = open.get(), "too many connections, the next ones wait");
            tokio::select! {
                () = tokio::time::sleep(FULL_PAUSE) => continue,
                () = shutdown.draining.cancelled() => return,
            }
        }
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.draining.cancelled() => return,
        };
        match accepted {
            Ok((stream, source)) => {
                // A dual-stack socket tells IPv4 peers as ::ffff:a.b.c.d.
                let source = SocketAddr::new(source.ip().to_canonical(), source.port());
                let (guard, task, forced) =
                    (Open::count(&open), serve(stream, source), shutdown.forced.clone());
                shutdown.tasks.spawn_local(async move {
                    let _guard = guard;
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

struct Open(Rc<Cell<usize>>);

impl Open {
    fn count(open: &Rc<Cell<usize>>) -> Self {
        open.set(open.get() + 1);
        Self(Rc::clone(open))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
