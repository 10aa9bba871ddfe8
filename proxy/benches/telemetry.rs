//! What the record of one request costs: from its begin to its end with the access log on, without it (what is left is
//! metrics), and the parts of it that the kernel's clock takes.
//!
//! `cargo bench -p douane-proxy` prints a table. Plain time, no framework: the median of several runs.

use std::{
    hint::black_box,
    io::{self, Write},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use douane_proxy::{
    config::{
        export::Queue,
        tracing::{Sampler, Tracing},
    },
    telemetry::{
        access::{Direction, Logs, Protection, Spans, Telemetry},
        metrics::Metrics,
        origin::Origin,
        trace::TraceContext,
        writer::{LineWriter, LostLines},
    },
};

/// Long enough for a clock, short enough for the log's bound of waiting bytes: the sink takes lines as they come.
const RECORDS: u32 = 1000;
const RUNS: usize = 101;

/// Takes everything at no cost, so that only our own is measured.
struct Nowhere;

impl Write for Nowhere {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(black_box(bytes).len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn main() {
    let log = LineWriter::new(Nowhere, LostLines::default()).expect("a thread");
    let counted = telemetry(Logs::default());
    let logged = telemetry(Logs { access: Some(log), ..Logs::default() });
    let fields = Fields::new();
    let clocks = median(|| {
        black_box((SystemTime::now(), Instant::now(), Instant::now()));
    });
    println!("{:<28} {:>8}", "", "ns");
    println!("{:<28} {clocks:>8.0}", "three looks at a clock");
    for (name, telemetry) in [("a record, counted", &counted), ("a record, counted and logged", &logged)] {
        for direction in [Direction::Inbound, Direction::Outbound] {
            let each = median(|| fields.tell(telemetry, direction));
            telemetry.flush_log(Duration::from_secs(5));
            println!("{name:<28} {each:>8.0}  {}", direction.as_str());
        }
    }
    // With a collector: what nobody samples is held for a while, what is sampled becomes a span.
    for share in [0.0, 0.01, 1.0] {
        let each = median_of_fresh(share, |telemetry| fields.tell_of(telemetry, Direction::Inbound, share));
        println!("{:<28} {each:>8.0}  {} % sampled", "a record, counted and traced", share * 100.0);
    }
}

fn traced() -> Rc<Telemetry> {
    let metrics = Metrics::new(&LostLines::default(), &LostLines::default());
    Telemetry::new(
        Origin::default(),
        Logs::default(),
        metrics,
        Spans::Export(Queue::default()),
        Tracing::default(),
    )
}

fn telemetry(logs: Logs) -> Rc<Telemetry> {
    let origin = Origin {
        service: "orders".into(),
        guessed: false,
        environment: "production".into(),
        namespace: "shop".into(),
        pod: "orders-7c9f5d6b8-x2x9k".into(),
    };
    Telemetry::new(
        origin,
        logs,
        Metrics::new(&LostLines::default(), &LostLines::default()),
        Spans::Discard,
        Tracing::default(),
    )
}

/// What a connection and a route know before the request comes.
struct Fields {
    peer: douane_proto::id::WorkloadId,
    local: douane_proto::id::WorkloadId,
    service: Arc<str>,
    policy: Arc<str>,
    protection: Protection,
}

impl Fields {
    fn new() -> Self {
        let id = |text: &str| text.parse().expect("a SPIFFE ID");
        Self {
            peer: id("spiffe://cluster.local/ns/shop/sa/web"),
            local: id("spiffe://cluster.local/ns/shop/sa/orders"),
            service: "shop/orders".into(),
            policy: "shop/orders-callers rule 1".into(),
            protection: Protection::Mtls { version: "TLSv1.3", group: "X25519MLKEM768".into(), binding: 7 },
        }
    }

    fn tell(&self, telemetry: &Rc<Telemetry>, direction: Direction) {
        self.tell_of(telemetry, direction, 0.0);
    }

    fn tell_of(&self, telemetry: &Rc<Telemetry>, direction: Direction, share: f64) {
        let mut access = telemetry.begin(direction, "10.77.0.5:8080".parse().expect("an address"));
        let record = &mut access.record;
        record.protocol = "http/1.1";
        record.method = Some(http::Method::GET);
        record.authority = Some("orders.shop:8080".to_owned());
        record.path = Some("/orders/42/items".to_owned());
        record.status = Some(200);
        record.peer_address = Some("10.77.0.9:41234".parse().expect("an address"));
        record.peer = Some(self.peer.clone());
        record.local = Some(self.local.clone());
        record.protection = self.protection.clone();
        match direction {
            Direction::Inbound => {
                record.decision = Some("allow");
                record.policy = Some((*self.policy).into());
            }
            Direction::Outbound => record.service = Some((*self.service).into()),
        }
        record.trace = TraceContext::root(Sampler::Ratio(share));
        record.bytes_out = 1024;
    }
}

// A queue of spans is bounded, and nobody empties it here: each run has one of its own, and a ring that is full.
fn median_of_fresh(share: f64, mut act: impl FnMut(&Rc<Telemetry>)) -> f64 {
    let fields = Fields::new();
    let mut runs: Vec<f64> = (0..RUNS)
        .map(|_| {
            let telemetry = traced();
            (0..if share < 1.0 { 8 * RECORDS } else { 0 })
                .for_each(|_| fields.tell(&telemetry, Direction::Inbound));
            let began = Instant::now();
            (0..RECORDS).for_each(|_| act(&telemetry));
            began.elapsed().as_secs_f64() * 1e9 / f64::from(RECORDS)
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    runs.get(RUNS / 2).copied().unwrap_or_default()
}

fn median(mut act: impl FnMut()) -> f64 {
    let mut runs: Vec<f64> = (0..RUNS)
        .map(|_| {
            let began = Instant::now();
            (0..RECORDS).for_each(|_| act());
            let took = began.elapsed().as_secs_f64() * 1e9 / f64::from(RECORDS);
            // The log's thread keeps up.
            std::thread::sleep(Duration::from_millis(3));
            took
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    runs.get(RUNS / 2).copied().unwrap_or_default()
}
