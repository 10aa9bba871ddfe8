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
    config::tracing::Tracing,
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
            protection: Protection::Mtls { version: "TLSv1.3", group: "X25519MLKEM768".into() },
        }
    }

    fn tell(&self, telemetry: &Rc<Telemetry>, direction: Direction) {
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
        record.trace = Some(TraceContext {
            trace_id: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
            parent_id: None,
            span_id: 7,
            sampled: false,
            random: true,
        });
        record.bytes_out = 1024;
    }
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
