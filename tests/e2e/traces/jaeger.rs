//! What a real Jaeger shows of the shop: the trace, its warnings, and the graph of who depends on whom. Run by
//! `tests/jaeger/run`, which starts Jaeger on its usual ports.

use std::{collections::BTreeMap, fs, process::Command, time::Duration};

use douane_examples::demo::span::{Kind, Span};
use douane_tests::wait::eventually;
use serde_json::Value;

use super::{ROOT, fresh, judge, shop};

const OTLP: &str = "http://127.0.0.1:4317";
const QUERY: &str = "http://127.0.0.1:16686";
const SHOWN: Duration = Duration::from_secs(90);

fn ask(path: &str) -> Value {
    let out = Command::new("curl").args(["-s", &format!("{QUERY}{path}")]).output().unwrap();
    serde_json::from_slice(&out.stdout).unwrap_or_default()
}

// The raw form: Jaeger's own corrections are not wanted here.
fn trace(id: &str) -> (Vec<Span>, Value) {
    let found = ask(&format!("/api/traces/{id}?raw=true"));
    let data = found["data"][0].clone();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let spans = data["spans"].as_array().cloned().unwrap_or_default().into_iter().map(|span| {
        let attributes: BTreeMap<_, _> = span["tags"]
            .as_array()
            .cloned()
            .unwrap_or_default()
            .iter()
            .map(|tag| {
                (
                    text(&tag["key"]),
                    tag["value"].as_str().map_or_else(|| tag["value"].to_string(), str::to_owned),
                )
            })
            .collect();
        let start = span["startTime"].as_u64().unwrap_or_default() * 1000;
        Span {
            trace: text(&span["traceID"]),
            id: text(&span["spanID"]),
            parent: text(&span["references"][0]["spanID"]),
            service: text(&data["processes"][text(&span["processID"])]["serviceName"]),
            name: text(&span["operationName"]),
            kind: match attributes.get("span.kind").map(String::as_str) {
                Some("client") => Kind::Client,
                Some("server") => Kind::Server,
                _ => Kind::Other,
            },
            start,
            end: start + span["duration"].as_u64().unwrap_or_default() * 1000,
            failed: attributes.get("error").is_some_and(|error| error == "true"),
            attributes,
        }
    });
    (spans.collect(), data)
}

#[test]
#[ignore = "needs a real Jaeger: tests/jaeger/run"]
fn jaeger_shows_an_order_as_one_trace_and_the_mesh_as_it_is() {
    let Some(lab) = shop(OTLP) else { return };
    let checkout = |id: &str, flags: &str| {
        let parent = format!("traceparent: 00-{id}-{ROOT}-{flags}");
        let command =
            ["shop", "get", "-H", &parent, "-d", "{\"sku\": \"teapot\"}", "http://orders.shop/orders"];
        let answered = lab.exec("web", &command).out;
        assert!(answered.starts_with("200 "), "{answered}");
    };
    let (unsampled, sampled) = (fresh(0xa01), fresh(0xa02));
    checkout(&unsampled, "00");
    checkout(&sampled, "01");
    for _ in 0..20 {
        checkout(&format!("{:032x}", rand_id()), "01");
    }

    let spans = eventually("Jaeger has the order", SHOWN, || {
        let (spans, _) = trace(&sampled);
        if spans.len() >= 6 { Ok(spans) } else { Err(judge::show(&spans)) }
    });
    judge::judge(&spans, 3, ROOT);
    let (_, raw) = trace(&sampled);
    for span in raw["spans"].as_array().unwrap() {
        assert!(span["warnings"].as_array().is_none_or(Vec::is_empty), "{span:#}");
    }
    assert!(trace(&unsampled).0.is_empty());

    let services = ask("/api/services")["data"].clone();
    for service in ["web", "orders", "inventory"] {
        assert!(services.as_array().unwrap().contains(&service.into()), "{services}");
    }
    let graph = eventually("Jaeger knows who depends on whom", SHOWN, || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        let found = ask(&format!("/api/dependencies?endTs={now}&lookback=3600000"))["data"].clone();
        let edges = found.as_array().cloned().unwrap_or_default();
        let name = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut edges: Vec<_> =
            edges.iter().map(|edge| (name(&edge["parent"]), name(&edge["child"]))).collect();
        edges.sort();
        // A service's own SERVER and CLIENT spans are of one name: Jaeger draws that as an edge to itself.
        edges.retain(|(parent, child)| parent != child);
        if edges.len() >= 2 { Ok(edges) } else { Err(format!("{edges:?}")) }
    });
    let edge = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    assert_eq!(graph, [edge("orders", "inventory"), edge("web", "orders")]);

    if let Some(folder) = std::env::var_os("DOUANE_JAEGER_SHOWS").filter(|folder| !folder.is_empty()) {
        let folder = std::path::PathBuf::from(folder);
        fs::write(folder.join("trace.json"), raw.to_string()).unwrap();
        fs::write(folder.join("graph.json"), serde_json::to_string(&graph).unwrap()).unwrap();
    }
}

fn rand_id() -> u128 {
    use std::hash::{BuildHasher as _, Hasher as _};
    u128::from(std::collections::hash_map::RandomState::new().build_hasher().finish()) | 1 << 100
}
