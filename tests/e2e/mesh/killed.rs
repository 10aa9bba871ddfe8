//! A sidecar that is killed (SIGKILL): the rules stay, not one byte leaves in plaintext, and it is back at once.

use std::{
    process::Stdio,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use douane_tests::{counterparts, lab::Lab, processes};
use serde_json::Value;

use super::{addresses, get, is_back, mesh, talking::Talking};

/// From the kill to the first answer.
const BACK: Duration = Duration::from_millis(500);
/// The mesh that tests run is not optimized, and shares its cores with other tests.
const SLOWER: u32 = if cfg!(debug_assertions) { 10 } else { 1 };
/// In milliseconds: who dies sooner is taken for broken, and waits a little before it starts again.
const STEADY: f64 = 1100.0;
/// Of so many kills, the usual one is judged.
const KILLS: usize = 5;
/// In the path of a request inside the mesh, and in one from outside of it.
const SECRET: &str = "lapsang-souchong-at-midnight";
const CONTROL: &str = "everybody-may-read-this";

#[test]
fn a_sidecar_that_is_killed_under_load_lets_nothing_past_and_callers_do_not_notice() {
    let Some(lab) = mesh() else { return };
    let rules = without_counters(&lab.rules("answerer-1"));
    let [v4, v6] = addresses(&lab, "answerer-1");
    // Sends a request in plaintext again and again and shows each byte that comes back.
    let script = format!(
        "echo begins; for i in $(seq 60); do for host in {v4} {}; do \
         timeout 1 bash -c \"exec 3<>/dev/tcp/$host/8080; printf 'GET /open HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3\" \
         2>/dev/null; done; done; echo ends",
        v6.trim_matches(['[', ']'])
    );
    let tourist = Talking::start(&lab, "tourist", &["bash", "-c", &script]);
    let load = ["sh", "-c", "echo begins; exec shop load http://answerer/open/door --rate 40 --seconds 5"];
    let load = Talking::start(&lab, "asker", &load);
    assert!(get(&lab, "asker", "http://answerer/open/door").starts_with("200 "), "the load has begun");

    for _ in 0..2 {
        let killed = lab.sidecar("answerer-1");
        processes::signal(killed, "KILL");
        assert_eq!(without_counters(&lab.rules("answerer-1")), rules, "the rules stay");
        let began = Instant::now();
        is_back(&lab, "answerer-1");
        eprintln!("back after {:?}", began.elapsed());
    }

    let (told, well) = load.end();
    let told: Value = serde_json::from_str(&told).unwrap();
    assert!(well && told["failed"] == 0 && told["total"].as_u64() > Some(50), "{told}");
    assert_eq!(tourist.rest().0, "ends\n", "not one byte of the application reaches the tourist");
}

#[test]
fn a_sidecar_that_is_killed_is_back_at_once_and_meanwhile_nothing_travels_in_plaintext() {
    let (Some(python), Some(lab)) = (counterparts::program("python3"), mesh()) else { return };
    let [host, _] = addresses(&lab, "answerer-1");
    let mut watch = lab.between_pods(python);
    watch.arg(counterparts::script("frames.py")).args([SECRET, CONTROL]);
    let watch = Talking::of(watch.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());

    // Each request on a connection of its own, while the caller's sidecar or the receiver's is down.
    let load =
        format!("while shop get --json http://{host}:8080/open/{SECRET} 2>&- || true; do sleep 0.005; done");
    let mut asked = Talking::start(&lab, "asker", &["bash", "-c", &load]);
    for whose in ["answerer-1", "asker"] {
        let mut took: Vec<_> =
            (0..KILLS).map(|_| first_answer_after_a_kill(&lab, whose, &mut asked)).collect();
        took.sort();
        eprintln!("{whose} is back after {took:?}");
        assert!(took[KILLS / 2] < BACK * SLOWER, "{took:?}");
    }
    // In plaintext, to a port that takes none: it is in the capture all the same.
    get(&lab, "tourist", &format!("http://{host}:8080/{CONTROL}"));

    drop(asked);
    let (told, _) = watch.end();
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["seen"], serde_json::json!([CONTROL]), "{told}");
    assert!(told["missed"] == 0 && told["frames"].as_u64() > Some(100), "{told}");
}

// From just before the kill to the end of the first request that was sent after it and answered.
fn first_answer_after_a_kill(lab: &Lab, whose: &str, asked: &mut Talking) -> Duration {
    let killed = lab.sidecar(whose);
    let (mut steady, began) = (false, now());
    while !steady {
        let line: Value = serde_json::from_str(&asked.line().unwrap()).unwrap();
        steady = line["at"].as_f64() > Some(began + STEADY);
    }
    let before = now();
    processes::signal(killed, "KILL");
    let dead = now();
    loop {
        let line: Value = serde_json::from_str(&asked.line().unwrap()).unwrap();
        let at = line["at"].as_f64().unwrap();
        if line["status"] == 200 && at > dead {
            assert_ne!(lab.sidecar(whose), killed);
            return Duration::from_secs_f64((at + line["ms"].as_f64().unwrap() - before) / 1000.0);
        }
    }
}

// Milliseconds since 1970, as `shop get` tells them.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() * 1000.0
}

fn without_counters(rules: &str) -> String {
    let words = |line: &str| {
        let mut words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        for at in 1..words.len() {
            if words[at - 1] == "packets" {
                words[at] = "N".to_owned();
            }
        }
        words.join(" ")
    };
    rules.lines().map(|line| words(line) + "\n").collect()
}
