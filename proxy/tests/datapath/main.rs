//! The data path end to end in one process: application, outbound sidecar, mutual TLS, inbound sidecar, application.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot be set up has failed; clippy knows no test helpers outside #[test]"
)]

mod app_health;
mod apps;
mod audit;
mod authorizer;
mod bulk;
mod busy;
mod credulous;
mod custom;
mod custom_body;
mod descriptors;
mod early;
mod envoy;
mod envoy_sidecar;
mod export;
mod grpc;
mod hops;
mod http;
mod istio;
mod law;
mod limits;
mod modes;
mod names;
mod opaque;
mod pods;
mod refusals;
mod resets;
mod resting;
mod retained;
mod semantics;
mod shortage;
mod silence;
mod sink;
mod slow;
mod spans;
mod stranger;
mod tokens;
mod traces;
mod unread;
mod unread_http2;
mod upgrade;
mod websockets;
