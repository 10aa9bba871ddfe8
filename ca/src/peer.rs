//! Who is at the other end of a connection, as the handshake proved it. Made by `tls`, read by the services.

use std::net::SocketAddr;

use douane_proto::id::WorkloadId;

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Where it comes from; proves nothing.
    pub address: SocketAddr,
    /// What its certificate proved; `None` when it showed none.
    pub id: Option<WorkloadId>,
}
