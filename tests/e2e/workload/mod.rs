//! The SPIFFE Workload API as stock libraries see it: what they fetch from a real sidecar, and whether they follow it
//! through rotations. What needs no certificate is tested beside the socket (`proxy/src/workload`).

mod go;
mod lab;
mod python;
mod rust;
mod source;

use std::path::PathBuf;

use douane_proxy::shutdown::Stop;
use douane_tests::loopback;
use tokio::task::JoinHandle;

use crate::alone::{ControlPlane, Folder, eventually, get, sidecar, with_token};

/// Who the pod of these tests is.
const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

/// A sidecar that is ready, whose certificates live 10 s, and its workload socket.
struct Served {
    folder: Folder,
    control_plane: ControlPlane,
    stop: Stop,
    running: JoinHandle<()>,
}

impl Served {
    async fn start() -> Self {
        let folder = with_token("shop");
        let control_plane = ControlPlane::start(&folder, loopback::own());
        let app = sidecar(&folder, control_plane.address, &folder.path("state/bundle.pem"));
        let health = app.addresses().unwrap().health;
        let stop = Stop::default();
        let running = app.run(stop.clone());
        let running = tokio::task::spawn_local(async { running.await.unwrap() });
        eventually("ready", async || get(health, "/readyz").await.contains("200 OK")).await;
        Self { folder, control_plane, stop, running }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path("run/workload.sock")
    }

    /// As `SPIFFE_ENDPOINT_SOCKET` names it.
    fn endpoint(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    async fn end(self) {
        self.stop.ask();
        self.running.await.unwrap();
    }
}
