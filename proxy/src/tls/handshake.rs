//! From a connected socket to a verified peer. Knows nothing of what the stream carries then.

use std::{future::poll_fn, sync::Arc, time::Duration};

use douane_proto::{
    id::WorkloadId,
    svid::{Leaf, TrustBundle},
};
use rustls::{
    ClientConnection, Connection, ProtocolVersion, ServerConnection,
    pki_types::{ServerName, UnixTime},
};
use tokio::{net::TcpStream, time::Instant};

use super::{
    beyond::Beyond,
    fault::{PeerFault, TlsError},
    settings::{Alpn, Offer, Settings, accepted},
    stream::TlsStream,
    wire::Wire,
};

/// The label under which it is derived.
const BINDING: &[u8] = b"EXPORTER-douane-binding";

/// What a handshake established.
#[derive(Debug, Clone)]
pub struct Session {
    /// The verified peer.
    pub peer: WorkloadId,
    /// Ours, of the generation used.
    pub local: WorkloadId,
    /// When the peer's leaf ends, seconds since 1970.
    pub peer_not_after: i64,
    /// The generation of our identity that was used.
    pub generation: u64,
    /// `TLSv1.3`.
    pub version: &'static str,
    /// The key exchange group, such as `X25519MLKEM768`.
    pub group: Arc<str>,
    /// What both ends derive from the session and nobody else can (RFC 8446 7.5): equal at both ends, another for each.
    pub binding: u64,
    /// The server name that the client sent.
    pub sni: Option<Arc<str>>,
    /// How its bytes are framed.
    pub alpn: Alpn,
    /// The peer's certificates, DER, the leaf first.
    pub chain: Arc<[Vec<u8>]>,
    /// When they were verified, seconds since 1970.
    pub verified_at: u64,
    /// The bundle that vouched for them.
    pub bundle: Arc<TrustBundle>,
    /// Who else was believed then.
    pub beyond: Beyond,
}

impl Session {
    /// When the peer's leaf ends. The session takes no new stream from then on: what it proved holds no longer.
    #[must_use]
    pub fn peer_expires(&self) -> Instant {
        let left = u64::try_from(self.peer_not_after).unwrap_or(0).saturating_sub(UnixTime::now().as_secs());
        let now = Instant::now();
        now.checked_add(Duration::from_secs(left)).unwrap_or(now)
    }
}

/// Server side; `first` was already read.
pub(super) async fn accept(
    io: TcpStream,
    first: &[u8],
    settings: &Settings,
) -> Result<(TlsStream, Session), TlsError> {
    let connection = ServerConnection::new(Arc::clone(&settings.server))?;
    let shaken = shake(io, first, connection.into()).await?;
    let alpn = accepted(shaken.connection().alpn_protocol())?;
    established(shaken, alpn, settings)
}

/// What a client says in its hello.
#[derive(Debug, Clone, Copy)]
pub struct Greeting<'a> {
    /// Names of protocols.
    pub offer: Offer,
    /// A server name: told to the peer, never looked at to know it.
    pub server_name: Option<&'a str>,
}

/// Client side.
pub(super) async fn connect(
    io: TcpStream,
    settings: &Settings,
    expected: &WorkloadId,
    greeting: Greeting<'_>,
) -> Result<(TlsStream, Session), TlsError> {
    let named = greeting.server_name.and_then(|name| ServerName::try_from(name.to_owned()).ok());
    let name = match named {
        Some(name) => name,
        // For an address rustls sends no server name: the peer is known by its SPIFFE ID alone.
        None => ServerName::from(io.peer_addr()?.ip()),
    };
    let connection = ClientConnection::new(settings.client(expected, greeting.offer)?, name)?;
    let shaken = shake(io, &[], connection.into()).await?;
    let alpn = greeting.offer.agreed(shaken.connection().alpn_protocol())?;
    established(shaken, alpn, settings)
}

async fn shake(io: TcpStream, first: &[u8], connection: Connection) -> Result<Wire, TlsError> {
    let mut wire = Wire::new(io, connection);
    wire.begin_with(first)?;
    poll_fn(|cx| wire.poll_handshake(cx)).await?;
    Ok(wire)
}

fn established(wire: Wire, alpn: Alpn, settings: &Settings) -> Result<(TlsStream, Session), TlsError> {
    let session = session(wire.connection(), alpn, settings)?;
    Ok((TlsStream::new(wire), session))
}

fn session(connection: &Connection, alpn: Alpn, settings: &Settings) -> Result<Session, TlsError> {
    let certificates = connection.peer_certificates().ok_or(PeerFault::Missing)?;
    let leaf = Leaf::parse(certificates.first().ok_or(PeerFault::Missing)?).map_err(PeerFault::from)?;
    Ok(Session {
        peer: leaf.id,
        local: settings.identity.svid.leaf.id.clone(),
        peer_not_after: leaf.not_after,
        generation: settings.identity.generation,
        version: version(connection)?,
        group: connection
            .negotiated_key_exchange_group()
            .map(|group| format!("{:?}", group.name()).into())
            .unwrap_or_default(),
        binding: binding(connection)?,
        sni: match connection {
            Connection::Server(server) => server.server_name().map(Arc::from),
            Connection::Client(_) => None,
        },
        alpn,
        chain: certificates.iter().map(|certificate| certificate.to_vec()).collect(),
        verified_at: UnixTime::now().as_secs(),
        bundle: Arc::clone(&settings.identity.bundle),
        beyond: settings.beyond.clone(),
    })
}

fn binding(connection: &Connection) -> Result<u64, TlsError> {
    let bytes = connection.export_keying_material([0; 8], BINDING, None)?;
    Ok(u64::from_be_bytes(bytes))
}

fn version(connection: &Connection) -> Result<&'static str, TlsError> {
    match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => Ok("TLSv1.3"),
        other => Err(TlsError::Protocol(format!("{other:?} was agreed on"))),
    }
}
