//! What redirection does, on loopback: an application's door to its sidecar, a peer's door to the other, and the pod's
//! own address, where TLS goes to the sidecar and the sidecar's plaintext to the server, written down on its way.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::spawn_local,
};

use crate::{ready, sides::Pair};

/// The pod behind whose sidecar the server stands.
const POD: &str = "127.0.2.1:0";
/// A sidecar's handshake begins at once; who has said nothing in so many turns of the thread, each as long as that, is not
/// one. Time alone does not tell: a thread that stood still has given the sidecar no turn.
const TURNS: usize = 6;
const TURN: Duration = Duration::from_millis(5);
/// TLS' record type of a handshake.
const HANDSHAKE: u8 = 0x16;
/// One piece of what is copied.
const PIECE: usize = 16 * 1024;

pub(crate) struct Doors {
    app: TcpListener,
    peer: TcpListener,
    pod: TcpListener,
    server: SocketAddr,
    // All that the server was sent, connection after connection.
    forwarded: PathBuf,
}

impl Doors {
    /// Binds them all.
    pub(crate) async fn open(room: &Path, server: SocketAddr) -> Self {
        let bind = async |address: &str| TcpListener::bind(address).await.unwrap();
        let (app, peer) = (bind("127.0.0.1:0").await, bind("127.0.0.1:0").await);
        Self { app, peer, pod: bind(POD).await, server, forwarded: room.join("forwarded") }
    }

    pub(crate) fn pod(&self) -> SocketAddr {
        self.pod.local_addr().unwrap()
    }

    pub(crate) fn addresses(&self) -> Value {
        ready(self.app.local_addr().unwrap(), self.peer.local_addr().unwrap(), self.pod())
    }

    /// Serves them until the program ends.
    pub(crate) fn serve(self, pair: Pair) {
        let (pair, pod, server) = (Rc::new(pair), self.pod(), self.server);
        let calling = Rc::clone(&pair);
        // Each is a task of its sidecar, which waits for it when it ends.
        accept(self.app, move |stream, source| {
            let (outbound, tasks) = (Rc::clone(&calling.outbound), calling.web.tasks.clone());
            tasks.track_future(async move {
                outbound.connection(stream, source, crate::sides::service()).await;
            })
        });
        let called = Rc::clone(&pair);
        accept(self.peer, move |stream, source| {
            let (inbound, tasks) = (Rc::clone(&called.inbound), called.orders.tasks.clone());
            tasks.track_future(async move { inbound.connection(stream, source, pod).await })
        });
        let forwarded = Rc::new(self.forwarded);
        accept(self.pod, move |stream, source| {
            let (inbound, forwarded) = (Rc::clone(&pair.inbound), Rc::clone(&forwarded));
            let tasks = pair.orders.tasks.clone();
            async move {
                if is_handshake(&stream).await {
                    tasks.track_future(inbound.connection(stream, source, pod)).await;
                } else {
                    let _ = hand_over(stream, server, &forwarded).await;
                }
            }
        });
    }
}

fn accept<Served: Future<Output = ()> + 'static>(
    listener: TcpListener,
    serve: impl Fn(TcpStream, SocketAddr) -> Served + 'static,
) {
    spawn_local(async move {
        while let Ok((stream, source)) = listener.accept().await {
            spawn_local(serve(stream, source));
        }
    });
}

async fn is_handshake(stream: &TcpStream) -> bool {
    let mut first = [0];
    for _ in 0..TURNS {
        if let Ok(peeked) = tokio::time::timeout(TURN, stream.peek(&mut first)).await {
            return matches!(peeked, Ok(1)) && first == [HANDSHAKE];
        }
    }
    false
}

// From the sidecar to the server, and back.
async fn hand_over(mut near: TcpStream, server: SocketAddr, forwarded: &Path) -> io::Result<()> {
    let mut far = TcpStream::connect(server).await?;
    far.set_nodelay(true)?;
    near.set_nodelay(true)?;
    // A reset stays one: only what ends in order may look whole.
    far.set_zero_linger()?;
    near.set_zero_linger()?;
    let mut log = OpenOptions::new().create(true).append(true).open(forwarded)?;
    {
        let (mut from_near, mut to_near) = near.split();
        let (mut from_far, mut to_far) = far.split();
        let up = async {
            let mut piece = vec![0; PIECE];
            loop {
                let read = from_near.read(&mut piece).await?;
                if read == 0 {
                    return to_far.shutdown().await;
                }
                write_down(&mut log, &piece[..read])?;
                to_far.write_all(&piece[..read]).await?;
            }
        };
        let down = async {
            tokio::io::copy(&mut from_far, &mut to_near).await?;
            to_near.shutdown().await
        };
        tokio::try_join!(up, down)?;
    }
    douane_proxy::net::relay::is_whole(&far);
    douane_proxy::net::relay::is_whole(&near);
    Ok(())
}

fn write_down(log: &mut File, bytes: &[u8]) -> io::Result<()> {
    log.write_all(bytes)
}
