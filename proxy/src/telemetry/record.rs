//! What is known of one request or opaque stream. Plain values, filled by the rooms on its way; what is told of it at
//! its end is decided elsewhere ([`crate::telemetry::access`]).

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use douane_proto::{
    id::WorkloadId,
    policy::{Denial, Shadow},
};
use http::Method;

use crate::telemetry::{trace::TraceContext, tracer::Link};

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
        group: Arc<str>,
        /// What both ends derive from the session: equal at both.
        binding: u64,
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
    pub service: Option<Arc<str>>,
    /// HTTP method.
    pub method: Option<Method>,
    /// HTTP authority.
    pub authority: Option<String>,
    /// Normalized path without query.
    pub path: Option<String>,
    /// What its client calls it: looked for, never believed.
    pub request_id: Option<Box<str>>,
    /// What the client says it is, if it may be told.
    pub user_agent: Option<Box<str>>,
    /// HTTP status sent to the client.
    pub status: Option<u16>,
    /// gRPC status code, from trailers or headers.
    pub grpc_status: Option<u16>,
    /// `content-type` begins with `application/grpc`.
    pub grpc: bool,
    /// The decision: `allow` or `deny`; `None` where none was made.
    pub decision: Option<&'static str>,
    /// The policy and rule that decided.
    pub policy: Option<Arc<str>>,
    /// Was it denied, by whatever part of the mesh's law?
    pub denied: bool,
    /// The AUDIT policy and rule that want it told.
    pub audited_by: Option<Arc<str>>,
    /// What policies in a dry run would have decided.
    pub dry_run: Option<Shadow>,
    /// The server name of the peer's handshake.
    pub sni: Option<Arc<str>>,
    /// Whose token the request bears, by the name that logs have for that user.
    pub user: Option<String>,
    /// Why it was refused or failed, for a human.
    pub reason: Option<String>,
    /// The refusal's fixed label, also `error.type` of the span.
    pub refusal: Option<&'static str>,
    /// The refusal's status in HTTP, also where its answer says it otherwise, as gRPC does, or there is none.
    pub refused_with: Option<u16>,
    /// Had its answer begun before that? The status is the one that was promised then.
    pub is_broken_off: bool,
    /// YAML that would allow it, where we know it.
    pub hint: Option<String>,
    /// What the peer or the token that was refused did not prove: a fixed word, for a metric.
    pub unproven: Option<&'static str>,
    /// Body or stream bytes from the client.
    pub bytes_in: u64,
    /// Body or stream bytes to the client.
    pub bytes_out: u64,
    /// Where its span stands; `None` for what is not traced.
    pub trace: Option<TraceContext>,
    /// How long this sidecar had it in hand, of the attempt in progress: until it was sent on, or refused.
    pub overhead: Duration,
    /// The same of the attempts before.
    pub overhead_before: Duration,
    /// How often it was sent again.
    pub resends: u32,
    /// Another span that it is related to.
    pub link: Option<Link>,
}

/// When it was. The wall clock is read once; the end is the start plus a monotonic length, never before it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lasted {
    pub(crate) from: SystemTime,
    pub(crate) length: Duration,
}

impl Direction {
    /// `inbound` or `outbound`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

impl Protection {
    /// `mtls` or `none`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Mtls { .. } => "mtls",
            Self::None => "none",
        }
    }
}

impl Record {
    pub(crate) fn new(direction: Direction, destination: SocketAddr) -> Self {
        Self {
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
            request_id: None,
            user_agent: None,
            status: None,
            grpc_status: None,
            grpc: false,
            decision: None,
            policy: None,
            denied: false,
            audited_by: None,
            dry_run: None,
            sni: None,
            user: None,
            reason: None,
            refusal: None,
            refused_with: None,
            is_broken_off: false,
            hint: None,
            unproven: None,
            bytes_in: 0,
            bytes_out: 0,
            trace: None,
            overhead: Duration::ZERO,
            overhead_before: Duration::ZERO,
            resends: 0,
            link: None,
        }
    }

    /// Is the other end of our own trust domain? Proven by its certificate.
    pub(crate) fn peer_is_of_ours(&self) -> bool {
        match (&self.peer, &self.local) {
            (Some(peer), Some(local)) => peer.trust_domain() == local.trust_domain(),
            _ => false,
        }
    }

    /// Lets go of what logs and metrics have told.
    pub(crate) fn forget_what_no_span_tells(&mut self) {
        (self.audited_by, self.dry_run, self.sni) = (None, None, None);
        (self.user, self.hint) = (None, None);
    }

    /// The method if it is one of the known ones, else `None`: others are a client's invention, and unbounded.
    pub(crate) fn known_method(&self) -> Option<&'static str> {
        let method = self.method.as_ref()?.as_str();
        KNOWN_METHODS.iter().find(|known| **known == method).copied()
    }

    /// Who gave the answer: the application, as far as this sidecar can tell, or the sidecar itself.
    pub(crate) fn answered_by(&self) -> &'static str {
        if self.refusal.is_some() && !self.is_broken_off { "proxy" } else { "upstream" }
    }

    /// `1.0`, `1.1` or `2`; `None` where it is no HTTP.
    pub(crate) fn protocol_version(&self) -> Option<&'static str> {
        match self.protocol {
            "http/1.0" => Some("1.0"),
            "http/1.1" => Some("1.1"),
            "h2" => Some("2"),
            _ => None,
        }
    }
}

/// How a policy and a rule of it are named together.
pub(crate) fn policy_and_rule(denial: &Denial) -> Option<String> {
    match (&denial.policy, denial.rule) {
        (Some(policy), Some(rule)) => Some(format!("{policy} rule {rule}")),
        (policy, _) => policy.clone(),
    }
}

impl Lasted {
    pub(crate) fn until(self) -> SystemTime {
        self.from + self.length
    }
}

// RFC 9110 9.3, RFC 5789, and QUERY; the list of OpenTelemetry's conventions.
const KNOWN_METHODS: [&str; 10] =
    ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE", "QUERY"];
