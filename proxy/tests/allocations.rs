//! What the record of one request allocates from its begin to its end, with the access log on.

use std::{io, rc::Rc, sync::Arc, time::Duration};

use douane_proto::id::WorkloadId;
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

struct Connection {
    peer: WorkloadId,
    local: WorkloadId,
    policy: Arc<str>,
    service: Arc<str>,
    protection: Protection,
}

fn connection() -> Connection {
    let id = |name: &str| format!("spiffe://cluster.local/ns/shop/sa/{name}").parse().expect("a SPIFFE ID");
    Connection {
        peer: id("web"),
        local: id("orders"),
        policy: "shop/orders-callers rule 1".into(),
        service: "shop/orders".into(),
        protection: Protection::Mtls { version: "TLSv1.3", group: "X25519MLKEM768".into(), binding: 7 },
    }
}

fn tell(telemetry: &Rc<Telemetry>, connection: &Connection, path: String) {
    let mut access = telemetry.begin(Direction::Inbound, ([10, 77, 0, 5], 8080).into());
    let record = &mut access.record;
    record.protocol = "http/1.1";
    record.method = Some(http::Method::GET);
    record.path = Some(path);
    record.status = Some(200);
    record.peer_address = Some(([10, 77, 0, 9], 41234).into());
    record.peer = Some(connection.peer.clone());
    record.local = Some(connection.local.clone());
    record.protection = connection.protection.clone();
    record.decision = Some("allow");
    record.policy = Some(Arc::clone(&connection.policy));
    record.service = Some(Arc::clone(&connection.service));
    record.trace = TraceContext::root(Sampler::Never);
}

#[test]
fn a_span_that_nobody_sampled_is_held_without_an_allocation() {
    let metrics = Metrics::new(&LostLines::default(), &LostLines::default());
    let telemetry = Telemetry::new(
        Origin::default(),
        Logs::default(),
        metrics,
        Spans::Export(Queue::default()),
        Tracing::default(),
    );
    let connection = connection();
    // The first ones make the series, and the ring; so many that it has begun to forget.
    for _ in 0..20_000 {
        tell(&telemetry, &connection, "/orders/42".to_owned());
    }

    let path = "/orders/42".to_owned();
    let allocated = allocation_counter::measure(|| tell(&telemetry, &connection, path));

    assert_eq!(allocated.count_total, 0, "{allocated:?}");
}

#[test]
fn the_record_of_a_request_that_is_counted_and_logged_allocates_nothing() {
    let writer = LineWriter::new(io::sink(), LostLines::default()).expect("a thread");
    let metrics = Metrics::new(&LostLines::default(), &LostLines::default());
    let logs = Logs { access: Some(writer), ..Logs::default() };
    let telemetry = Telemetry::new(Origin::default(), logs, metrics, Spans::Discard, Tracing::default());
    let connection = connection();
    // The first ones make the series, and the buffers that lines gather in.
    for _ in 0..100 {
        tell(&telemetry, &connection, "/orders/42".to_owned());
        telemetry.flush_log(Duration::from_secs(5));
    }

    let path = "/orders/42".to_owned();
    let allocated = allocation_counter::measure(|| tell(&telemetry, &connection, path));

    assert_eq!(allocated.count_total, 0, "{allocated:?}");
}
