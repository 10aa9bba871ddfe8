//! A real WebSocket server and client (PyPI `websockets`) with two sidecars between them.
//!
//! Found where `tests/counterparts.sh` puts them, or by the `python3` on the path; where they are missing, the test skips
//! aloud.

use std::{
    env,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    rc::Rc,
};

use douane_proto::{mesh::Protocol, mtls::MtlsMode};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{spawn_blocking, spawn_local},
};

use crate::{
    pods::{Shop, run, vip},
    upgrade::{Heard, exchanges, switches},
};

const SERVER: &str = r#"
import asyncio, websockets
async def echo(peer):
    async for message in peer:
        if message == "leave":
            return await peer.close(4002, "left")
        else:
            await peer.send(message)
async def main():
    async with websockets.serve(echo, "127.0.0.1", 0, max_size=2**21) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()
asyncio.run(main())
"#;

const CLIENT: &str = r#"
import asyncio, sys, websockets
def meet():
    return websockets.connect(f"ws://127.0.0.1:{sys.argv[1]}/chat", max_size=2**21, proxy=None)
async def main():
    async with meet() as peer:
        for message in ["word", b"\x00\xff", "m" * 2**20]:
            await peer.send(message)
            assert await peer.recv() == message
        await (await peer.ping(b"ping"))
        await peer.close(4001, "enough")
        assert peer.close_code == 4001, peer.close_code
    async with meet() as peer:
        await peer.send("leave")
        try:
            await peer.recv()
        except websockets.ConnectionClosed as end:
            assert (end.rcvd.code, end.rcvd.reason) == (4002, "left"), end
asyncio.run(main())
print("all said")
"#;

/// A running server; it ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn python() -> Option<PathBuf> {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/counterparts/venv/bin/python");
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places =
        std::iter::once(ours).chain(env::split_paths(&path).map(|folder| folder.join("python3")));
    let knows = |place: &PathBuf| {
        let asked = Command::new(place).args(["-c", "import websockets"]).stderr(Stdio::null()).status();
        place.is_file() && asked.is_ok_and(|status| status.success())
    };
    let found = places.find(knows);
    if found.is_none() {
        eprintln!("SKIPPED: PyPI's websockets are missing; tests/counterparts.sh brings them");
    }
    found
}

fn serve(python: &Path) -> (Server, SocketAddr) {
    let mut child = Command::new(python).args(["-c", SERVER]).stdout(Stdio::piped()).spawn().unwrap();
    let said = child.stdout.take().unwrap();
    let server = Server(child);
    let mut port = String::new();
    BufReader::new(said).read_line(&mut port).unwrap();
    (server, SocketAddr::from(([127, 0, 0, 1], port.trim().parse().unwrap())))
}

#[test]
fn a_real_websocket_client_and_server_talk_through_two_sidecars() {
    run(async {
        let Some(python) = python() else { return };
        let (_server, app) = serve(&python);
        let shop = Shop::open(Protocol::Http1, move |mut near| async move {
            let mut far = TcpStream::connect(app).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        })
        .await;
        // What redirection would hand over.
        let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = door.local_addr().unwrap().port().to_string();
        let outbound = Rc::clone(&shop.web.outbound);
        spawn_local(async move {
            while let Ok((stream, source)) = door.accept().await {
                let outbound = Rc::clone(&outbound);
                spawn_local(async move { outbound.connection(stream, source, vip()).await });
            }
        });

        let client = spawn_blocking(move || Command::new(python).args(["-c", CLIENT, &port]).output());
        let ended = client.await.unwrap().unwrap();

        let said = String::from_utf8_lossy(&ended.stdout);
        assert_eq!(said.trim(), "all said", "{}", String::from_utf8_lossy(&ended.stderr));
    });
}

#[test]
fn a_websocket_in_plaintext_passes_where_plaintext_is_taken() {
    run(async {
        let shop = Shop::open(Protocol::Http1, |stream| switches(stream, Heard::default())).await;
        shop.orders.takes(MtlsMode::Permissive);

        exchanges(shop.orders.knock(shop.pod()).await).await;
    });
}
