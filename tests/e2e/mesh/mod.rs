//! A real mesh in real network namespaces: the lab's program is started on a folder of YAML and looked at from outside.

mod audit;
mod found;
mod killed;
mod life;
mod observed;
mod odd;
mod own_ports;
mod refusals;
mod replicas;
mod sidecar_life;
mod talking;
mod traffic;
mod yaml;

use std::time::Duration;

use douane_tests::{lab::Lab, namespaces, wait::eventually};

const LAB: &str = env!("CARGO_BIN_EXE_lab-under-test");
/// A sidecar starts again, gets a certificate and its law: under a second where the machine is not busy.
const BACK: Duration = Duration::from_secs(60);

/// A lab that is ready; `None` where this kernel has no namespaces for us (said aloud, forbidden in CI).
fn lab(files: &[(&str, &str)]) -> Option<Lab> {
    namespaces::are_available().then(|| Lab::up(LAB, files))
}

/// A lab that was only started.
fn started(files: &[(&str, &str)]) -> Option<Lab> {
    namespaces::are_available().then(|| Lab::start(LAB, files))
}

/// The mesh of `yaml`, with its odd ends.
fn mesh() -> Option<Lab> {
    lab(&[("mesh.yaml", yaml::MESH), ("odd.yaml", yaml::ODD), ("law.yaml", yaml::LAW)])
}

/// A pod's IPv4 and IPv6 address, the latter in brackets: hosts of URLs.
fn addresses(lab: &Lab, pod: &str) -> [String; 2] {
    let found = lab.pod(pod)["addresses"].clone();
    let text = |index: usize| found[index].as_str().expect("two addresses").to_owned();
    [text(0), format!("[{}]", text(1))]
}

/// What a GET from a pod prints.
fn get(lab: &Lab, pod: &str, url: &str) -> String {
    lab.exec(pod, &["shop", "get", url]).out
}

/// Waits until a pod's sidecar is ready again.
fn is_back(lab: &Lab, pod: &str) {
    eventually(&format!("the sidecar of {pod} is back"), BACK, || {
        let row = lab.pod(pod);
        if row["ready"] == true { Ok(()) } else { Err(row.to_string()) }
    });
}
