//! The variables as operators write them.

use proptest::prelude::*;

use super::*;

fn read(variables: &[(&str, &str)]) -> Result<Option<Export>, NotExport> {
    Export::read(|name| {
        let found = variables.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

fn export(variables: &[(&str, &str)]) -> Export {
    read(variables).unwrap().expect("something is exported")
}

fn refusal(variables: &[(&str, &str)]) -> String {
    read(variables).expect_err("it is refused").to_string()
}

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";

#[test]
fn nothing_is_exported_unless_somebody_says_where_or_asks_for_it() {
    assert!(read(&[]).unwrap().is_none());
    assert!(read(&[(ENDPOINT, ""), (PROTOCOL, "grpc")]).unwrap().is_none());
    let there = (ENDPOINT, "http://collector:4317");
    assert!(read(&[there, ("OTEL_TRACES_EXPORTER", "none")]).unwrap().is_none());
    assert!(read(&[there, ("OTEL_SDK_DISABLED", "TRUE")]).unwrap().is_none());
    assert!(read(&[there, ("OTEL_SDK_DISABLED", "yes")]).unwrap().is_some(), "only true is true");

    let asked = ("OTEL_TRACES_EXPORTER", "otlp");
    assert_eq!(export(&[asked]).endpoint.to_string(), "http://localhost:4317");
    let over_http = export(&[asked, (PROTOCOL, "http/protobuf")]);
    assert_eq!(over_http.endpoint.to_string(), "http://localhost:4318/v1/traces");
}

#[test]
fn a_base_has_the_path_of_traces_appended_and_an_endpoint_for_traces_is_used_as_it_is() {
    let http = (PROTOCOL, "http/protobuf");
    for (variables, expected) in [
        (&[http, (ENDPOINT, "http://collector:4318")][..], "http://collector:4318/v1/traces"),
        (&[http, (ENDPOINT, "http://collector/otlp/")], "http://collector:80/otlp/v1/traces"),
        (&[http, (TRACES, "http://collector:4318")], "http://collector:4318/"),
        (
            &[http, (TRACES, "http://collector/in?key=hush"), (ENDPOINT, "http://other")],
            "http://collector:80/in",
        ),
        (&[(ENDPOINT, "http://[fd77::1]")], "http://[fd77::1]:4317"),
        (&[(ENDPOINT, "http://collector:4318")], "http://collector:4318/v1/traces"),
        (&[(ENDPOINT, "collector:4317"), ("OTEL_EXPORTER_OTLP_INSECURE", "true")], "http://collector:4317"),
    ] {
        assert_eq!(export(variables).endpoint.to_string(), expected, "{variables:?}");
    }
    assert_eq!(export(&[http, (TRACES, "http://c/in?key=hush")]).endpoint.path, "/in?key=hush");
    assert_eq!(export(&[(ENDPOINT, "http://collector:4318")]).protocol, Protocol::HttpProtobuf);
    assert_eq!(export(&[(ENDPOINT, "http://collector:4318"), (PROTOCOL, "grpc")]).protocol, Protocol::Grpc);
}

#[test]
fn what_is_said_of_traces_comes_first() {
    let told = export(&[
        (ENDPOINT, "http://collector:4317"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        (HEADERS, "a=1"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "700"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "none"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-key=a%20b%2Cc, other = 2"),
    ]);

    assert_eq!(told.timeout, Duration::from_millis(700));
    assert_eq!(told.compression, Compression::None);
    assert_eq!(told.headers.0["x-key"], "a b,c");
    assert_eq!((&told.headers.0["other"], told.headers.0.len()), (&HeaderValue::from_static("2"), 2));
}

#[test]
fn a_collector_behind_tls_needs_somebody_who_vouches_for_it() {
    let there = (ENDPOINT, "https://collector");
    let problem = refusal(&[there]);
    assert!(problem.starts_with("OTEL_EXPORTER_OTLP_CERTIFICATE: an https endpoint needs"), "{problem}");

    let told = export(&[there, ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/etc/collector.pem")]);

    assert_eq!(told.certificate.as_deref(), Some(std::path::Path::new("/etc/collector.pem")));
    assert_eq!((told.endpoint.tls, told.endpoint.port), (Tls::On, 443));
}

#[test]
fn what_we_do_not_do_is_refused_with_what_to_set() {
    let there = (ENDPOINT, "http://collector:4317");
    for (variable, value, told) in [
        (ENDPOINT, "collector:4317", "does not say whether it is http:// or https://"),
        (ENDPOINT, "http://collector:4317/v1/traces", "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"),
        (ENDPOINT, "ftp://collector", "is no URL such as http://collector:4317"),
        (ENDPOINT, "http://", "is no URL"),
        (ENDPOINT, "http://collector:4318/?a=b", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        (PROTOCOL, "http/json", "set grpc or http/protobuf"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "set gzip or none"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0", "from 1 to 600000"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "from 1 to 600000"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key.pem", "OTEL_EXPORTER_OTLP_HEADERS"),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "/c.pem", "OTEL_EXPORTER_OTLP_HEADERS"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "set otlp or none"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "perhaps", "neither true nor false"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "1000000", "from 1 to 65536"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2049", "more than the 2048 that may wait"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1", "from 1 to 600000"),
    ] {
        let variables =
            if variable == ENDPOINT { vec![(variable, value)] } else { vec![there, (variable, value)] };
        let problem = refusal(&variables);
        assert!(problem.starts_with(variable) && problem.contains(told), "{variable}={value}: {problem}");
    }
}

#[test]
fn the_queue_is_as_told_and_a_small_one_makes_small_batches() {
    let there = (ENDPOINT, "http://collector:4317");
    assert_eq!(export(&[there]).queue, Queue::default());
    let small = export(&[
        there,
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "5000"),
    ]);
    let expected =
        Queue { most: 100, batch: 100, delay: Duration::from_millis(20), limit: Duration::from_secs(5) };
    assert_eq!(small.queue, expected);
}

#[test]
fn no_message_and_no_dump_shows_a_secret() {
    let there = (ENDPOINT, "http://collector:4317");
    for variables in [
        &[(ENDPOINT, "http://user:hush@collector:4317")][..],
        &[there, (HEADERS, "hush")],
        &[there, (HEADERS, "k=hush%zz")],
        &[there, (HEADERS, "k k=hush")],
        &[there, (HEADERS, "content-type=hush")],
        &[there, (HEADERS, "grpc-timeout=hush")],
        &[there, (HEADERS, "k=hush%0a")],
    ] {
        let problem = refusal(variables);
        assert!(!problem.contains("hush"), "{problem}");
    }

    let told = export(&[
        (PROTOCOL, "http/protobuf"),
        (TRACES, "http://collector/in?key=hush"),
        (HEADERS, "authorization=Bearer%20hush"),
    ]);

    assert_eq!(told.headers.0["authorization"], "Bearer hush");
    let dump = serde_json::to_string(&told).unwrap();
    assert!(dump.contains("authorization") && !dump.contains("hush"), "{dump}");
    assert!(!format!("{:?}{:?}", told.headers, told.endpoint.to_string()).contains("hush"));
}

proptest! {
    #[test]
    fn no_text_panics(variable in "[A-Z_]{0,20}", text: String) {
        let _ = Export::read(|name| (name.contains(&variable)).then(|| text.clone()));
    }
}
