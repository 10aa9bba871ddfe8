//! TLS towards others: where token keys and others' bundles are fetched from.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    client::Resumption,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
    version::{TLS12, TLS13},
};
use tokio_rustls::TlsConnector;

use super::{error::TlsError, known_server::KnownServer};

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
    connector(named(trusted)?, &[&TLS13])
}

/// Dials the servers of others' bundles, which are known as on the web: by certificates that `trusted`, a PEM file, or this
/// system vouches for. They may speak TLS 1.2 (SPIFFE Federation 5: intermediate compatibility).
///
/// # Errors
/// When nobody is trusted.
pub fn web_connector(trusted: Option<&Path>) -> Result<TlsConnector, TlsError> {
    let roots = match trusted {
        Some(path) => named(path)?,
        None => of_the_system().ok_or(TlsError::NoCertificate)?,
    };
    connector(roots, &[&TLS13, &TLS12])
}

/// Dials a server that is known by its X509-SVID: exactly `id`, by one of these roots of its trust domain and nothing else.
///
/// # Errors
/// When a root cannot be used, or there is none.
pub fn spiffe_connector(roots: &[Vec<u8>], id: &str) -> Result<TlsConnector, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = KnownServer::new(roots, id, provider.signature_verification_algorithms)?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Dials `https` servers that this system trusts; `None` where it trusts nobody. Odd certificates among those of a system
/// are passed over, as others do.
#[must_use]
pub fn system_connector() -> Option<TlsConnector> {
    connector(of_the_system()?, &[&TLS13]).ok()
}

fn of_the_system() -> Option<RootCertStore> {
    let text = SYSTEM.iter().find_map(|path| std::fs::read(path).ok())?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&text).flatten());
    Some(roots)
}

fn named(path: &Path) -> Result<RootCertStore, TlsError> {
    let text = std::fs::read(path)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        roots.add(certificate.map_err(|_| TlsError::NoCertificate)?)?;
    }
    Ok(roots)
}

fn connector(
    roots: RootCertStore,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<TlsConnector, TlsError> {
    if roots.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
