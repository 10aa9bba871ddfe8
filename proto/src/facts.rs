//! What a decision is made on: who asks, from where, for what. Made once for each request or opaque stream and kept
//! with it, so that the same facts can be decided again when the law changes.
//!
//! Knows not where the facts come from (`proxy/inbound`), nor what is decided (see [`crate::policy`]).

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::{HeaderMap, Method};

use crate::{id::WorkloadId, jwt::Claims, target::Target};

/// Who asks, from where, for what.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The identity that the peer proved; `None` when it proved none.
    pub peer: Option<WorkloadId>,
    /// The address of the direct peer.
    pub source: IpAddr,
    /// The address of the client: the direct peer's, or what as many trusted proxies as the mesh names say of it.
    pub remote: IpAddr,
    /// The workload's own address and port that was asked for.
    pub destination: SocketAddr,
    /// The server name of the TLS handshake.
    pub sni: Option<String>,
    /// The HTTP request; `None` for an opaque stream.
    pub request: Option<RequestFacts>,
}

/// The part of a request that a policy can see.
#[derive(Debug, Clone)]
pub struct RequestFacts {
    /// Its method.
    pub method: Method,
    /// Host and normalized path, exactly as they are sent on.
    pub target: Target,
    /// Its headers after hop-by-hop and reserved ones were removed, tokens that are not forwarded were taken out, and
    /// headers that authentication sets were set.
    pub headers: HeaderMap,
    /// The token that verified; see [`crate::authentication`].
    pub token: Option<Token>,
}

/// A token that verified, as policies see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// What it claims.
    pub claims: Claims,
    /// Claims of these names are lists of words (besides `scope` and `permission`).
    pub spaced: Arc<[String]>,
}
