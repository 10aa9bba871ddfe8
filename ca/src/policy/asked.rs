//! What is asked of a workload, and what becomes of it: the words that tests, questions and comparisons share.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use douane_proto::{
    id::{TrustDomain, WorkloadId},
    law::LawSettings,
    policy::Answer,
    target::PathNormalization,
};
use http::Version;

/// Where a request comes from that does not say (RFC 5737: an address for documentation).
pub const SOMEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// The settings of the mesh.
#[derive(Debug, Clone)]
pub struct Mesh {
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// Other names of it.
    pub aliases: Vec<TrustDomain>,
    /// How paths are normalized.
    pub normalization: PathNormalization,
    /// Whose laws count everywhere, what holds without any, and whom CUSTOM policies may ask.
    pub law: LawSettings,
}

/// A workload.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Its namespace.
    pub namespace: String,
    /// Its labels, by which policies select it.
    pub labels: BTreeMap<String, String>,
    /// Its service account.
    pub service_account: String,
    /// Its port that is asked.
    pub port: u16,
    /// What is spoken there.
    pub protocol: Protocol,
}

/// What is spoken on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// gRPC over HTTP/2.
    Grpc,
    /// Bytes that nobody looks at.
    Tcp,
}

/// Who asks, from where, for what.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The identity of the peer's certificate; `None`: it speaks plaintext.
    pub peer: Option<WorkloadId>,
    /// The direct peer's address.
    pub source: IpAddr,
    /// The client's address, as trusted proxies would tell it.
    pub remote: IpAddr,
    /// The workload's address and port.
    pub destination: SocketAddr,
    /// The server name of the handshake.
    pub sni: Option<String>,
    /// The head of the request; `None` for an opaque connection.
    pub head: Option<Head>,
    /// What an external authorizer says when it is asked; `None`: it cannot be reached.
    pub ext_authz: Option<Answer>,
}

/// The head of a request as a client sends it; nothing of it was checked.
#[derive(Debug, Clone)]
pub struct Head {
    /// HTTP/1.1 or HTTP/2.
    pub version: Version,
    /// The method.
    pub method: String,
    /// `Host` of HTTP/1, `:authority` of HTTP/2; `None`: there is none.
    pub host: Option<String>,
    /// Path and query, or the absolute form.
    pub target: String,
    /// All other headers in order.
    pub headers: Vec<(String, String)>,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The application receives it.
    Allow,
    /// 403; a closed connection where HTTP is not spoken, or where it was refused before.
    Deny,
    /// 401: its token is not valid.
    Unauthorized,
    /// 400: it is not one that can be decided on.
    BadRequest,
}

impl Protocol {
    /// The version of HTTP that is spoken, if it is HTTP.
    #[must_use]
    pub fn version(self) -> Option<Version> {
        match self {
            Self::Http => Some(Version::HTTP_11),
            Self::Grpc => Some(Version::HTTP_2),
            Self::Tcp => None,
        }
    }
}

impl Verdict {
    /// As case files write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Unauthorized => "401",
            Self::BadRequest => "400",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
