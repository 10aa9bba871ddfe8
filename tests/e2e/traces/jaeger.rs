//! A real Jaeger: a process on its usual ports of loopback, and what its query API answers. Killed when dropped.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use douane_examples::demo::span::{Kind, Span};
use douane_tests::wait::eventually;
use serde_json::Value;

/// The program, as `tests/jaeger/run` has built it.
const PROGRAM: &str = "DOUANE_JAEGER";
/// Whose spans tell of questions to its API.
const OWN: &str = "jaeger";
const QUERY: &str = "http://127.0.0.1:16686";
/// Until it answers.
const READY: Duration = Duration::from_secs(60);
/// More traces than any test makes; the usual limit is 100.
const MOST_TRACES: usize = 10_000;

/// Its ports are fixed: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

#[derive(Debug)]
pub(super) struct Jaeger {
    process: Child,
    /// Where its API is.
    query: &'static str,
    _alone: MutexGuard<'static, ()>,
}

impl Jaeger {
    pub(super) fn start() -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let program = std::env::var_os(PROGRAM)
            .unwrap_or_else(|| panic!("tests/jaeger/run sets {PROGRAM} to a Jaeger that it has built"));
        let mut command = Command::new(program);
        let process =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut jaeger = Self { process, query: QUERY, _alone: alone };
        eventually("Jaeger answers", READY, || {
            let ended = jaeger.process.try_wait();
            assert!(matches!(ended, Ok(None)), "Jaeger has ended, {ended:?}: are its ports taken?");
            if jaeger.ask("/api/services").is_object() { Ok(()) } else { Err("nothing".to_owned()) }
        });
        jaeger
    }

    /// The names of all services.
    pub(super) fn services(&self) -> BTreeSet<String> {
        let found = self.ask("/api/services");
        found["data"].as_array().into_iter().flatten().map(text).collect()
    }

    /// Who calls whom, from its dependency graph.
    pub(super) fn graph(&self) -> BTreeSet<(String, String)> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        let found = self.ask(&format!("/api/dependencies?endTs={now}&lookback=3600000"));
        let edges = found["data"].as_array().into_iter().flatten();
        let edges = edges.map(|edge| (text(&edge["parent"]), text(&edge["child"])));
        // A service's own SERVER and CLIENT spans are of one name: Jaeger draws that as an edge to itself.
        edges.filter(|(parent, child)| parent != child).collect()
    }

    /// One trace as it answers it. The raw form: Jaeger's own corrections are not wanted here.
    pub(super) fn raw(&self, id: &str) -> Value {
        self.ask(&format!("/api/traces/{id}?raw=true"))["data"][0].clone()
    }

    fn ask(&self, path: &str) -> Value {
        let out = Command::new("curl").args(["-s", &format!("{}{path}", self.query)]).output().unwrap();
        serde_json::from_slice(&out.stdout).unwrap_or_default()
    }

    pub(super) fn trace(&self, id: &str) -> Vec<Span> {
        spans(&self.raw(id))
    }

    pub(super) fn spans(&self) -> Vec<Span> {
        let mut traces = BTreeMap::new();
        for service in self.services().into_iter().filter(|service| service != OWN) {
            let found = self.ask(&format!("/api/traces?service={service}&limit={MOST_TRACES}&raw=true"));
            for trace in found["data"].as_array().into_iter().flatten() {
                traces.insert(text(&trace["traceID"]), spans(trace));
            }
        }
        traces.into_values().flatten().collect()
    }
}

impl Drop for Jaeger {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spans(trace: &Value) -> Vec<Span> {
    let service = |span: &Value| text(&trace["processes"][text(&span["processID"])]["serviceName"]);
    trace["spans"].as_array().into_iter().flatten().map(|one| span(one, service(one))).collect()
}

fn span(span: &Value, service: String) -> Span {
    let tags = span["tags"].as_array().into_iter().flatten();
    let attributes: BTreeMap<_, _> = tags
        .map(|tag| {
            let value = &tag["value"];
            (text(&tag["key"]), value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        })
        .collect();
    // Jaeger tells microseconds.
    let nanos = |key: &str| span[key].as_u64().unwrap_or_default() * 1000;
    Span {
        trace: text(&span["traceID"]),
        id: text(&span["spanID"]),
        parent: text(&span["references"][0]["spanID"]),
        service,
        name: text(&span["operationName"]),
        kind: match attributes.get("span.kind").map(String::as_str) {
            Some("client") => Kind::Client,
            Some("server") => Kind::Server,
            _ => Kind::Other,
        },
        start: nanos("startTime"),
        end: nanos("startTime") + nanos("duration"),
        failed: attributes.get("error").is_some_and(|error| error == "true"),
        attributes,
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
