//! The check of a server that is known by its X509-SVID: its leaf is one of exactly this SPIFFE ID, and a path leads from it
//! to one of the roots that were given and to nothing else. Knows nothing of sockets; host names are not looked at.

use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use super::error::TlsError;
use douane_proto::svid;

/// Longer chains are nobody's.
const MAX_INTERMEDIATES: usize = 8;

/// Verifies one server.
#[derive(Debug)]
pub(super) struct KnownServer {
    roots: RootCertStore,
    id: String,
    algorithms: WebPkiSupportedAlgorithms,
}

impl KnownServer {
    pub(super) fn new(
        given: &[Vec<u8>],
        id: &str,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for root in given {
            roots.add(CertificateDer::from_slice(root))?;
        }
        if roots.is_empty() {
            return Err(TlsError::NoRoots);
        }
        Ok(Self { roots, id: id.to_owned(), algorithms })
    }
}

impl ServerCertVerifier for KnownServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let name = svid::leaf_name(end_entity).map_err(|error| Error::General(error.to_string()))?;
        if name != self.id {
            return Err(Error::General(format!("the server is {name}, and {} was expected", self.id)));
        }
        if intermediates.len() > MAX_INTERMEDIATES {
            return Err(CertificateError::UnknownIssuer.into());
        }
        // webpki does not look at key usage: without this any certificate with CA:TRUE could sign leaves.
        let issuers: Vec<_> =
            intermediates.iter().filter(|certificate| svid::may_issue(certificate)).cloned().collect();
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.roots,
            &issuers,
            now,
            self.algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
