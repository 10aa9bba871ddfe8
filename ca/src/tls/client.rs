//! TLS towards others: where token keys are fetched from.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
    version::TLS13,
};
use tokio_rustls::TlsConnector;

use super::error::TlsError;

/// Where systems keep the certificates that they trust: Debian and Alpine, Fedora, SUSE, others.
const SYSTEM: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Dials `https` servers whose certificates the PEM file at `trusted` vouches for: where token keys are fetched from.
///
/// # Errors
/// When the file cannot be read or holds no certificate.
pub fn https_connector(trusted: &Path) -> Result<TlsConnector, TlsError> {
    let text = std::fs::read(trusted)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        roots.add(certificate.map_err(|_| TlsError::NoCertificate)?)?;
    }
    connector(roots)
}

/// Dials `https` servers that this system trusts; `None` where it trusts nobody. Odd certificates among those of a system
/// are passed over, as others do.
#[must_use]
pub fn system_connector() -> Option<TlsConnector> {
    let text = SYSTEM.iter().find_map(|path| std::fs::read(path).ok())?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&text).flatten());
    connector(roots).ok()
}

fn connector(roots: RootCertStore) -> Result<TlsConnector, TlsError> {
    if roots.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
