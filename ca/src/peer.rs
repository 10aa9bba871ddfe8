//! Who is at the other end of a connection, as the handshake or the kernel proved it. Made by `tls`, read by the services.

use std::{fmt, net::SocketAddr};

use douane_proto::id::WorkloadId;

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Where it comes from.
    pub from: Origin,
    /// What its certificate proved; `None` when it showed none.
    pub id: Option<WorkloadId>,
    /// The certificate that proved it.
    pub certificate: Option<Shown>,
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The network: an address, which proves nothing.
    Network(SocketAddr),
    /// A process of this machine, whose user the kernel vouches for.
    Process {
        /// The user.
        uid: u32,
        /// The process; for the log, since numbers are given anew.
        pid: Option<i32>,
    },
}

/// What is remembered of a certificate that was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Hexadecimal.
    pub serial: String,
    /// Seconds since 1970.
    pub not_after: i64,
}

impl Peer {
    /// Somebody from the network who has shown nothing.
    #[must_use]
    pub fn stranger(address: SocketAddr) -> Self {
        Self { from: Origin::Network(address), id: None, certificate: None }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(address) => address.fmt(f),
            Self::Process { uid, pid: Some(pid) } => write!(f, "unix:uid={uid},pid={pid}"),
            Self::Process { uid, pid: None } => write!(f, "unix:uid={uid}"),
        }
    }
}
