//! The record of one request or opaque stream. Created when it begins, filled on its way, told once when it is
//! dropped at the last byte: log line, metrics and span cannot disagree.

use std::{net::SocketAddr, rc::Rc};

use douane_proto::id::WorkloadId;
use http::Method;

use crate::telemetry::trace::TraceContext;

/// Which way it crosses the sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From a peer to the application: a SERVER span.
    Inbound,
    /// From the application to somewhere: a CLIENT span.
    Outbound,
}

/// How the hop between the sidecars was protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protection {
    /// Mutual TLS.
    Mtls {
        /// `TLSv1.3`.
        version: &'static str,
        /// Such as `X25519MLKEM768`.
        group: String,
    },
    /// The application's own bytes, or a hop inside the pod.
    None,
}

/// What is known of one request or stream; public fields, filled by the rooms on its way.
#[derive(Debug)]
pub struct Record {
    /// Which way.
    pub direction: Direction,
    /// `http/1.0`, `http/1.1`, `h2` or `tcp`.
    pub protocol: &'static str,
    /// The direct peer's address (inbound), or the address dialled (outbound, once picked).
    pub peer_address: Option<SocketAddr>,
    /// The original destination.
    pub destination: SocketAddr,
    /// Our identity.
    pub local: Option<WorkloadId>,
    /// The peer's verified identity.
    pub peer: Option<WorkloadId>,
    /// How the hop was protected.
    pub protection: Protection,
    /// The service asked for, `namespace/name`, when known.
    pub service: Option<String>,
    /// HTTP method.
    pub method: Option<Method>,
    /// HTTP authority.
    pub authority: Option<String>,
    /// Normalized path without query.
    pub path: Option<String>,
    /// HTTP status sent to the client.
    pub status: Option<u16>,
    /// gRPC status code, from trailers or headers.
    pub grpc_status: Option<u16>,
    /// `content-type` begins with `application/grpc`.
    pub grpc: bool,
    /// The decision: `allow` or `deny`; `None` where none was made.
    pub decision: Option<&'static str>,
    /// The policy and rule that decided.
    pub policy: Option<String>,
    /// Why it was refused or failed, for a human.
    pub reason: Option<String>,
    /// The refusal's fixed label, also `error.type` of the span.
    pub refusal: Option<&'static str>,
    /// YAML that would allow it, where we know it.
    pub hint: Option<String>,
    /// Body or stream bytes from the client.
    pub bytes_in: u64,
    /// Body or stream bytes to the client.
    pub bytes_out: u64,
    /// Where its span stands; `None` for what is not traced.
    pub trace: Option<TraceContext>,
}

/// The guard around a [`Record`].
#[derive(Debug)]
pub struct Access {
    /// What is known so far.
    pub record: Record,
    telemetry: Rc<Telemetry>,
}

/// Where records end: log, metrics, spans.
#[derive(Debug, Default)]
pub struct Telemetry {}

impl Telemetry {
    /// Begins the record of a request or stream.
    #[must_use]
    pub fn begin(self: &Rc<Self>, direction: Direction, destination: SocketAddr) -> Access {
        let record = Record {
            direction,
            protocol: "tcp",
            peer_address: None,
            destination,
            local: None,
            peer: None,
            protection: Protection::None,
            service: None,
            method: None,
            authority: None,
            path: None,
            status: None,
            grpc_status: None,
            grpc: false,
            decision: None,
            policy: None,
            reason: None,
            refusal: None,
            hint: None,
            bytes_in: 0,
            bytes_out: 0,
            trace: None,
        };
        Access { record, telemetry: Rc::clone(self) }
    }

    fn end(&self, record: &Record) {
        let _ = record;
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        self.telemetry.end(&self.record);
    }
}
