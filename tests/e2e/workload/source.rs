//! A sidecar whose identity comes from a Workload API and not from our control plane: here another sidecar's.

use douane_proxy::shutdown::Stop;

use super::{Served, WEB};
use crate::alone::{ask, eventually, following, get, on_the_sidecars_runtime};

#[test]
fn a_sidecar_lives_by_any_workload_api_and_follows_its_rotations() {
    on_the_sidecars_runtime(async {
        let served = Served::start().await;
        let app = following(&served.folder, served.control_plane.address, served.endpoint());
        let health = app.addresses().unwrap().health;
        let stop = Stop::default();
        let running = tokio::task::spawn_local(app.run(stop.clone()));

        eventually("ready", async || get(health, "/readyz").await.contains("200 OK")).await;
        let run_dir = served.folder.path("beside");
        let first = ask(run_dir.clone(), "certificates").await;
        assert_eq!(first["spiffe_id"], WEB);
        eventually("a second generation", async || {
            ask(run_dir.clone(), "certificates").await["generation"].as_u64() > first["generation"].as_u64()
        })
        .await;
        let second = ask(run_dir, "certificates").await;
        assert_ne!(first["chain"][0], second["chain"][0]);
        assert_eq!(first["bundle"]["roots"], second["bundle"]["roots"]);

        stop.ask();
        running.await.unwrap().unwrap();
        served.end().await;
    });
}

#[test]
fn a_sidecar_without_an_answer_from_its_source_is_never_ready_and_goes_on_asking() {
    on_the_sidecars_runtime(async {
        let served = Served::start().await;
        let nowhere = format!("{}.not", served.endpoint());
        let app = following(&served.folder, served.control_plane.address, nowhere);
        let health = app.addresses().unwrap().health;
        let stop = Stop::default();
        let running = tokio::task::spawn_local(app.run(stop.clone()));

        eventually("failed attempts", async || {
            let metrics = get(health, "/metrics").await;
            let failures = metrics.lines().find(|line| line.contains("renewal") && line.contains("failed"));
            failures.is_some_and(|line| !line.ends_with(" 0"))
        })
        .await;
        assert!(get(health, "/readyz").await.contains("503"));

        stop.ask();
        running.await.unwrap().unwrap();
        served.end().await;
    });
}
