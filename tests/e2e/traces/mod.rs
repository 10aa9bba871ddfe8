//! Traces as a collector gets them: the lab's shop and a pod with odd outcomes, looked at from outside.
//!
//! `judge` says what a good trace is; `shop` and `outcomes` make some, `collector` takes the collector away, `jaeger` asks
//! a real Jaeger (only by `tests/jaeger/run`).

mod collector;
mod jaeger;
mod judge;
mod outcomes;
mod shop;

use std::{fs, path::Path, time::Duration};

use douane_examples::demo::span::Span;
use douane_tests::{lab::Lab, namespaces, sink::Sink, wait::eventually};

const LAB: &str = env!("CARGO_BIN_EXE_lab-under-test");
/// Sidecars export every few seconds.
const EXPORTED: Duration = Duration::from_secs(90);
/// The span of a caller outside: what the test gives as the parent.
const ROOT: &str = "00f067aa0ba902b7";

/// The shop of `kind-cluster`, its spans sent to this collector.
fn shop(collector: &str) -> Option<Lab> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kind-cluster/shop");
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        files.push((
            path.file_name().unwrap().to_str().unwrap().to_owned(),
            fs::read_to_string(path).unwrap(),
        ));
    }
    let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    lab(&files, collector)
}

/// A lab that is ready, its spans sent to this collector.
fn lab(files: &[(&str, &str)], collector: &str) -> Option<Lab> {
    namespaces::are_available().then(|| Lab::up_with(LAB, files, &["--otlp", collector]))
}

/// How a collector is told to the lab.
fn url(sink: &Sink) -> String {
    format!("http://{}", sink.address())
}

/// A GET from a pod as part of a trace; what was printed.
fn get_traced(lab: &Lab, pod: &str, url: &str, trace: &str, flags: &str) -> String {
    let parent = format!("traceparent: 00-{trace}-{ROOT}-{flags}");
    lab.exec(pod, &["shop", "get", "-H", &parent, url]).out
}

/// A trace's id that no other test uses.
fn fresh(number: u32) -> String {
    format!("{:08x}{number:024x}", std::process::id() | 0x1000_0000)
}

/// Waits until a trace has so many spans.
fn collected(sink: &Sink, trace: &str, count: usize) -> Vec<Span> {
    eventually(&format!("{count} spans of {trace} come"), EXPORTED, || {
        let spans = sink.trace(trace);
        if spans.len() >= count { Ok(spans) } else { Err(judge::show(&spans)) }
    })
}
