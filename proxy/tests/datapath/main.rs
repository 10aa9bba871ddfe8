//! The data path end to end in one process: application, outbound sidecar, mutual TLS, inbound sidecar, application.

mod apps;
mod http;
mod law;
mod opaque;
mod pods;
