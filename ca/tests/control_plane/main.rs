//! A whole control plane over loopback with real TLS: what a sidecar and an operator see of it.

mod discovery;
mod issue;
mod plane;
mod sidecar;
