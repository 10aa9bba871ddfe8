//! What is told of the traffic: one [`access::Access`] for each request or stream becomes a log line, metrics and a
//! span when it ends. Rooms above fill it and know nothing of where it goes; this room knows none of them.
//!
//! A trace context is read and written in [`trace`]; spans leave by [`otlp`]; what the sidecar says of itself goes
//! through [`log`].

pub mod access;
pub(crate) mod audit;
pub(crate) mod b3;
pub(crate) mod edges;
pub(crate) mod envoy;
pub(crate) mod flags;
pub(crate) mod flood;
pub mod form;
pub(crate) mod grpc;
pub(crate) mod grpc_trace;
pub(crate) mod header;
pub(crate) mod hex;
mod json;
pub(crate) mod line;
pub mod log;
pub mod metrics;
pub mod once;
pub mod origin;
pub mod otlp;
pub(crate) mod outcome;
pub(crate) mod queue;
mod record;
pub(crate) mod request_id;
pub mod resource;
pub(crate) mod retention;
pub(crate) mod sighting;
pub(crate) mod sightings;
pub(crate) mod span;
pub mod trace;
pub mod tracer;
pub mod user;
pub(crate) mod w3c;
pub mod writer;
