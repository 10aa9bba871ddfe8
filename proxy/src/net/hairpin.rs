//! A connection of the pod to itself: from the outbound to the inbound side without leaving the sidecar.
//!
//! A socket to the own address would be exempt from redirection and reach the application with a ClientHello. So the
//! outbound side hands the inbound side one end of a pipe; what travels on it is the dialect that TLS would carry.

use std::net::SocketAddr;

use tokio::sync::mpsc;

use crate::net::pipe::{Pipe, pipe};

/// The inbound end of a hairpin.
#[derive(Debug)]
pub struct Hairpin {
    /// The bytes of the dialect.
    pub io: Pipe,
    /// The pod's own address and port that was asked for.
    pub destination: SocketAddr,
    /// What it carries.
    pub load: Load,
}

/// What a hairpin carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// The streams of our dialect.
    Streams,
    /// One request in HTTP/1.1 that wants to switch protocols.
    Http1,
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
    pub async fn open(&self, destination: SocketAddr, load: Load) -> Option<Pipe> {
        let (ours, io) = pipe(PIPE);
        self.0.send(Hairpin { io, destination, load }).await.ok()?;
        Some(ours)
    }
}
