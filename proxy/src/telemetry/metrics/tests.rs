//! What is told of what happened, by name and label.

use std::time::{Duration, UNIX_EPOCH};

use http::Method;

use super::*;
use crate::telemetry::metrics::series::MOST_SERIES;
use crate::telemetry::trace::TraceContext;

const LASTED: Lasted = Lasted { from: UNIX_EPOCH, length: Duration::from_millis(30) };

fn metrics() -> Metrics {
    Metrics::new(&LostLines::default(), &LostLines::default())
}

fn request(direction: Direction) -> Record {
    let mut record = Record::new(direction, "10.77.0.5:8080".parse().unwrap());
    record.method = Some(Method::GET);
    record.protocol = "http/1.1";
    record.status = Some(200);
    record
}

#[test]
fn a_request_is_measured_with_its_proven_peer() {
    let metrics = metrics();
    let mut record = request(Direction::Inbound);
    record.peer = Some("spiffe://cluster.local/ns/shop/sa/web".parse().unwrap());
    (record.decision, record.policy) = (Some("allow"), Some("shop/orders#rule[0]".into()));
    record.path = Some("/secret-path".to_owned());
    record.authority = Some("secret-host".to_owned());

    metrics.began(Direction::Inbound);
    metrics.ended(&record, LASTED);

    let text = metrics.encode(Exposition::OpenMetrics);
    for line in [
        "http_server_request_duration_seconds_count{http_request_method=\"GET\",http_response_status_code=\"200\",\
             error_type=\"\",network_protocol_version=\"1.1\",tls=\"none\",peer_trust_domain=\"cluster.local\",\
             peer_namespace=\"shop\",peer_workload=\"web\",service=\"\"} 1",
        "douane_authz_decisions_total{decision=\"allow\",policy=\"shop/orders#rule[0]\",peer_trust_domain=\"cluster.local\",peer_namespace=\"shop\"} 1",
        "douane_active{direction=\"inbound\"} 0",
        "douane_build_info{version=",
        "douane_log_lines_dropped_total 0",
    ] {
        assert!(text.contains(line), "{line}\nis missing in\n{text}");
    }
    assert!(!text.contains("secret"));
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn a_stream_is_counted_with_its_bytes_and_a_refusal_with_its_reason() {
    let metrics = metrics();
    let mut record = Record::new(Direction::Outbound, "10.77.0.5:7000".parse().unwrap());
    (record.bytes_in, record.bytes_out, record.refusal) = (5, 7, Some("policy_changed"));

    metrics.opened(Direction::Outbound);
    metrics.ended(&record, LASTED);
    metrics.closed(&record);

    let text = metrics.encode(Exposition::OpenMetrics);
    for line in [
        "douane_tcp_connections_opened_total{direction=\"outbound\"} 1",
        "douane_tcp_connections_closed_total{direction=\"outbound\"} 1",
        "douane_tcp_bytes_total{direction=\"outbound\",flow=\"received\"} 5",
        "douane_tcp_bytes_total{direction=\"outbound\",flow=\"sent\"} 7",
        "douane_refusals_total{direction=\"outbound\",reason=\"policy_changed\"} 1",
    ] {
        assert!(text.contains(line), "{line}\nis missing in\n{text}");
    }
    assert!(!text.contains("http_client_request_duration_seconds_count{"));
}

#[test]
fn series_past_the_cap_are_counted_as_other() {
    let metrics = metrics();

    for number in 0..2 * MOST_SERIES {
        let mut record = request(Direction::Inbound);
        record.method = Some(Method::from_bytes(format!("M{number}").as_bytes()).unwrap());
        record.peer = Some(format!("spiffe://cluster.local/ns/shop/sa/p{number}").parse().unwrap());
        metrics.ended(&record, LASTED);
    }

    let text = metrics.encode(Exposition::OpenMetrics);
    let series = text.matches("http_server_request_duration_seconds_count{").count();
    assert_eq!(series, MOST_SERIES + 1);
    assert!(text.contains("peer_workload=\"other\",service=\"\"} 500"), "{text}");
    assert!(!text.contains("\"M1\""), "a method that a client invented is no label");
}

#[test]
fn state_is_told_by_the_application() {
    let metrics = metrics();

    metrics.certified(1_800_000_000, 1_900_000_000, Some(2_000_000_000));
    metrics.renewed(Renewal::Succeeded);
    metrics.snapshot(3, 14, 1);
    metrics.spans().dropped("queue_full", 2);

    let text = metrics.encode(Exposition::OpenMetrics);
    for line in [
        "douane_certificate_expiry_timestamp_seconds 1900000000",
        "douane_trust_bundle_expiry_timestamp_seconds 2000000000",
        "douane_control_plane_connected 0",
        "douane_complaints 1",
        "douane_certificate_renewals_total{result=\"succeeded\"} 1",
        "douane_snapshot_epoch 3",
        "douane_snapshot_sequence 14",
        "douane_otel_spans_dropped_total{reason=\"queue_full\"} 2",
    ] {
        assert!(text.contains(line), "{line}\nis missing in\n{text}");
    }
}

#[test]
fn what_nothing_touched_for_long_is_forgotten_and_its_place_is_free_again() {
    let metrics = metrics().with_idle(Duration::ZERO);
    for number in 0..2 * MOST_SERIES {
        let mut record = request(Direction::Inbound);
        record.peer = Some(format!("spiffe://cluster.local/ns/shop/sa/p{number}").parse().unwrap());
        metrics.ended(&record, LASTED);
    }
    let full = metrics.encode(Exposition::OpenMetrics);
    assert!(full.contains("douane_metrics_overflow_total 500"), "{full}");

    let mut late = request(Direction::Inbound);
    late.peer = Some("spiffe://cluster.local/ns/shop/sa/late".parse().unwrap());
    let _ = metrics.encode(Exposition::OpenMetrics);
    metrics.ended(&late, LASTED);

    let text = metrics.encode(Exposition::OpenMetrics);
    assert!(text.contains("peer_workload=\"late\"") && !text.contains("peer_workload=\"p1\""), "{text}");
}

#[test]
fn a_bucket_names_an_exported_trace_and_no_other() {
    let metrics = metrics();
    for (trace_id, sampled) in [(0xabc, true), (0xdef, false)] {
        let mut record = request(Direction::Inbound);
        record.trace = Some(TraceContext { trace_id, parent_id: None, span_id: 1, sampled, random: true });
        metrics.ended(&record, LASTED);
    }

    let text = metrics.encode(Exposition::OpenMetrics);
    let bucket = text.lines().find(|line| line.contains("le=\"0.05\"")).unwrap();
    let expected = " 2 # {trace_id=\"00000000000000000000000000000abc\"} 0.03 0.03";
    assert!(bucket.ends_with(expected), "{bucket}");
    assert!(!metrics.encode(Exposition::Prometheus).contains("trace_id"));
}

#[test]
fn a_call_is_measured_by_its_status_and_never_by_what_a_client_calls_its_method() {
    let metrics = metrics();
    for (code, name) in [(Some(0), "OK"), (Some(7), "PERMISSION_DENIED"), (Some(99), "_OTHER"), (None, "")] {
        let mut record = request(Direction::Inbound);
        (record.grpc, record.grpc_status) = (true, code);
        record.path = Some("/invented.Service/Method".to_owned());
        metrics.ended(&record, LASTED);

        let text = metrics.encode(Exposition::OpenMetrics);
        let series = format!(
            "rpc_server_call_duration_seconds_count{{rpc_system_name=\"grpc\",rpc_response_status_code=\"{name}\""
        );
        assert!(text.contains(&series), "{series}\nis missing in\n{text}");
        assert!(!text.contains("invented"));
    }
}

#[test]
fn a_failed_proof_is_counted_by_what_was_wrong_and_a_connection_by_what_it_speaks() {
    let metrics = metrics();
    let mut record = Record::new(Direction::Inbound, "10.77.0.5:8080".parse().unwrap());
    (record.refusal, record.unproven) = (Some("handshake_failed"), Some("expired"));
    metrics.ended(&record, LASTED);
    metrics.detected(Direction::Outbound, "http1", Duration::from_millis(2));

    let text = metrics.encode(Exposition::OpenMetrics);
    for line in [
        "douane_authn_failures_total{direction=\"inbound\",kind=\"expired\"} 1",
        "douane_detect_total{direction=\"outbound\",result=\"http1\"} 1",
        "douane_detect_duration_seconds_count 1",
        "process_open_fds ",
        "process_cpu_seconds_total ",
    ] {
        assert!(text.contains(line), "{line}\nis missing in\n{text}");
    }
}

#[test]
fn decisions_about_two_peers_of_a_namespace_are_one_series() {
    let metrics = metrics();
    for account in ["web", "cart"] {
        let mut record = request(Direction::Inbound);
        record.peer = Some(format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap());
        record.decision = Some("allow");
        metrics.ended(&record, LASTED);
    }

    let text = metrics.encode(Exposition::OpenMetrics);
    let series = "douane_authz_decisions_total{decision=\"allow\",policy=\"\",peer_trust_domain=\"cluster.local\",peer_namespace=\"shop\"} 2";
    assert!(text.contains(series), "{text}");
}

#[test]
fn a_partners_workload_of_the_same_name_is_a_series_of_its_own() {
    let metrics = metrics();
    for domain in ["cluster.local", "partner.example"] {
        let mut record = request(Direction::Inbound);
        record.peer = Some(format!("spiffe://{domain}/ns/shop/sa/web").parse().unwrap());
        metrics.ended(&record, LASTED);
    }

    let text = metrics.encode(Exposition::OpenMetrics);
    let mut series: Vec<_> = text.lines().filter_map(|line| line.strip_suffix(" 1")).collect();
    series.retain(|line| line.starts_with("http_server_request_duration_seconds_count{"));
    assert_eq!(series.len(), 2, "{series:#?}");
    assert_ne!(series[0], series[1]);
}

#[test]
fn a_status_that_a_server_invented_is_told_by_its_class() {
    let metrics = metrics();
    for status in 100..1000 {
        let mut record = request(Direction::Inbound);
        record.status = Some(status);
        metrics.ended(&record, LASTED);
    }

    let text = metrics.encode(Exposition::OpenMetrics);
    let series = text.matches("http_server_request_duration_seconds_count{").count();
    assert!(series < 80, "{series}");
    assert!(
        text.contains("http_response_status_code=\"500\"")
            && !text.contains("http_response_status_code=\"555\"")
    );
}

#[test]
fn what_alerts_look_at_is_shown_before_it_happens() {
    let text = metrics().encode(Exposition::OpenMetrics);
    for line in [
        "douane_plaintext_total{direction=\"inbound\"} 0",
        "douane_authn_failures_total{direction=\"inbound\",kind=\"untrusted\"} 0",
        "douane_refusals_total{direction=\"inbound\",reason=\"denied\"} 0",
    ] {
        assert!(text.contains(line), "{line}\nis missing in\n{text}");
    }
}
