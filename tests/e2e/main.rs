//! End to end, through public doors only. One binary, so that it links once.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails says where")]

mod alone;
mod attacks;
mod every_refusal;
mod federated;
mod floors;
mod istio;
mod joined;
mod kubernetes;
mod manifests;
mod mesh;
mod monitoring;
mod rows;
mod servers;
mod sidecar;
mod traces;
mod workload;
