//! How TLS is spoken: version 1.3 only, the post-quantum hybrid first, no resumption, no early data, no key log; and
//! which ALPN names are offered and accepted. Knows nothing of sockets.
//!
//! A resumed session would skip the verifier, so there is no session store, no ticket and no client cache at all.

use std::sync::Arc;

use douane_proto::{
    id::WorkloadId,
    svid::{Identity, Svid, TrustBundle},
};
use rustls::{
    ClientConfig, ServerConfig,
    client::Resumption,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::NoServerSessionStorage,
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};

use super::{
    beyond::Beyond,
    fault::TlsError,
    provider::provider,
    verify::{Anchors, AnyWorkload, OneWorkload},
};

/// The ALPN name of our own dialect.
pub(super) const ALPN_DOUANE1: &[u8] = b"douane/1";
/// Istio's names: HTTP/1.1, HTTP/2, and anything else.
const ALPN_ISTIO_HTTP1: &[u8] = b"istio-http/1.1";
const ALPN_ISTIO_H2: &[u8] = b"istio-h2";
const ALPN_ISTIO: &[u8] = b"istio";
/// The ALPN name of gRPC, which the control plane speaks.
const ALPN_H2: &[u8] = b"h2";

/// What is accepted, the best first. A client that offers none of them, such as `istio-peer-exchange` alone (whose preamble
/// nobody here speaks), is refused; one that offers nothing at all is not.
const ACCEPTED: &[(&[u8], Alpn)] = &[
    (ALPN_DOUANE1, Alpn::Douane1),
    (ALPN_ISTIO_H2, Alpn::Http2),
    (ALPN_ISTIO_HTTP1, Alpn::Http1),
    (b"istio-http/1.0", Alpn::Http1),
    (ALPN_ISTIO, Alpn::Unsaid),
    (ALPN_H2, Alpn::Http2),
    (b"http/1.1", Alpn::Http1),
];

/// How bytes are framed on a session, as its handshake agreed. It never says which law applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// `douane/1`.
    Douane1,
    /// HTTP/1.0 and 1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Bytes; what they are, they tell themselves.
    Unsaid,
}

/// What is offered to a peer. Whoever answers `douane/1` is spoken to in our own dialect, whatever else was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Offer {
    /// Our own dialect and no other.
    Douane1,
    /// HTTP/1.1 as Istio's sidecars speak it, also to peers of our own: the class of connections that keep what the
    /// dialect's streams do not.
    Http1Alone,
    /// Ours, or Istio's for HTTP/1.1.
    Http1,
    /// Ours, or Istio's for HTTP/2.
    Http2,
    /// Ours, or Istio's for bytes.
    Opaque,
}

impl Offer {
    fn names(self) -> &'static [&'static [u8]] {
        match self {
            Self::Douane1 => &[ALPN_DOUANE1],
            Self::Http1Alone => &[ALPN_ISTIO_HTTP1],
            Self::Http1 => &[ALPN_DOUANE1, ALPN_ISTIO_HTTP1],
            Self::Http2 => &[ALPN_DOUANE1, ALPN_ISTIO_H2],
            Self::Opaque => &[ALPN_DOUANE1, ALPN_ISTIO],
        }
    }

    /// What a peer's choice of these names means. Istio's sidecars recognize their own names and choose none; they
    /// heed what was offered.
    pub(super) fn agreed(self, chosen: Option<&[u8]>) -> Result<Alpn, TlsError> {
        match (self, chosen) {
            (_, Some(ALPN_DOUANE1)) => Ok(Alpn::Douane1),
            (Self::Http1 | Self::Http1Alone, None | Some(ALPN_ISTIO_HTTP1)) => Ok(Alpn::Http1),
            (Self::Http2, None | Some(ALPN_ISTIO_H2)) => Ok(Alpn::Http2),
            (Self::Opaque, None | Some(ALPN_ISTIO)) => Ok(Alpn::Unsaid),
            _ => Err(TlsError::Alpn),
        }
    }
}

/// What a client's names led to. rustls refuses names of which we know none.
pub(super) fn accepted(chosen: Option<&[u8]>) -> Result<Alpn, TlsError> {
    let Some(chosen) = chosen else { return Ok(Alpn::Unsaid) };
    let known = ACCEPTED.iter().find(|(name, _)| *name == chosen);
    known.map(|(_, alpn)| *alpn).ok_or(TlsError::Alpn)
}

/// Configurations of one identity: its certificate with its bundle. Made once for each, used by every handshake.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) identity: Arc<Identity>,
    pub(super) beyond: Beyond,
    pub(super) anchors: Arc<Anchors>,
    pub(super) server: Arc<ServerConfig>,
    credentials: Arc<SingleCertAndKey>,
}

impl Settings {
    pub(super) fn new(identity: Arc<Identity>, beyond: Beyond) -> Result<Self, TlsError> {
        let anchors = Arc::new(Anchors::new(Arc::clone(&identity.bundle), beyond.clone())?);
        let credentials = Arc::new(credentials(&identity.svid)?);
        let mut server = ServerConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(own)?
            .with_client_cert_verifier(Arc::new(AnyWorkload(Arc::clone(&anchors))))
            .with_cert_resolver(Arc::clone(&credentials) as _);
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.alpn_protocols = ACCEPTED.iter().map(|(name, _)| name.to_vec()).collect();
        Ok(Self { identity, beyond, anchors, server: Arc::new(server), credentials })
    }

    /// The configuration of a connection to exactly `expected`.
    pub(super) fn client(&self, expected: &WorkloadId, offer: Offer) -> Result<Arc<ClientConfig>, TlsError> {
        let credentials = Some(Arc::clone(&self.credentials));
        client(Arc::clone(&self.anchors), credentials, expected, offer.names())
    }
}

/// The configuration of a connection to the control plane. Without an SVID only the server is authenticated.
pub(super) fn control_plane(
    bundle: Arc<TrustBundle>,
    svid: Option<&Svid>,
    expected: &WorkloadId,
) -> Result<Arc<ClientConfig>, TlsError> {
    let credentials = svid.map(credentials).transpose()?.map(Arc::new);
    client(Arc::new(Anchors::new(bundle, Beyond::default())?), credentials, expected, &[ALPN_H2])
}

fn client(
    anchors: Arc<Anchors>,
    credentials: Option<Arc<SingleCertAndKey>>,
    expected: &WorkloadId,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(own)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(OneWorkload { anchors, expected: expected.clone() }));
    let mut config = match credentials {
        Some(credentials) => builder.with_client_cert_resolver(credentials),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

fn credentials(svid: &Svid) -> Result<SingleCertAndKey, TlsError> {
    // Borrowed: the key is not copied on its way to the provider.
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(svid.key.as_slice()));
    let key = aws_lc_rs::sign::any_supported_type(&der).map_err(own)?;
    let chain = svid.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().map_err(own)?;
    Ok(certified.into())
}

#[expect(clippy::needless_pass_by_value, reason = "an error handler takes the error")]
fn own(error: rustls::Error) -> TlsError {
    TlsError::Own(error.to_string())
}
