//! What is told of the traffic: one [`access::Access`] for each request or stream becomes a log line, metrics and a
//! span when it ends. Knows no other room; rooms hand it values.

pub mod access;
pub(crate) mod b3;
pub(crate) mod header;
pub mod trace;
pub(crate) mod w3c;
