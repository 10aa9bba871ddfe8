//! What a real Jaeger shows of all that: traces, their warnings, and the graph of who depends on whom. Run by
//! `tests/jaeger/run`.

use std::{fs, path::PathBuf, time::Duration};

use douane_tests::wait::eventually;

use super::{
    ROOT,
    backend::{Backend, Protocol, Seen},
    collector, fresh, judge, kept, outcomes, shop,
};

const SHOWN: Duration = Duration::from_secs(90);
const BOTH: [Protocol; 2] = [Protocol::Grpc, Protocol::Http];
/// Where it leaves what it answered, for README's pictures.
const SHOWS: &str = "DOUANE_JAEGER_SHOWS";

fn edges<const N: usize>(edges: [(&str, &str); N]) -> Vec<(String, String)> {
    edges.map(|(from, to)| (from.to_owned(), to.to_owned())).to_vec()
}

fn graph(seen: &Seen, expected: &[(String, String)]) {
    eventually("Jaeger knows who depends on whom", SHOWN, || {
        let graph: Vec<_> = seen.backend.real().graph().into_iter().collect();
        if graph == expected { Ok(()) } else { Err(format!("{graph:?}")) }
    });
}

#[test]
#[ignore = "needs a real Jaeger: tests/jaeger/run"]
fn jaeger_shows_an_order_as_one_trace_and_the_mesh_as_it_is() {
    for protocol in BOTH {
        let Some(seen) = shop(Backend::jaeger(protocol)) else { return };
        shop::an_order_is_one_trace_and_an_unsampled_one_is_none(&seen);
        let mesh = edges([("orders", "inventory"), ("web", "orders")]);
        graph(&seen, &mesh);

        let order = fresh(2);
        let raw = seen.backend.real().raw(&order);
        let spans = seen.backend.trace(&order);
        judge::judge(&spans, shop::HOPS, ROOT);
        for span in raw["spans"].as_array().unwrap() {
            assert!(span["warnings"].as_array().is_none_or(Vec::is_empty), "{span:#}");
        }
        let services = seen.backend.real().services();
        for service in ["web", "orders", "inventory"] {
            assert!(services.contains(service), "{services:?}");
        }
        if let Some(folder) = std::env::var_os(SHOWS).filter(|folder| !folder.is_empty()) {
            let folder = PathBuf::from(folder);
            fs::write(folder.join("trace.json"), raw.to_string()).unwrap();
            fs::write(folder.join("graph.json"), serde_json::to_string(&mesh).unwrap()).unwrap();
        }
        shop::a_denial_is_told_to_the_caller_and_is_no_fault_of_the_server(&seen);
    }
}

#[test]
#[ignore = "needs a real Jaeger: tests/jaeger/run"]
fn jaeger_shows_how_requests_end_and_odd_headers_become_no_trace() {
    for protocol in BOTH {
        let Some(seen) = outcomes::seen(Backend::jaeger(protocol)) else { return };
        outcomes::all_is_told(&seen);
    }
}

#[test]
#[ignore = "needs a real Jaeger: tests/jaeger/run"]
fn jaeger_shows_at_one_percent_all_spans_of_all_failed_traces_and_the_mesh_as_it_is() {
    for protocol in BOTH {
        let Some(seen) = kept::seen(Backend::jaeger(protocol)) else { return };
        kept::all_that_failed_is_there_and_of_the_rest_what_was_sampled(&seen);
        graph(&seen, &edges([("caller", "web"), ("orders", "inventory"), ("web", "orders")]));
    }
}

#[test]
#[ignore = "needs a real Jaeger: tests/jaeger/run"]
fn a_jaeger_that_is_killed_under_load_fails_no_request_and_the_next_one_is_served() {
    for protocol in BOTH {
        let Some(seen) = shop(Backend::jaeger(protocol)) else { return };
        collector::dies_under_load(seen);
    }
}
