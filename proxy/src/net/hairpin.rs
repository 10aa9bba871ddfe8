//! A connection of the pod to itself: from the outbound to the inbound side without leaving the sidecar.
//!
//! A socket to the own address would be exempt from redirection and reach the application with a ClientHello. So the
//! outbound side hands the inbound side one end of a pipe; what travels on it is the dialect that TLS would carry.

use std::net::SocketAddr;

use tokio::{io::DuplexStream, sync::mpsc};

/// The inbound end of a hairpin.
#[derive(Debug)]
pub struct Hairpin {
    /// The bytes of the dialect.
    pub io: DuplexStream,
    /// The pod's own address and port that was asked for.
    pub destination: SocketAddr,
}

/// Where the outbound side hands hairpins in.
#[derive(Debug, Clone)]
pub struct Hairpins(mpsc::Sender<Hairpin>);

// Bytes in flight in each direction.
const PIPE: usize = 64 * 1024;
// Connections handed over but not yet taken.
const WAITING: usize = 64;

/// The two ends of the way from outbound to inbound.
#[must_use]
pub fn channel() -> (Hairpins, mpsc::Receiver<Hairpin>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Hairpins(sender), receiver)
}

impl Hairpins {
    /// Opens a connection to the own `destination`; `None` when the inbound side has ended.
    pub async fn open(&self, destination: SocketAddr) -> Option<DuplexStream> {
        let (ours, io) = tokio::io::duplex(PIPE);
        self.0.send(Hairpin { io, destination }).await.ok()?;
        Some(ours)
    }
}
