//! How a request ends is told by the status of its spans, and what came in odd headers never becomes a trace.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    time::Duration,
};

use douane_examples::demo::span::{Kind, Span};
use douane_tests::{counterparts, wait::eventually};
use serde_json::Value;

use super::{
    EXPORTED, ROOT,
    backend::{Backend, Seen, over_both},
    fresh, get_traced, judge,
};

/// Between the pods. The mesh expects the landlord there, and meets the tenant.
const GATEWAY: &str = "10.77.0.1";
const LEADS_TO_ANOTHER: &str = "
import socket, sys, threading

def lead(near, far):
    while part := near.recv(65536):
        far.sendall(part)
    far.shutdown(socket.SHUT_WR)

server = socket.create_server((sys.argv[1], 8080))
print('listens', flush=True)
while True:
    near, _ = server.accept()
    far = socket.create_connection((sys.argv[2], 8080))
    for way in (near, far), (far, near):
        threading.Thread(target=lead, args=way, daemon=True).start()
";

struct Leading(Child);

impl Drop for Leading {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

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
kind: Pod
metadata: {{name: tenant, namespace: town, labels: {{app: tenant, douane.io/inject: enabled}}}}
spec:
  serviceAccountName: tenant
  containers:
  - name: app
    command: [shop, partner, --listen, '[::]:8080']
    ports: [{{name: http, containerPort: 8080}}]
---
apiVersion: v1
kind: Service
metadata: {{name: landlord, namespace: town}}
spec: {{selector: {{app: landlord}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: landlord, namespace: town}}
spec:
  address: {GATEWAY}
  ports: {{http: 8080}}
  labels: {{app: landlord, douane.io/inject: enabled}}
  serviceAccount: landlord
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

#[test]
fn how_a_request_ends_is_told_by_both_spans_and_odd_headers_become_no_trace() {
    over_both(|backend| {
        let Some(seen) = seen(backend) else { return };
        all_is_told(&seen);
    });
}

pub(super) fn seen(backend: Backend) -> Option<Seen> {
    let seen = backend.lab(&[("town.yaml", &town())], &[])?;
    eventually("the application answers", Duration::from_secs(90), || {
        let answered = seen.lab.exec("caller", &["shop", "get", "http://outcomes/status/200"]);
        if answered.out.starts_with("200 ") { Ok(()) } else { Err(format!("{answered:?}")) }
    });
    Some(seen)
}

pub(super) fn all_is_told(seen: &Seen) {
    the_status_of_both_spans_follows_what_happened(seen);
    a_calls_status_is_read_from_its_trailers(seen);
    a_span_lasts_as_long_as_its_body(seen);
    an_unsampled_trace_is_carried_on_and_an_odd_parent_begins_a_new_one(seen);
    a_peer_that_cannot_prove_who_it_is_has_no_span(seen);
}

fn told(span: &Span, key: &str) -> String {
    span.attributes.get(key).cloned().unwrap_or_default()
}

fn the_status_of_both_spans_follows_what_happened(seen: &Seen) {
    let Seen { lab, backend } = seen;
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
        get_traced(lab, "caller", &format!("http://outcomes/{path}"), &trace, "01");
        let spans = backend.collected(&trace, 2);
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
    get_traced(lab, "caller", "http://203.0.113.7/", &trace, "01");
    let spans = backend.collected(&trace, 1);
    assert_eq!(spans.len(), 1, "{}", judge::show(&spans));
    assert!(spans[0].failed && told(&spans[0], "error.type") == "unknown_destination", "{:#?}", spans[0]);
}

fn a_calls_status_is_read_from_its_trailers(seen: &Seen) {
    let Seen { lab, backend } = seen;
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
            let span = eventually(&format!("a {kind:?} span of {status} comes"), EXPORTED, || {
                let spans = backend.spans();
                let found =
                    spans.iter().find(|span| span.kind == kind && told(span, "rpc.status_code") == status);
                found.cloned().ok_or_else(|| judge::show(&spans))
            });
            assert_eq!((span.failed, told(&span, "rpc.system.name").as_str()), (failed, "grpc"), "{span:#?}");
            assert_eq!(told(&span, "error.type"), if failed { status } else { "" }, "{span:#?}");
        }
    }
}

fn a_span_lasts_as_long_as_its_body(seen: &Seen) {
    let Seen { lab, backend } = seen;
    let trace = fresh(0x300);

    get_traced(lab, "caller", "http://outcomes/slow/1.0", &trace, "01");

    let spans = backend.collected(&trace, 2);
    judge::judge(&spans, 1, ROOT);
    for span in &spans {
        assert!(span.end - span.start > 800_000_000, "{span:#?}");
    }
}

fn an_unsampled_trace_is_carried_on_and_an_odd_parent_begins_a_new_one(seen: &Seen) {
    let Seen { lab, backend } = seen;
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
    backend.collected(&sampled, 2);
    assert!(backend.trace(&unsampled).is_empty());
}

fn a_peer_that_cannot_prove_who_it_is_has_no_span(seen: &Seen) {
    let Seen { lab, backend } = seen;
    let tenant = lab.pod("tenant")["addresses"][0].as_str().unwrap().to_owned();
    let mut leads = lab.between_pods("python3");
    leads.args(["-c", LEADS_TO_ANOTHER, GATEWAY, &tenant]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut leads = Leading(leads.spawn().unwrap());
    let mut said = String::new();
    BufReader::new(leads.0.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "listens\n");

    let refused = fresh(0x800);
    let answered = get_traced(lab, "caller", "http://landlord/", &refused, "01");
    assert!(answered.starts_with("50"), "{answered}");
    lab.refusal("caller", "peer_handshake_failed");

    let later = fresh(0x900);
    get_traced(lab, "caller", "http://outcomes/status/200", &later, "01");
    backend.collected(&later, 2);
    let spans = backend.collected(&refused, 1);
    assert_eq!(spans.len(), 1, "the tenant has no part in it:\n{}", judge::show(&spans));
    let span = &spans[0];
    assert_eq!((span.kind, span.failed), (Kind::Client, true), "{span:#?}");
    assert_eq!(told(span, "error.type"), "peer_handshake_failed", "{span:#?}");
    for of_a_session in ["douane.tls.binding", "douane.peer.spiffe_id"] {
        assert_eq!(told(span, of_a_session), "", "{span:#?}");
    }
}
