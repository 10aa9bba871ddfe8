//! How a request ends is told by the status of its spans, and what came in odd headers never becomes a trace.

use std::time::Duration;

use douane_examples::demo::span::{Kind, Span};
use douane_tests::{counterparts, lab::Lab, sink::Sink, wait::eventually};
use serde_json::Value;

use super::{ROOT, collected, fresh, get_traced, judge, lab, url};

fn town() -> String {
    let script = counterparts::script("server_outcomes.py");
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: caller, namespace: town, labels: {{app: caller, douane.io/inject: enabled}}}}
spec: {{serviceAccountName: caller, containers: [{{name: app, command: [shop, sleep]}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: outcomes, namespace: town, labels: {{app: outcomes, douane.io/inject: enabled}}}}
spec:
  serviceAccountName: outcomes
  containers:
  - name: app
    command: [python3, {}, '8080']
    ports: [{{name: http, containerPort: 8080}}]
---
apiVersion: v1
kind: Service
metadata: {{name: outcomes, namespace: town}}
spec: {{selector: {{app: outcomes}}, ports: [{{name: http, port: 80, targetPort: http}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: inventory, namespace: town, labels: {{app: inventory, douane.io/inject: enabled}}}}
spec:
  serviceAccountName: inventory
  containers:
  - name: app
    command: [shop, inventory, --listen, '[::]:9090']
    ports: [{{name: grpc, containerPort: 9090}}]
---
apiVersion: v1
kind: Service
metadata: {{name: inventory, namespace: town}}
spec: {{selector: {{app: inventory}}, ports: [{{name: grpc, port: 9090, targetPort: grpc}}]}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: outcomes, namespace: town}}
spec:
  action: DENY
  rules: [{{to: [{{operation: {{paths: [/denied, /shop.v1.Inventory/Watch]}}}}]}}]
",
        script.display()
    )
}

fn town_lab(sink: &Sink) -> Option<Lab> {
    let lab = lab(&[("town.yaml", &town())], &url(sink))?;
    eventually("the application answers", Duration::from_secs(90), || {
        let answered = lab.exec("caller", &["shop", "get", "http://outcomes/status/200"]);
        if answered.out.starts_with("200 ") { Ok(()) } else { Err(format!("{answered:?}")) }
    });
    Some(lab)
}

fn told(span: &Span, key: &str) -> String {
    span.attributes.get(key).cloned().unwrap_or_default()
}

#[test]
fn the_status_of_both_spans_follows_what_happened() {
    let sink = Sink::start();
    let Some(lab) = town_lab(&sink) else { return };
    // path -> CLIENT's error.type, SERVER's; empty: no error.
    let table = [
        ("status/200", "", ""),
        ("status/404", "404", ""),
        ("status/500", "500", "500"),
        ("status/503", "503", "503"),
        ("denied", "403", ""),
        ("reset", "502", "upstream_failed"),
    ];
    for (number, (path, client, server)) in table.into_iter().enumerate() {
        let trace = fresh(0x100 + u32::try_from(number).unwrap());
        get_traced(&lab, "caller", &format!("http://outcomes/{path}"), &trace, "01");
        let spans = collected(&sink, &trace, 2);
        judge::judge(&spans, 1, ROOT);
        for (kind, expected) in [(Kind::Client, client), (Kind::Server, server)] {
            let span = judge::of_kind(&spans, kind).next().unwrap();
            assert_eq!(
                (told(span, "error.type").as_str(), span.failed),
                (expected, !expected.is_empty()),
                "{path}: {span:#?}"
            );
        }
    }
    // Nobody is there: one span, and what failed.
    let trace = fresh(0x200);
    get_traced(&lab, "caller", "http://203.0.113.7/", &trace, "01");
    let spans = collected(&sink, &trace, 1);
    assert_eq!(spans.len(), 1, "{}", judge::show(&spans));
    assert!(spans[0].failed && told(&spans[0], "error.type") == "unknown_destination", "{:#?}", spans[0]);
}

#[test]
fn a_calls_status_is_read_from_its_trailers() {
    let sink = Sink::start();
    let Some(lab) = town_lab(&sink) else { return };
    let call =
        |what: &str, sku: &str| lab.exec("caller", &["shop", "grpc", what, "http://inventory:9090", sku]);
    assert_eq!(call("stock", "teapot").code, 0);
    assert_ne!(call("stock", "").code, 0);
    assert_ne!(call("watch", "teapot").code, 0);

    // status -> CLIENT's error, SERVER's: whoever asks for nonsense or for what is forbidden is no fault of the server.
    for (status, client, server) in
        [("OK", false, false), ("INVALID_ARGUMENT", true, false), ("PERMISSION_DENIED", true, false)]
    {
        for (kind, failed) in [(Kind::Client, client), (Kind::Server, server)] {
            let span = eventually(&format!("a {kind:?} span of {status} comes"), super::EXPORTED, || {
                let spans = sink.spans();
                let found =
                    spans.iter().find(|span| span.kind == kind && told(span, "rpc.status_code") == status);
                found.cloned().ok_or_else(|| judge::show(&spans))
            });
            assert_eq!((span.failed, told(&span, "rpc.system.name").as_str()), (failed, "grpc"), "{span:#?}");
            assert_eq!(told(&span, "error.type"), if failed { status } else { "" }, "{span:#?}");
        }
    }
}

#[test]
fn a_span_lasts_as_long_as_its_body() {
    let sink = Sink::start();
    let Some(lab) = town_lab(&sink) else { return };
    let trace = fresh(0x300);

    get_traced(&lab, "caller", "http://outcomes/slow/1.0", &trace, "01");

    let spans = collected(&sink, &trace, 2);
    judge::judge(&spans, 1, ROOT);
    for span in &spans {
        assert!(span.end - span.start > 800_000_000, "{span:#?}");
    }
}

#[test]
fn an_unsampled_trace_is_carried_on_and_an_odd_parent_begins_a_new_one() {
    let sink = Sink::start();
    let Some(lab) = town_lab(&sink) else { return };
    let seen = |headers: &[&str]| -> Value {
        let mut command = vec!["curl", "-s", "http://outcomes/headers"];
        command.extend(headers.iter().flat_map(|header| ["-H", header]));
        let answered = lab.exec("caller", &command);
        serde_json::from_str(&answered.out).unwrap_or_else(|error| panic!("{error}: {answered:?}"))
    };
    let parent = |headers: &Value| headers["Traceparent"].as_str().unwrap_or_default().to_owned();

    let unsampled = fresh(0x400);
    let carried =
        seen(&[&format!("traceparent: 00-{unsampled}-{ROOT}-00"), "tracestate: a=1", "baggage: b=2"]);
    let traceparent = parent(&carried);
    assert!(
        traceparent.starts_with(&format!("00-{unsampled}-")) && traceparent.ends_with("-00"),
        "{carried}"
    );
    assert!(!traceparent.contains(ROOT), "the application's parent is its own sidecar's span: {carried}");
    assert_eq!((&carried["Tracestate"], &carried["Baggage"]), (&"a=1".into(), &"b=2".into()));

    for odd in [
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01, 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "%00%ff",
    ] {
        let got = parent(&seen(&[&format!("traceparent: {odd}")]));
        let parts: Vec<_> = got.split('-').collect();
        assert!(parts.len() == 4 && parts[1].len() == 32 && parts[2].len() == 16, "{odd}: {got}");
        assert!(!got.contains("4bf92f3577b34da6a3ce929d0e0e4736"), "{odd}: {got}");
    }
    // A later one has come from the same sidecars.
    let sampled = fresh(0x401);
    seen(&[&format!("traceparent: 00-{sampled}-{ROOT}-01")]);
    collected(&sink, &sampled, 2);
    assert!(sink.trace(&unsampled).is_empty());
}
