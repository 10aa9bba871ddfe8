//! Two sidecars and nothing else, as a program of its own that tests attack from outside and whose memory they can see:
//! `web`, which an application calls through, and `orders`, behind which a foreign server stands.
//!
//! One argument, a JSON object: `room` (a folder for certificates and logs), `app` (the server's address), `protocol` of
//! its port, `mode` of mutual TLS, limits in milliseconds, which of the two `ends` at a signal. Prints one line of JSON when it is ready: where its doors are.
//! Next: `doors` (who may knock where), `sides` (the sidecars).
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's program that fails says where")]

mod doors;
#[path = "../../policy_on_the_wire/office.rs"]
mod office;
mod sides;

use std::{env, fs, io::Write as _, path::Path};

use douane_proto::{
    id::{TrustDomain, WorkloadId},
    svid::Identity,
};
use douane_proxy::{
    config::Drain,
    shutdown::{Drained, Stop},
    tls::park_flush,
};
use serde_json::{Value, json};
use tokio::{
    runtime::{Builder, LocalOptions},
    task::spawn_local,
};

use crate::{doors::Doors, office::Office, sides::Pair};

fn main() {
    let wanted: Value = serde_json::from_str(&env::args().nth(1).unwrap()).unwrap();
    let runtime = Builder::new_current_thread()
        .enable_all()
        .on_thread_park(park_flush)
        .build_local(LocalOptions::default())
        .unwrap();
    runtime.block_on(async {
        let room = Path::new(wanted["room"].as_str().unwrap());
        let office = Office::new(&domain());
        let stranger = office.identity(&id("stranger"));
        fs::write(room.join("svid.pem"), passport(&stranger)).unwrap();
        fs::write(room.join("root.pem"), root(&stranger)).unwrap();
        let doors = Doors::open(room, wanted["app"].as_str().unwrap().parse().unwrap()).await;
        let addresses = doors.addresses();
        let pair = Pair::new(&office, &wanted, room, doors.pod());
        let ending = if wanted["ends"] == "orders" { pair.orders.clone() } else { pair.web.clone() };
        let stop = Stop::default();
        let signals = stop.clone();
        spawn_local(async move { signals.on_signals().await });
        doors.serve(pair);
        println!("{addresses}");
        std::io::stdout().flush().unwrap();
        // Until somebody asks for it, as a sidecar ends.
        stop.asked.cancelled().await;
        assert_eq!(ending.finish(Drain::default().limit).await, Drained::Whole);
    });
}

fn domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").unwrap()
}

fn id(name: &str) -> WorkloadId {
    WorkloadId::new(&domain(), "shop", name).unwrap()
}

// Certificate and key in one file, as foreign programs want them.
fn passport(identity: &Identity) -> String {
    let leaf = pem::encode(&pem::Pem::new("CERTIFICATE", identity.svid.chain[0].clone()));
    leaf + &pem::encode(&pem::Pem::new("PRIVATE KEY", identity.svid.key.to_vec()))
}

fn root(identity: &Identity) -> String {
    pem::encode(&pem::Pem::new("CERTIFICATE", identity.bundle.roots[0].clone()))
}

fn ready(app: std::net::SocketAddr, peer: std::net::SocketAddr, pod: std::net::SocketAddr) -> Value {
    json!({ "app": app, "peer": peer, "pod": pod })
}
