//! Every reason to say no on the data path: its status, its fixed label, whose fault it is, and what mends it.
//!
//! Knows not who asked (the `Access` record does) and is never shown to a stranger: a body tells nothing, the log, the
//! span and the metric tell all. A reason here has a test that provokes it.

use std::net::SocketAddr;

use bytes::Bytes;
use douane_proto::{
    authentication::TokenRefused,
    id::WorkloadId,
    policy::{Denial, DenialKind, HeaderChange},
    request::BadRequest,
};
use http::StatusCode;

/// Who must mend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The one who asked.
    Client,
    /// The one who was asked.
    Upstream,
    /// The mesh: its settings, its law, its control plane or this sidecar.
    Mesh,
}

/// Why a connection, stream or request is refused.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refusal {
    /// It came to our port without being redirected.
    #[error("the connection was not redirected to the sidecar but made to its port")]
    NotRedirected,
    /// It asks the sidecar for one of the sidecar's own ports.
    #[error("{0} is a port of the sidecar itself")]
    OwnPort(SocketAddr),
    /// It was redirected here but asks for an address that is not this pod's.
    #[error("{0} is no address of this pod")]
    NotOurAddress(SocketAddr),
    /// Plaintext where mutual TLS is the law.
    #[error("the peer speaks plaintext where mutual TLS is required")]
    Plaintext,
    /// The mode of mutual TLS changed, and the connection is not of the kind that it admits.
    #[error("the port's mode of mutual TLS has changed to {0}, which does not admit this connection")]
    ModeChanged(&'static str),
    /// A peer's handshake failed; the text names the certificate's fault.
    #[error("the peer's TLS handshake failed: {reason}")]
    Handshake {
        /// What was wrong, a fixed word.
        kind: &'static str,
        /// The same for a human.
        reason: String,
    },
    /// A peer's handshake did not end in time.
    #[error("the TLS handshake did not end in time")]
    HandshakeTimeout,
    /// Our handshake with a peer failed: it could not prove to be who it must be.
    #[error("the TLS handshake with {address}, which must prove to be {expected}, failed: {reason}")]
    PeerHandshake {
        /// Where it listens.
        address: SocketAddr,
        /// Who it must be.
        expected: WorkloadId,
        /// What was wrong, a fixed word.
        kind: &'static str,
        /// The same for a human.
        reason: String,
    },
    /// No resource names the destination.
    #[error("no resource of the mesh names {destination}")]
    UnknownDestination {
        /// The address, and the host where one was given.
        destination: String,
        /// The YAML that would allow it.
        hint: String,
    },
    /// A resource names the destination, but not this port.
    #[error("{owner} has no port {port}")]
    UnknownPort {
        /// The service or entry.
        owner: String,
        /// The port asked for.
        port: u16,
    },
    /// A host that a `ServiceEntry` names has no address that may be dialled.
    #[error("{host} has no address that may be dialled: {reason}")]
    Unresolvable {
        /// The host.
        host: String,
        /// Why not.
        reason: String,
    },
    /// A first use of an unknown address while the control plane is down or overloaded.
    #[error("the control plane did not say in time who is at {0}")]
    ControlPlaneSilent(String),
    /// Nobody is ready behind the service.
    #[error("no endpoint of {0} is ready")]
    NoReadyEndpoint(String),
    /// Only endpoints without a sidecar are left of a service that has some with one.
    #[error("{0} has endpoints in the mesh, none is ready, and plaintext to the others is no substitute")]
    UnmeshedFallback(String),
    /// A TCP connection could not be made.
    #[error("connect to {address}: {reason}")]
    ConnectFailed {
        /// Where to.
        address: SocketAddr,
        /// What the kernel said.
        reason: String,
    },
    /// A connection broke before the answer was whole.
    #[error("{address} did not answer: {reason}")]
    UpstreamFailed {
        /// Who.
        address: SocketAddr,
        /// What happened.
        reason: String,
    },
    /// The peer's sidecar refused an opaque stream; why is in its log.
    #[error("the sidecar of {address} refused the stream with status {status}")]
    PeerRefused {
        /// Who.
        address: SocketAddr,
        /// Its answer.
        status: StatusCode,
    },
    /// A decision said no.
    #[error("denied: {}", .0.reason)]
    Denied(Denial),
    /// An external authorizer said no.
    #[error("denied: {}", denial.reason)]
    AuthorizerDenied {
        /// By which policy it was asked.
        denial: Denial,
        /// How the client shall hear it.
        how: Box<Spoken>,
    },
    /// An external authorizer could not be asked, and does not fail open.
    #[error("denied: {}", denial.reason)]
    AuthorizerFailed {
        /// By which policy it had to be asked, and why it was not.
        denial: Denial,
        /// The answer that its settings name.
        status: StatusCode,
    },
    /// An external authorizer must see the whole body, which is longer than its settings permit.
    #[error("the body is longer than the {0} bytes that an external authorizer may see of it")]
    BodyTooLarge(usize),
    /// A token of the request is not valid, or meant for somebody else.
    #[error("{0}")]
    TokenRefused(#[from] TokenRefused),
    /// A request that cannot be understood without doubt.
    #[error("{0}")]
    BadRequest(#[from] BadRequest),
    /// CONNECT from an application, or between sidecars in any form but ours.
    #[error("CONNECT is not allowed: {0}")]
    ConnectNotAllowed(&'static str),
    /// An opaque stream where HTTP is declared or the law can only judge HTTP.
    #[error("port {0} needs HTTP, this is none")]
    HttpNeeded(u16),
    /// HTTP requests to a port that is declared opaque: its law was written for bytes, its application may speak no HTTP.
    #[error("port {0} is declared opaque, this is an HTTP request")]
    OpaqueNeeded(u16),
    /// A request head, or the part of a body that an authorizer must see, that did not arrive in time.
    #[error(
        "the request's head, or the part of its body that an authorizer must see, did not arrive in time"
    )]
    HeadTimeout,
    /// No byte in either direction for too long.
    #[error("idle for too long")]
    Idle,
    /// A stream that has lived as long as a stream may.
    #[error("the stream has reached its greatest age")]
    StreamAge,
    /// The sidecar is shutting down.
    #[error("the sidecar is draining")]
    Draining,
    /// More connections than the sidecar may hold.
    #[error("too many connections")]
    TooManyConnections,
    /// More connections of one peer than one may have.
    #[error("too many connections of this peer")]
    TooManyOfPeer,
    /// More handshakes in progress than the sidecar begins.
    #[error("too many TLS handshakes in progress")]
    TooManyHandshakes,
    /// As many requests in progress as a destination may have, and as many waiting, or for too long.
    #[error("too many requests or streams in progress to {0}")]
    TooManyInFlight(SocketAddr),
    /// Places are left, for other callers.
    #[error("the caller has its share of the requests or streams that may be in progress to {0}")]
    ShareExceeded(SocketAddr),
    /// Too little memory is left to begin anything.
    #[error("the sidecar has used up the memory that it may have")]
    MemoryPressure,
    /// A request that was not answered to its end in the time that the operator gave it.
    #[error("the request took longer than it may in total")]
    RequestTimeout,
    /// A peer that takes its requests back as fast as it makes them.
    #[error("the peer resets its streams too often")]
    ResetFlood,
    /// The one who asked went away.
    #[error("the client went away")]
    ClientGone,
}

/// How a client hears an external authorizer's refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spoken {
    /// A status of a refusal.
    pub status: StatusCode,
    /// Headers of the answer.
    pub headers: Vec<HeaderChange>,
    /// Its body.
    pub body: Bytes,
}

impl Spoken {
    /// An authorizer that refuses with a status that promises anything else refuses with 403.
    #[must_use]
    pub fn new(status: StatusCode, headers: Vec<HeaderChange>, body: Bytes) -> Self {
        let refuses = status.is_redirection() || status.is_client_error() || status.is_server_error();
        Self { status: if refuses { status } else { StatusCode::FORBIDDEN }, headers, body }
    }
}

impl Default for Spoken {
    fn default() -> Self {
        Self::new(StatusCode::FORBIDDEN, Vec::new(), Bytes::new())
    }
}

impl Refusal {
    /// The status of the answer to an HTTP request.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Denied(_)
            | Self::OpaqueNeeded(_)
            | Self::Plaintext
            | Self::ModeChanged(_)
            | Self::TokenRefused(TokenRefused::Audience { .. }) => StatusCode::FORBIDDEN,
            // Tells a peer's sidecar, of which alone it is ever the answer, that requests may pass where bytes may not.
            Self::HttpNeeded(_) => StatusCode::UPGRADE_REQUIRED,
            Self::TokenRefused(TokenRefused::Invalid { .. }) => StatusCode::UNAUTHORIZED,
            Self::AuthorizerDenied { how, .. } => how.status,
            Self::AuthorizerFailed { status, .. } => *status,
            Self::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::ConnectNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::HeadTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Idle | Self::StreamAge | Self::HandshakeTimeout | Self::RequestTimeout => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::ControlPlaneSilent(_)
            | Self::NoReadyEndpoint(_)
            | Self::UnmeshedFallback(_)
            | Self::Draining
            | Self::TooManyConnections
            | Self::TooManyOfPeer
            | Self::TooManyHandshakes
            | Self::TooManyInFlight(_)
            | Self::ShareExceeded(_)
            | Self::MemoryPressure => StatusCode::SERVICE_UNAVAILABLE,
            Self::ResetFlood => StatusCode::TOO_MANY_REQUESTS,
            Self::NotRedirected
            | Self::OwnPort(_)
            | Self::NotOurAddress(_)
            | Self::Handshake { .. }
            | Self::PeerHandshake { .. }
            | Self::UnknownDestination { .. }
            | Self::UnknownPort { .. }
            | Self::Unresolvable { .. }
            | Self::ConnectFailed { .. }
            | Self::UpstreamFailed { .. }
            | Self::PeerRefused { .. }
            | Self::ClientGone => StatusCode::BAD_GATEWAY,
        }
    }

    /// Its fixed name: metric label and `error.type` of the span.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotRedirected => "not_redirected",
            Self::OwnPort(_) => "own_port",
            Self::NotOurAddress(_) => "not_our_address",
            Self::Plaintext => "plaintext",
            Self::ModeChanged(_) => "mode_changed",
            Self::Handshake { .. } => "handshake_failed",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::PeerHandshake { .. } => "peer_handshake_failed",
            Self::UnknownDestination { .. } => "unknown_destination",
            Self::UnknownPort { .. } => "unknown_port",
            Self::Unresolvable { .. } => "unresolvable",
            Self::ControlPlaneSilent(_) => "control_plane_silent",
            Self::NoReadyEndpoint(_) => "no_ready_endpoint",
            Self::UnmeshedFallback(_) => "unmeshed_fallback",
            Self::ConnectFailed { .. } => "connect_failed",
            Self::UpstreamFailed { .. } => "upstream_failed",
            Self::PeerRefused { .. } => "peer_refused",
            Self::Denied(_) => "denied",
            Self::AuthorizerDenied { .. } => "authorizer_denied",
            Self::AuthorizerFailed { .. } => "authorizer_failed",
            Self::BodyTooLarge(_) => "body_too_large",
            Self::TokenRefused(TokenRefused::Invalid { .. }) => "token_invalid",
            Self::TokenRefused(TokenRefused::Audience { .. }) => "token_audience",
            Self::BadRequest(_) => "bad_request",
            Self::ConnectNotAllowed(_) => "connect_not_allowed",
            Self::HttpNeeded(_) => "http_needed",
            Self::OpaqueNeeded(_) => "opaque_needed",
            Self::HeadTimeout => "head_timeout",
            Self::Idle => "idle",
            Self::StreamAge => "stream_age",
            Self::Draining => "draining",
            Self::TooManyConnections => "too_many_connections",
            Self::TooManyOfPeer => "too_many_connections_of_peer",
            Self::TooManyHandshakes => "too_many_handshakes",
            Self::TooManyInFlight(_) => "too_many_in_flight",
            Self::ShareExceeded(_) => "share_exceeded",
            Self::MemoryPressure => "memory_pressure",
            Self::RequestTimeout => "request_timeout",
            Self::ResetFlood => "reset_flood",
            Self::ClientGone => "client_gone",
        }
    }

    /// What a peer or a token did not prove, by a fixed word; `None` for what is no failure of authentication.
    #[must_use]
    pub fn unproven(&self) -> Option<&'static str> {
        match self {
            Self::Plaintext => Some("plaintext"),
            Self::HandshakeTimeout => Some("timeout"),
            Self::Handshake { kind, .. } | Self::PeerHandshake { kind, .. } => Some(kind),
            Self::TokenRefused(TokenRefused::Invalid { .. }) => Some("token_invalid"),
            Self::TokenRefused(TokenRefused::Audience { .. }) => Some("token_audience"),
            _ => None,
        }
    }

    /// Who must mend it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::NotRedirected
            | Self::OwnPort(_)
            | Self::NotOurAddress(_)
            | Self::Plaintext
            | Self::Handshake { .. }
            | Self::HandshakeTimeout
            | Self::Denied(_)
            | Self::AuthorizerDenied { .. }
            | Self::BodyTooLarge(_)
            | Self::TokenRefused(_)
            | Self::BadRequest(_)
            | Self::ConnectNotAllowed(_)
            | Self::HttpNeeded(_)
            | Self::OpaqueNeeded(_)
            | Self::HeadTimeout
            | Self::Idle
            | Self::TooManyOfPeer
            | Self::ShareExceeded(_)
            | Self::ResetFlood
            | Self::ClientGone => Fault::Client,
            Self::PeerHandshake { .. }
            | Self::NoReadyEndpoint(_)
            | Self::UnmeshedFallback(_)
            | Self::ConnectFailed { .. }
            | Self::UpstreamFailed { .. }
            | Self::PeerRefused { .. }
            | Self::RequestTimeout => Fault::Upstream,
            Self::UnknownDestination { .. }
            | Self::UnknownPort { .. }
            | Self::Unresolvable { .. }
            | Self::ControlPlaneSilent(_)
            | Self::ModeChanged(_)
            | Self::AuthorizerFailed { .. }
            | Self::StreamAge
            | Self::Draining
            | Self::TooManyConnections
            | Self::TooManyHandshakes
            | Self::TooManyInFlight(_)
            | Self::MemoryPressure => Fault::Mesh,
        }
    }

    /// Is it the law's doing, in whatever form: a denial, a bad token, a request in doubt, the wrong way to connect? A
    /// failure, or somebody who went away, is not.
    #[must_use]
    pub fn is_denial(&self) -> bool {
        self.denial().is_some()
            || matches!(
                self,
                Self::TokenRefused(_)
                    | Self::BadRequest(_)
                    | Self::ConnectNotAllowed(_)
                    | Self::BodyTooLarge(_)
                    | Self::HttpNeeded(_)
                    | Self::OpaqueNeeded(_)
                    | Self::Plaintext
                    | Self::Handshake { .. }
                    | Self::ModeChanged(_)
                    | Self::NotRedirected
                    | Self::OwnPort(_)
                    | Self::NotOurAddress(_)
            )
    }

    /// What the law said, where the law said it.
    #[must_use]
    pub fn denial(&self) -> Option<&Denial> {
        match self {
            Self::Denied(denial)
            | Self::AuthorizerDenied { denial, .. }
            | Self::AuthorizerFailed { denial, .. } => Some(denial),
            _ => None,
        }
    }

    /// The YAML that would allow it, where we know it.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::UnknownDestination { hint, .. } => Some(hint),
            _ => None,
        }
    }

    /// Does another endpoint of the same service deserve a try? Only where nothing was sent.
    #[must_use]
    pub fn another_may_answer(&self) -> bool {
        matches!(self, Self::ConnectFailed { .. } | Self::HandshakeTimeout)
    }
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        match denial.kind {
            DenialKind::Denied => Self::Denied(denial),
            DenialKind::Authorizer { .. } => Self::AuthorizerDenied { denial, how: Box::default() },
            DenialKind::AuthorizerFailed { status, .. } => Self::AuthorizerFailed { denial, status },
        }
    }
}
