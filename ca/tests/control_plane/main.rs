//! A whole control plane over loopback with real TLS: what a sidecar and an operator see of it.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod admission;
mod attest;
mod audit;
mod bench;
mod bundle_endpoint;
mod discovery;
mod federation;
mod flood;
mod issue;
mod istio;
mod law;
mod plane;
mod replicas;
mod rotation;
mod sidecar;
mod standby;
mod strangers;
mod taps;
mod tokens;
mod upstream;
