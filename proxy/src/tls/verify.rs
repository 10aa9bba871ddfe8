//! The one check of a peer, the same on both ends: its leaf is an X509-SVID of our trust domain (or of one of its other
//! names) or of one that is federated with, a path leads from it to a root of that domain's own bundle (and of nothing else)
//! now, and on the connecting side it is exactly who was expected. Knows nothing of sockets; no name but the leaf's one URI is looked at, neither DNS names nor SNI.

use std::{borrow::Cow, sync::Arc};

use douane_proto::{
    bundle::ForeignBundle,
    id::{TrustDomain, WorkloadId},
    svid::{self, Leaf, TrustBundle},
};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::{
    beyond::Beyond,
    fault::{MAX_INTERMEDIATES, PeerFault, TlsError},
    provider::provider,
};

/// The roots that a peer's path must end in.
#[derive(Debug)]
pub(super) struct Anchors {
    bundle: Arc<TrustBundle>,
    beyond: Beyond,
    roots: RootCertStore,
    // In the order of `beyond.federated`.
    foreign: Vec<Vec<ForeignRoot>>,
}

// A root of another trust domain, and when it ends, seconds since 1970. Ours are taken away by our own authority; of another
// domain's, whose endpoint may have fallen silent, nobody tells us.
#[derive(Debug)]
struct ForeignRoot {
    anchor: TrustAnchor<'static>,
    ends: i64,
}

impl Anchors {
    /// Reads the bundles' roots; one that cannot be read spoils its bundle: of our own there are no anchors then, of another
    /// trust domain nobody is believed.
    pub(super) fn new(bundle: Arc<TrustBundle>, beyond: Beyond) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for der in &bundle.roots {
            roots
                .add(CertificateDer::from_slice(der))
                .map_err(|error| TlsError::Own(format!("a root of the trust bundle: {error}")))?;
        }
        let foreign = beyond.federated.iter().map(foreign_roots).collect();
        Ok(Self { bundle, beyond, roots, foreign })
    }

    /// Is `leaf` an X509-SVID that a root of this bundle vouches for at `now`?
    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Leaf, Error> {
        let parsed = Leaf::parse(leaf).map_err(PeerFault::from)?;
        let Some((domain, roots)) = self.roots_of(parsed.id.trust_domain(), now) else {
            return Err(
                PeerFault::TrustDomain { id: parsed.id, ours: self.bundle.trust_domain.clone() }.into()
            );
        };
        if roots.is_empty() {
            return Err(PeerFault::NobodyTrusted(domain.clone()).into());
        }
        if intermediates.len() > MAX_INTERMEDIATES {
            return Err(PeerFault::TooManyIntermediates(intermediates.len()).into());
        }
        // webpki does not look at key usage: without this a leaf could sign leaves.
        let issuers: Vec<_> = intermediates
            .iter()
            .filter(|certificate| svid::may_issue(certificate) && !self.is_refused(certificate))
            .cloned()
            .collect();
        // Named after servers, but the path rules are the same for clients: an SVID's extended key usage, where there
        // is one, must name both purposes (checked by `Leaf::parse`).
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(leaf)?,
            &roots,
            &issuers,
            now,
            provider().signature_verification_algorithms.all,
        )?;
        Ok(parsed)
    }

    // The roots that vouch for a trust domain, and for nobody else: ours never vouch for another, nor another's for us.
    fn roots_of(
        &self,
        domain: &TrustDomain,
        now: UnixTime,
    ) -> Option<(&TrustDomain, Cow<'_, RootCertStore>)> {
        if self.is_ours(domain) {
            return Some((&self.bundle.trust_domain, Cow::Borrowed(&self.roots)));
        }
        let mut all = self.beyond.federated.iter().zip(&self.foreign);
        let (bundle, roots) = all.find(|(bundle, _)| bundle.trust_domain == *domain)?;
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let lasting = roots.iter().filter(|root| root.ends > now).map(|root| root.anchor.clone());
        Some((&bundle.trust_domain, Cow::Owned(RootCertStore { roots: lasting.collect() })))
    }

    // An intermediate whose key is known to others was signed by a root of ours, and must vouch for nobody all the same.
    fn is_refused(&self, intermediate: &CertificateDer<'_>) -> bool {
        let refused = &self.bundle.refused_keys;
        !refused.is_empty() && svid::subject_key_id(intermediate).is_none_or(|id| refused.contains(&id))
    }

    fn is_ours(&self, domain: &TrustDomain) -> bool {
        *domain == self.bundle.trust_domain || self.beyond.aliases.contains(domain)
    }

    // The same workload under another name of its trust domain is the same one.
    fn is_same(&self, expected: &WorkloadId, actual: &WorkloadId) -> bool {
        expected == actual
            || self.is_ours(expected.trust_domain())
                && self.is_ours(actual.trust_domain())
                && (expected.namespace(), expected.service_account())
                    == (actual.namespace(), actual.service_account())
    }
}

// What cannot be read of another trust domain's bundle costs that domain its trust, and us nothing.
fn foreign_roots(bundle: &ForeignBundle) -> Vec<ForeignRoot> {
    let mut read = RootCertStore::empty();
    let mut roots = Vec::with_capacity(bundle.roots.len());
    for der in &bundle.roots {
        let added = read.add(CertificateDer::from_slice(der));
        let (Ok(()), Some(anchor), Some(ends)) = (&added, read.roots.pop(), svid::ends(der)) else {
            let (domain, error) = (&bundle.trust_domain, added.err());
            tracing::error!(%domain, ?error, "a root of a federated trust domain cannot be read: nobody of it is believed");
            return Vec::new();
        };
        roots.push(ForeignRoot { anchor, ends });
    }
    roots
}

/// Verifies clients: any workload of a trust domain that is believed; the decision says later what it may do.
#[derive(Debug)]
pub(super) struct AnyWorkload(pub(super) Arc<Anchors>);

/// Verifies a server: exactly one workload will do.
#[derive(Debug)]
pub(super) struct OneWorkload {
    pub(super) anchors: Arc<Anchors>,
    pub(super) expected: WorkloadId,
}

impl ClientCertVerifier for AnyWorkload {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.0.verify(end_entity, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for OneWorkload {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let leaf = self.anchors.verify(end_entity, intermediates, now)?;
        if !self.anchors.is_same(&self.expected, &leaf.id) {
            return Err(PeerFault::Unexpected { expected: self.expected.clone(), actual: leaf.id }.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

fn verify_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    rustls::crypto::verify_tls13_signature(
        message,
        certificate,
        signature,
        &provider().signature_verification_algorithms,
    )
}

// Only TLS 1.3 is offered and accepted, so rustls never asks.
fn no_tls12() -> Error {
    Error::General("TLS 1.2 is not spoken".to_owned())
}
