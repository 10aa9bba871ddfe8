//! The control plane against a real Kubernetes API server. Run by `tests/kubernetes/run`, which brings the programs.

mod admission;
mod attest;
mod check;
mod discovery;
mod plane;
mod replicas;
mod rights;
mod shelf;
mod sidecar;
mod status;
mod upstream;
