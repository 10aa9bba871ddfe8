//! A sidecar's end in a running mesh that was asked for: what runs is finished.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use douane_tests::{processes, wait::eventually};
use serde_json::Value;

use super::{BACK, addresses, get, is_back, mesh, talking::Talking};

#[test]
fn a_sidecar_that_is_asked_to_end_finishes_what_runs() {
    let Some(lab) = mesh() else { return };
    let stream = Talking::start(&lab, "asker", &["shop", "ledger-hold", "depot:7000", "--seconds", "4"]);
    let watch =
        ["shop", "grpc", "watch", "http://depot:9090", "lamp", "--updates", "15", "--interval", "250"];
    let request = Talking::start(&lab, "asker", &watch);
    let (sidecar, [host, _]) = (lab.sidecar("depot"), addresses(&lab, "depot"));

    processes::signal(sidecar, "TERM");
    eventually("it says that it is not ready", BACK, || {
        let answer = get(&lab, "tourist", &format!("http://{host}:15020/readyz"));
        if answer.starts_with("503 ") { Ok(()) } else { Err(answer) }
    });
    assert!(processes::is_alive(sidecar), "it still serves what runs");

    let (last, well) = request.end();
    assert!(well && last.contains("revision"), "the request was answered to its end: {last}");
    let (last, well) = stream.end();
    assert!(well && last.contains("stopped"), "the stream ended by its own will: {last}");
    lab.hears("town/depot sidecar: exit status: 0");
    is_back(&lab, "depot");
}

#[test]
fn a_sidecar_that_is_asked_twice_ends_at_once() {
    let Some(lab) = mesh() else { return };
    // It would be drained for 30 s.
    let _stream = Talking::start(&lab, "asker", &["shop", "ledger-hold", "depot:7000", "--seconds", "60"]);
    let (sidecar, [host, _]) = (lab.sidecar("depot"), addresses(&lab, "depot"));

    processes::signal(sidecar, "TERM");
    eventually("it drains", BACK, || {
        let answer = get(&lab, "tourist", &format!("http://{host}:15020/readyz"));
        if answer.starts_with("503 ") { Ok(()) } else { Err(answer) }
    });
    assert!(processes::is_alive(sidecar), "it waits for the stream");
    let began = Instant::now();
    processes::signal(sidecar, "TERM");
    eventually("it has ended", BACK, || {
        if processes::is_alive(sidecar) { Err("alive".to_owned()) } else { Ok(()) }
    });

    // Far from 30 s; the logs and spans of what was cut are still written, and the exit tells that something was.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    lab.hears("town/depot sidecar: exit status: 1");
    is_back(&lab, "depot");
}

#[test]
fn sidecars_of_replicas_that_restart_one_after_the_other_under_load_fail_no_request() {
    let Some(lab) = mesh() else { return };
    // Until its input ends.
    let load = "echo begins; shop load http://answerer/open/door --rate 100 --seconds 120 & \
                read end; kill -TERM $!; wait $!";
    let load = Talking::of(lab.spawn("asker", &["bash", "-c", load], Stdio::piped()));

    let before = ["answerer-1", "answerer-2"].map(|pod| (pod, lab.sidecar(pod)));
    for round in 1..=2 {
        for (pod, _) in before {
            processes::signal(lab.sidecar(pod), "TERM");
            let ended = format!("town/{pod} sidecar: exit status: 0");
            eventually(&format!("{pod}'s sidecar has ended in order"), BACK, || {
                let said = lab.said();
                if said.matches(&ended).count() == round { Ok(()) } else { Err(said) }
            });
            is_back(&lab, pod);
        }
    }

    let (told, well) = load.end();
    let told: Value = serde_json::from_str(&told).unwrap();
    assert!(well && told["failed"] == 0 && told["total"].as_u64() > Some(100), "{told}");
    assert!(before.iter().all(|(pod, was)| lab.sidecar(pod) != *was));
}
