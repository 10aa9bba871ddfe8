//! Records at their end: told once, and to whom.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use super::*;
use crate::{
    config::tracing::Sampler,
    telemetry::{metrics::Exposition, user::Users},
};

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn telemetry() -> (Rc<Telemetry>, Kept) {
    let (kept, lost) = (Kept::default(), LostLines::default());
    let writer = LineWriter::new(kept.clone(), lost.clone()).unwrap();
    let (metrics, logs) =
        (Metrics::new(&lost, &LostLines::default()), Logs { access: Some(writer), ..Logs::default() });
    (Telemetry::new(Origin::default(), logs, metrics, Spans::Discard, Tracing::default()), kept)
}

fn begin(telemetry: &Rc<Telemetry>) -> Access {
    telemetry.begin(Direction::Inbound, "10.77.0.5:7000".parse().unwrap())
}

fn lines(telemetry: &Telemetry, kept: &Kept) -> Vec<serde_json::Value> {
    telemetry.flush_log(Duration::from_secs(5));
    let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn told_by(form: Form) -> serde_json::Value {
    let (kept, lost) = (Kept::default(), LostLines::default());
    let writer = LineWriter::new(kept.clone(), lost.clone()).unwrap();
    let logs = Logs { access: Some(writer.clone()), audit: Some(writer), form };
    let telemetry = Telemetry::new(
        Origin::default(),
        logs,
        Metrics::new(&lost, &lost),
        Spans::Discard,
        Tracing::default(),
    );
    let mut access = begin(&telemetry);
    access.is_of_user("https://login/ann");
    (access.record.denied, access.record.refusal) = (true, Some("denied"));
    drop(access);
    let lines = lines(&telemetry, &kept);
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert_eq!(lines[0]["user"], lines[1]["user"]);
    assert!(!lines.iter().any(|line| line.to_string().contains("ann")), "{lines:#?}");
    lines[0]["user"].clone()
}

#[test]
fn a_user_is_named_by_a_hash_or_not_at_all() {
    assert!(told_by(Form::default()).is_null());
    let users = Some(Users::of_key(b"a key of the test"));
    assert_eq!(told_by(Form { users, ..Form::default() }).as_str().map(str::len), Some(16));
}

#[test]
fn an_access_is_told_once_when_its_last_owner_lets_go() {
    let (telemetry, kept) = telemetry();
    let access = Rc::new(RefCell::new(begin(&telemetry)));

    let other = Rc::clone(&access);
    access.borrow_mut().record.bytes_in = 3;
    drop(access);
    assert!(lines(&telemetry, &kept).is_empty());
    other.borrow_mut().record.bytes_out = 4;
    drop(other);

    let lines = lines(&telemetry, &kept);
    assert_eq!(lines.len(), 1);
    assert_eq!((&lines[0]["bytes_in"], &lines[0]["bytes_out"]), (&3.into(), &4.into()));
}

#[test]
fn a_stream_that_nothing_came_of_is_not_told() {
    let (telemetry, kept) = telemetry();

    begin(&telemetry).discard();

    assert!(lines(&telemetry, &kept).is_empty());
    assert!(
        telemetry.metrics.encode(Exposition::OpenMetrics).contains("douane_active{direction=\"inbound\"} 0")
    );
}

#[test]
fn a_stream_that_was_cut_was_open_and_a_refused_one_was_not() {
    let (telemetry, _kept) = telemetry();

    begin(&telemetry).record.refusal = Some("plaintext");
    let mut cut = begin(&telemetry);
    (cut.record.refusal, cut.record.bytes_out) = (Some("denied"), 9);
    drop(cut);
    let mut open = begin(&telemetry);
    open.opened();
    open.opened();

    let text = telemetry.metrics.encode(Exposition::OpenMetrics);
    for line in [
        "douane_tcp_connections_opened_total{direction=\"inbound\"} 2",
        "douane_tcp_connections_closed_total{direction=\"inbound\"} 1",
        "douane_active{direction=\"inbound\"} 1",
    ] {
        assert!(text.contains(line), "{line}\nis missing in\n{text}");
    }
}

#[test]
fn strangers_who_are_refused_share_few_lines_and_proven_peers_have_their_own() {
    let (telemetry, kept) = telemetry();

    for _ in 0..1000 {
        begin(&telemetry).record.refusal = Some("plaintext");
    }
    let strangers = lines(&telemetry, &kept).len();
    for _ in 0..100 {
        let mut access = begin(&telemetry);
        access.record.refusal = Some("denied");
        access.record.peer = Some("spiffe://cluster.local/ns/shop/sa/web".parse().unwrap());
    }
    let peers = lines(&telemetry, &kept).len() - strangers;

    // The test may see more than one second.
    assert!((20..200).contains(&strangers), "{strangers}");
    assert_eq!(peers, 100);
}

#[test]
fn what_the_application_takes_its_time_for_is_no_overhead_of_ours() {
    let (telemetry, kept) = telemetry();
    const WAITED: Duration = Duration::from_millis(20);

    let mut answered = begin(&telemetry);
    answered.record.method = Some(http::Method::GET);
    for _ in 0..2 {
        answered.hands_over();
        std::thread::sleep(WAITED);
        // The second attempt is in our hands again until it goes on.
        if answered.record.resends == 0 {
            answered.sends_again();
        }
    }
    drop(answered);
    let mut refused = begin(&telemetry);
    refused.record.method = Some(http::Method::GET);
    std::thread::sleep(WAITED);
    drop(refused);
    drop(begin(&telemetry));

    let lines = lines(&telemetry, &kept);
    let of = |line: usize, key: &str| lines[line][key].as_f64().unwrap();
    assert!(of(0, "duration_ms") - of(0, "overhead_ms") >= 39.9, "{lines:#?}");
    assert!(of(1, "overhead_ms") >= 19.9, "nobody else had it: {lines:#?}");
    assert!(lines[2]["overhead_ms"].is_null(), "bytes come when they come: {lines:#?}");
    let text = telemetry.metrics.encode(Exposition::OpenMetrics);
    assert!(text.contains("douane_proxy_overhead_seconds_count{direction=\"inbound\"} 2"), "{text}");
}

#[test]
fn a_mark_is_believed_of_a_peer_of_the_own_trust_domain_and_of_its_own_trace() {
    let telemetry = Telemetry::new(
        Origin::default(),
        Logs::default(),
        Metrics::new(&LostLines::default(), &LostLines::default()),
        Spans::Export(Queue::default()),
        Tracing::of(Sampler::Never),
    );
    let id = |domain: &str| Some(format!("spiffe://{domain}/ns/shop/sa/orders").parse().unwrap());
    let marked = |direction, peer: &str, changed: u128| {
        let (destination, mut headers) = ("10.77.0.5:7000".parse().unwrap(), HeaderMap::new());
        let mut access = telemetry.begin_traced(direction, destination, &mut headers, Caller::Application);
        (access.record.local, access.record.peer) = (id("cluster.local"), id(peer));
        let trace_id = access.record.trace.as_ref().unwrap().trace_id;
        access.told_to_keep(trace_id ^ changed);
        telemetry.retention.as_ref().unwrap().keeps(trace_id ^ changed)
    };

    assert!(marked(Direction::Outbound, "cluster.local", 0));
    assert!(!marked(Direction::Outbound, "partner.example", 0), "of a foreign trust domain");
    assert!(!marked(Direction::Outbound, "cluster.local", 1), "of a trace that it was not asked in");
    assert!(!marked(Direction::Inbound, "cluster.local", 0), "of one who asks");
}
