//! A sidecar's end in a running mesh, asked for and not: what runs is finished, nothing gets past, callers do not notice.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use douane_tests::{lab::Lab, processes, wait::eventually};
use serde_json::Value;

use super::{addresses, get, mesh};

/// A sidecar starts again, gets a certificate and its law: under a second where the machine is not busy.
const BACK: Duration = Duration::from_secs(20);

/// A program in a pod whose first line has come.
struct Talking {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Talking {
    fn start(lab: &Lab, pod: &str, command: &[&str]) -> Self {
        let mut child = lab.spawn(pod, command, Stdio::null());
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        output.read_line(&mut first).unwrap();
        assert!(!first.is_empty(), "{command:?} says something");
        Self { child, output }
    }

    /// Its last line, and how it ended.
    fn end(mut self) -> (String, bool) {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        (rest.lines().last().unwrap_or_default().to_owned(), self.child.wait().unwrap().success())
    }
}

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
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    lab.hears("town/depot sidecar: exit status: 1");
    is_back(&lab, "depot");
}

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
    let Talking { mut child, mut output } = tourist;
    let mut heard = String::new();
    output.read_to_string(&mut heard).unwrap();
    child.wait().unwrap();
    assert_eq!(heard, "ends\n", "not one byte of the application reaches the tourist");
}

fn is_back(lab: &Lab, pod: &str) {
    eventually(&format!("the sidecar of {pod} is back"), BACK, || {
        let row = lab.pod(pod);
        if row["ready"] == true { Ok(()) } else { Err(row.to_string()) }
    });
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
