//! Rotation of a running control plane: what sidecars hear on their streams, and what an operator sees and says.

use std::{
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use douane_ca::{
    admin::{Answer, Command as Order, call},
    authority::Status,
    config::Config,
    state::StateFolder,
};
use douane_proto::svid::{Svid, TrustBundle};

use crate::{
    plane::{Ground, Plane, eventually, mode},
    sidecar::{Watch, svid},
};

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop}
spec: {serviceAccountName: web, containers: [{name: web}]}
status: {podIP: 10.1.0.1, phase: Running}
";

fn hurried(ground: &Ground) -> Config {
    let mut config = ground.config();
    config.authority.root_lead = Duration::ZERO;
    config
}

async fn order(ground: &Ground, order: Order) -> Answer {
    let folder = StateFolder::new(ground.state());
    tokio::task::spawn_blocking(move || call(&folder, &order)).await.unwrap().unwrap()
}

async fn status(ground: &Ground) -> Status {
    match order(ground, Order::Status).await {
        Answer::Done { status, .. } => *status,
        other => panic!("{other:?}"),
    }
}

async fn join(ground: &Ground, plane: &Plane) -> (Watch, Svid) {
    let bundle = ground.state().join("bundle.pem");
    let svid = svid(plane.address, &bundle, ground.token("shop", "web")).await;
    let watch = Watch::open(plane.address, &bundle, Some(&svid), "shop/web-1").await.unwrap();
    (watch, svid)
}

// The next bundle that is pushed.
async fn pushed(watch: &mut Watch) -> TrustBundle {
    loop {
        watch.next().await.unwrap();
        if let Some(bundle) = watch.last.bundle.clone() {
            return bundle.try_into().unwrap();
        }
    }
}

fn douane(args: &[&str], state: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_douane"));
    command.arg("ca").args(args).arg("--dir").arg(state).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn a_new_root_is_pushed_at_once_and_signs_when_the_stream_has_acknowledged_it() {
    let ground = Ground::new();
    ground.write("pod.yaml", POD);
    let plane = ground.start_with(hurried(&ground)).await;
    let (mut watch, own) = join(&ground, &plane).await;
    let first: TrustBundle = watch.last.bundle.clone().unwrap().try_into().unwrap();
    watch.acknowledge(first.place(), &own).await;

    let Answer::Done { authority: Some(coming), .. } =
        order(&ground, Order::RotateRoot { force: false }).await
    else {
        panic!("refused")
    };
    let both = pushed(&mut watch).await;
    assert_eq!((both.roots.len(), both.place()), (2, (first.epoch, first.sequence + 1)));
    let before = status(&ground).await;
    assert_ne!(before.active().unwrap().id, coming);
    assert_eq!(before.next[0].lagging.names[0].name, "shop/web-1");

    watch.acknowledge(both.place(), &own).await;
    eventually("the new root signs", async || {
        status(&ground).await.active().is_some_and(|root| root.id == coming).then_some(())
    })
    .await;

    // The old certificate and the new one are good on both ends of the next connection.
    let (again, renewed) = join(&ground, &plane).await;
    let root = |svid: &Svid| douane_proto::svid::authority_key_id(&svid.chain[1]).unwrap();
    assert_ne!(root(&own), root(&renewed));
    drop(again);
    let bundle = ground.state().join("bundle.pem");
    drop(Watch::open(plane.address, &bundle, Some(&own), "shop/web-1").await.unwrap());
    eventually("the audit log tells of it", async || {
        let files = std::fs::read_dir(ground.state().join("audit")).unwrap();
        let log: String = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
        ["a root is published", "a root signs"].iter().all(|line| log.contains(line)).then_some(())
    })
    .await;
    plane.stop().await;
}

#[tokio::test]
async fn a_tainted_intermediate_is_told_to_sidecars_and_refused_when_they_have_renewed() {
    let ground = Ground::new();
    ground.write("pod.yaml", POD);
    let plane = ground.start().await;
    let (mut watch, own) = join(&ground, &plane).await;
    watch.acknowledge((u64::MAX / 2, 1), &own).await;
    let spoilt = status(&ground).await.intermediate.unwrap().id;

    order(&ground, Order::Taint { authority: spoilt }).await;
    let told = pushed(&mut watch).await;
    let key_id = douane_proto::svid::authority_key_id(&own.chain[0]).unwrap();
    assert_eq!(told.tainted_keys, std::slice::from_ref(&key_id));
    let bundle = ground.state().join("bundle.pem");
    let fresh = svid(plane.address, &bundle, ground.token("shop", "web")).await;
    watch.acknowledge(told.place(), &fresh).await;
    assert_eq!(pushed(&mut watch).await.refused_keys, [key_id]);
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_reads_the_state_of_a_running_and_of_a_stopped_control_plane() {
    let ground = Ground::new();
    let state = ground.state();
    let missing = douane(&["status"], &state);
    assert!(
        !missing.status.success() && text(&missing).contains("no control plane runs"),
        "{}",
        text(&missing)
    );

    let plane = ground.start_with(hurried(&ground)).await;
    assert_eq!(mode(&state.join("admin.sock")), 0o600);
    let running = douane(&["status", "--plan"], &state);
    assert!(running.status.success(), "{}", text(&running));
    assert!(text(&running).starts_with("All is well"), "{}", text(&running));
    assert!(text(&running).contains("prepare the next root"), "{}", text(&running));
    let json: Status = serde_json::from_slice(&douane(&["status", "-o", "json"], &state).stdout).unwrap();
    assert!(json.running && json.roots.len() == 1);

    let plan = douane(&["rotate", "root", "--plan"], &state);
    assert!(text(&plan).contains("Nothing was done"), "{}", text(&plan));
    assert_eq!(status(&ground).await.roots.len(), 1);
    let rotated = douane(&["rotate", "root", "--wait"], &state);
    assert!(rotated.status.success() && text(&rotated).contains("signs."), "{}", text(&rotated));
    let signer = status(&ground).await.intermediate.unwrap().id;
    let rotated = douane(&["rotate", "intermediate"], &state);
    assert!(rotated.status.success(), "{}", text(&rotated));
    assert_ne!(status(&ground).await.intermediate.unwrap().id, signer);
    let tainted = douane(&["taint", &signer, "--wait"], &state);
    assert!(tainted.status.success() && text(&tainted).contains("out of use"), "{}", text(&tainted));
    let unknown = douane(&["taint", "nobody"], &state);
    assert!(!unknown.status.success() && text(&unknown).contains("douane ca status"), "{}", text(&unknown));
    plane.stop().await;

    let stopped = douane(&["status"], &state);
    assert_eq!(stopped.status.code(), Some(3), "{}", text(&stopped));
    assert!(text(&stopped).contains("NO CONTROL PLANE RUNS") && text(&stopped).contains("retiring"));
    let refused = douane(&["rotate", "root"], &state);
    assert!(!refused.status.success() && text(&refused).contains("start `douane ca"), "{}", text(&refused));
}
