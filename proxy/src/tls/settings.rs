//! How TLS is spoken: version 1.3 only, the post-quantum hybrid first, no resumption, no early data, no key log; and
//! which ALPN names are offered and accepted. Knows nothing of sockets.
//!
//! A resumed session would skip the verifier, so there is no session store, no ticket and no client cache at all.

use std::sync::Arc;

use douane_proto::{
    id::{TrustDomain, WorkloadId},
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
    fault::TlsError,
    provider::provider,
    verify::{Anchors, AnyWorkload, OneWorkload},
};

/// The ALPN name of our own dialect.
pub const ALPN_DOUANE1: &[u8] = b"douane/1";
/// The ALPN name of gRPC, which the control plane speaks.
const ALPN_H2: &[u8] = b"h2";

/// Configurations of one identity: its certificate with its bundle. Made once for each, used by every handshake.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) identity: Arc<Identity>,
    pub(super) aliases: Arc<[TrustDomain]>,
    pub(super) anchors: Arc<Anchors>,
    pub(super) server: Arc<ServerConfig>,
    credentials: Arc<SingleCertAndKey>,
}

impl Settings {
    pub(super) fn new(identity: Arc<Identity>, aliases: Arc<[TrustDomain]>) -> Result<Self, TlsError> {
        let anchors = Arc::new(Anchors::new(Arc::clone(&identity.bundle), Arc::clone(&aliases))?);
        let credentials = Arc::new(credentials(&identity.svid)?);
        let mut server = ServerConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(own)?
            .with_client_cert_verifier(Arc::new(AnyWorkload(Arc::clone(&anchors))))
            .with_cert_resolver(Arc::clone(&credentials) as _);
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.alpn_protocols = offered();
        Ok(Self { identity, aliases, anchors, server: Arc::new(server), credentials })
    }

    /// The configuration of a connection to exactly `expected`.
    pub(super) fn client(&self, expected: &WorkloadId) -> Result<Arc<ClientConfig>, TlsError> {
        let credentials = Some(Arc::clone(&self.credentials));
        client(Arc::clone(&self.anchors), credentials, expected, offered())
    }
}

/// The configuration of a connection to the control plane. Without an SVID only the server is authenticated.
pub(super) fn control_plane(
    bundle: Arc<TrustBundle>,
    svid: Option<&Svid>,
    expected: &WorkloadId,
) -> Result<Arc<ClientConfig>, TlsError> {
    let credentials = svid.map(credentials).transpose()?.map(Arc::new);
    client(Arc::new(Anchors::new(bundle, Arc::default())?), credentials, expected, vec![ALPN_H2.to_vec()])
}

/// What is offered to and accepted from other sidecars, the best first.
fn offered() -> Vec<Vec<u8>> {
    vec![ALPN_DOUANE1.to_vec()]
}

/// Which of our dialects a handshake agreed on. Another dialect joins here and in [`offered`].
pub(super) fn dialect(alpn: Option<&[u8]>) -> Result<&'static [u8], TlsError> {
    match alpn {
        Some(ALPN_DOUANE1) => Ok(ALPN_DOUANE1),
        _ => Err(TlsError::Alpn),
    }
}

fn client(
    anchors: Arc<Anchors>,
    credentials: Option<Arc<SingleCertAndKey>>,
    expected: &WorkloadId,
    alpn: Vec<Vec<u8>>,
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
    config.enable_sni = false;
    config.alpn_protocols = alpn;
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
