//! A sidecar and the real control plane: how it gains its footing, keeps it, and ends. Traffic is tested elsewhere.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};

use douane_proxy::{config::Drain, shutdown::Stop};
use douane_tests::loopback;
use tokio::net::TcpStream;

use crate::alone::{
    ControlPlane, Folder, ask, drained_so, eventually, get, on_the_sidecars_runtime, sidecar, with_token,
};

#[test]
fn a_sidecar_gains_its_footing_renews_outlives_its_control_plane_and_drains() {
    on_the_sidecars_runtime(async {
        let folder = with_token("shop");
        let mut control_plane = ControlPlane::start(&folder, loopback::own());
        let app = sidecar(&folder, control_plane.address, &folder.path("state/bundle.pem"));
        let health = app.addresses().unwrap().health;
        let stop = Stop::default();
        let running = tokio::task::spawn_local(app.run(stop.clone()));
        eventually("ready", async || get(health, "/readyz").await.contains("200 OK")).await;

        let run_dir = folder.path("run");
        let first = ask(run_dir.clone(), "certificates").await;
        assert_eq!(first["spiffe_id"], "spiffe://cluster.local/ns/shop/sa/web");
        eventually("a second generation", async || {
            ask(run_dir.clone(), "certificates").await["generation"].as_u64() > first["generation"].as_u64()
        })
        .await;

        let before = ask(run_dir.clone(), "snapshot").await;
        assert_eq!(before["own"]["pod"], "shop/web-0");
        control_plane.end();
        assert!(get(health, "/readyz").await.contains("200 OK"), "the last good state stays");
        assert_eq!(ask(run_dir.clone(), "snapshot").await["epoch"], before["epoch"]);
        let _again = ControlPlane::start(&folder, control_plane.address);
        eventually("a new epoch", async || {
            ask(run_dir.clone(), "snapshot").await["epoch"] != before["epoch"]
        })
        .await;

        stop.ask();
        running.await.unwrap().unwrap();
    });
}

#[test]
fn a_sidecar_that_is_to_end_says_so_and_serves_on_for_the_configured_delay() {
    on_the_sidecars_runtime(async {
        let folder = with_token("shop");
        let control_plane = ControlPlane::start(&folder, loopback::own());
        let drain = Drain { delay: Duration::from_secs(2), limit: Duration::from_secs(1) };
        let app = drained_so(&folder, control_plane.address, &folder.path("state/bundle.pem"), drain);
        let addresses = app.addresses().unwrap();
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, addresses.inbound.port()));
        let stop = Stop::default();
        let running = tokio::task::spawn_local(app.run(stop.clone()));
        eventually("ready", async || get(addresses.health, "/readyz").await.contains("200 OK")).await;

        let began = Instant::now();
        stop.ask();
        eventually("not ready", async || get(addresses.health, "/readyz").await.contains("503")).await;
        let door = TcpStream::connect(peer).await;
        // On a machine that was busy for as long as that, the delay may be over.
        assert!(door.is_ok() || began.elapsed() > drain.delay, "peers still find an open door: {door:?}");

        running.await.unwrap().unwrap();
        assert!(began.elapsed() >= drain.delay, "{:?}", began.elapsed());
        assert!(TcpStream::connect(peer).await.is_err(), "then it is closed");
    });
}

#[test]
fn a_certificate_for_somebody_else_is_not_taken() {
    on_the_sidecars_runtime(async {
        let folder = with_token("elsewhere");
        let control_plane = ControlPlane::start(&folder, loopback::own());
        never_ready(&folder, &control_plane, &folder.path("state/bundle.pem")).await;
    });
}

#[test]
fn a_control_plane_that_the_bundle_does_not_vouch_for_is_not_trusted() {
    on_the_sidecars_runtime(async {
        let (folder, other) = (with_token("shop"), with_token("shop"));
        let control_plane = ControlPlane::start(&folder, loopback::own());
        let _other = ControlPlane::start(&other, loopback::own());
        never_ready(&folder, &control_plane, &other.path("state/bundle.pem")).await;
    });
}

async fn never_ready(folder: &Folder, control_plane: &ControlPlane, bundle: &Path) {
    let app = sidecar(folder, control_plane.address, bundle);
    let health = app.addresses().unwrap().health;
    let stop = Stop::default();
    let running = tokio::task::spawn_local(app.run(stop.clone()));
    eventually("failed attempts", async || {
        let metrics = get(health, "/metrics").await;
        let failures = metrics.lines().find(|line| line.contains("renewal") && line.contains("failed"));
        failures.is_some_and(|line| !line.ends_with(" 0"))
    })
    .await;
    let answer = get(health, "/readyz").await;
    assert!(answer.contains("503") && answer.contains("waiting for the first certificate"), "{answer}");
    stop.ask();
    running.await.unwrap().unwrap();
}
