//! The one check of a client: its leaf is an X509-SVID of the bundle's trust domain, and a path leads from it to a root
//! of that bundle and of nothing else. Knows nothing of sockets.

use std::sync::Arc;

use douane_proto::svid::{self, Leaf, TrustBundle};
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::error::TlsError;

// The verifier has seen the same bytes and accepted them.
pub(super) fn proven(chain: Option<&[CertificateDer<'_>]>) -> Result<Option<Leaf>, rustls::Error> {
    let Some(leaf) = chain.and_then(<[_]>::first) else { return Ok(None) };
    Leaf::parse(leaf).map(Some).map_err(|error| rustls::Error::General(error.to_string()))
}

/// Verifies a client's chain against the roots of exactly one trust domain, and its leaf by the SPIFFE rules.
#[derive(Debug)]
pub(super) struct SpiffeClients {
    bundle: TrustBundle,
    paths: Arc<dyn ClientCertVerifier>,
}

impl SpiffeClients {
    pub(super) fn new(bundle: &TrustBundle, provider: Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for root in &bundle.roots {
            roots.add(CertificateDer::from(root.clone()))?;
        }
        let paths = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .allow_unauthenticated()
            .clear_root_hint_subjects()
            .build()?;
        Ok(Self { bundle: bundle.clone(), paths })
    }
}

impl ClientCertVerifier for SpiffeClients {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let leaf = Leaf::parse(end_entity).map_err(|error| rustls::Error::General(error.to_string()))?;
        // The roots of one domain say nothing about another (X509-SVID 5.1).
        if *leaf.id.trust_domain() != self.bundle.trust_domain {
            return Err(rustls::CertificateError::UnknownIssuer.into());
        }
        // webpki does not look at key usage: without this any certificate with CA:TRUE could sign leaves.
        let issuers: Vec<_> =
            intermediates.iter().filter(|certificate| svid::may_issue(certificate)).cloned().collect();
        self.paths.verify_client_cert(end_entity, &issuers, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.paths.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.paths.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.paths.supported_verify_schemes()
    }
}
