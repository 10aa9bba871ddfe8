//! How TLS is spoken at the bundle endpoint: without a client's certificate, and in version 1.2 as well, since endpoints must
//! be reached by whatever meets Mozilla's intermediate compatibility (SPIFFE Federation 5). No other listener speaks it.
//!
//! Knows not whose certificate is shown.

use std::sync::Arc;

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::NoServerSessionStorage,
    version::{TLS12, TLS13},
};

use super::error::TlsError;

/// Of rustls' own suites all meet the intermediate compatibility: forward secrecy and authenticated encryption only.
pub(super) fn endpoint_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Somebody comes once a minute: there is nothing to gain by remembering them.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
