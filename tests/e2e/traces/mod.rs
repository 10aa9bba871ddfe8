//! Traces as a backend gets them: the lab's shop and a pod with odd outcomes, looked at from outside.
//!
//! `judge` says what a good trace is. `shop`, `outcomes` and `kept` make traces, `collector` takes the backend away: each
//! over gRPC and over HTTP to a sink of ours. `shown` is the same with a real `jaeger` (only by `tests/jaeger/run`).

mod backend;
mod collector;
mod jaeger;
mod judge;
mod kept;
mod outcomes;
mod shop;
mod shown;

use std::{fs, path::Path, time::Duration};

use backend::{Backend, Seen};
use douane_tests::lab::Lab;

const LAB: &str = env!("CARGO_BIN_EXE_lab-under-test");
/// Sidecars export every few seconds.
const EXPORTED: Duration = Duration::from_secs(90);
/// The span of a caller outside: what the test gives as the parent.
const ROOT: &str = "00f067aa0ba902b7";

/// The shop of `kind-cluster`.
fn shop(backend: Backend) -> Option<Seen> {
    shop_with(backend, &[], &[])
}

/// With more files, and more variables of its sidecars.
fn shop_with(backend: Backend, more: &[(&str, &str)], variables: &[&str]) -> Option<Seen> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kind-cluster/shop");
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        files.push((
            path.file_name().unwrap().to_str().unwrap().to_owned(),
            fs::read_to_string(path).unwrap(),
        ));
    }
    let mut files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    files.retain(|(name, _)| !more.iter().any(|(other, _)| name == other));
    files.extend(more);
    backend.lab(&files, variables)
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
