//! Certificates that carry an identity: what a valid X509-SVID leaf is (X509-SVID 4 and 5), trust bundles, and the
//! pair of both that a sidecar lives by.
//!
//! Knows no keys but as bytes and verifies no signatures: chains are verified in the `tls` rooms, by rustls' own
//! path validation against exactly one bundle. What is checked here is what that validation does not look at.

use std::{fmt, sync::Arc};

use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};
use zeroize::Zeroizing;

use crate::{
    id::{IdError, TrustDomain, WorkloadId, spiffe_id_domain},
    wire,
};

/// Larger leaf certificates are refused unread; ours have about 600 bytes, a post-quantum one under 8 KiB.
const MAX_LEAF_BYTES: usize = 16 * 1024;
/// A bundle of more roots, keys or key identifiers than this is refused (a rotation needs two or three).
const MAX_ROOTS: usize = 32;
/// A key id of ours has 16 characters, and a P-256 key 91 bytes.
const MAX_JWT_KEY_BYTES: usize = 512;
/// A hash of a key has 20 to 64 bytes.
const MAX_KEY_ID_BYTES: usize = 64;

/// What a valid leaf certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Its one URI SAN.
    pub id: WorkloadId,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970.
    pub not_after: i64,
    /// The serial number in hexadecimal, without leading zeros.
    pub serial: String,
}

/// A workload's certificate with its private key.
#[derive(Clone)]
pub struct Svid {
    /// What the leaf says.
    pub leaf: Leaf,
    /// DER: the leaf first, then its intermediates; no root.
    pub chain: Vec<Vec<u8>>,
    /// PKCS#8 DER. Lives in memory only and is wiped when dropped.
    pub key: Arc<Zeroizing<Vec<u8>>>,
}

/// The roots of one trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustBundle {
    /// Whose roots.
    pub trust_domain: TrustDomain,
    /// DER; when empty, nobody of the domain is trusted (Trust Domain and Bundle 4.1).
    pub roots: Vec<Vec<u8>>,
    /// Which history `sequence` counts in.
    pub epoch: u64,
    /// Grows with each change.
    pub sequence: u64,
    /// What JWT-SVIDs of the domain are verified with.
    pub jwt_keys: Vec<JwtKey>,
    /// Subject key identifiers of authorities that sign no more: whoever lives by one of them renews now.
    pub tainted_keys: Vec<Vec<u8>>,
    /// Subject key identifiers of intermediates that vouch for nobody any more.
    pub refused_keys: Vec<Vec<u8>>,
    /// Subject key identifiers of roots that left in order: nobody new is known by them, what runs may run on.
    pub retired_keys: Vec<Vec<u8>>,
}

/// A key that verifies JWT-SVIDs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtKey {
    /// `kid`.
    pub key_id: String,
    /// SubjectPublicKeyInfo, DER; P-256.
    pub spki_der: Vec<u8>,
}

/// Who am I, and whom do I trust: what every handshake reads at the moment of use.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Who am I.
    pub svid: Svid,
    /// Whom do I trust.
    pub bundle: Arc<TrustBundle>,
    /// Counts renewals; a connection of an older generation gets no new stream.
    pub generation: u64,
}

/// Why a certificate is no X509-SVID of a workload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SvidError {
    /// Not a certificate, or one with trailing bytes, or too long.
    #[error("the certificate cannot be parsed: {0}")]
    Malformed(String),
    /// X509-SVID 2: exactly one URI SAN.
    #[error("the certificate has {0} URI names, exactly one is allowed")]
    UriNames(usize),
    /// The URI is not an identity of ours.
    #[error("the certificate's URI name")]
    Id(#[from] IdError),
    /// X509-SVID 4.1, 4.3, 4.4: what a leaf must and must not be.
    #[error("the certificate must not be used as a leaf: {0}")]
    NotALeaf(&'static str),
    /// A chain without any certificate.
    #[error("there is no certificate")]
    Empty,
    /// A bundle with too many roots, or for an impossible trust domain.
    #[error("the trust bundle is invalid: {0}")]
    Bundle(String),
}

impl Leaf {
    /// Reads a leaf certificate by the rules of X509-SVID 4 and 5.2 that path validation does not check.
    ///
    /// # Errors
    /// [`SvidError`]: what is unreadable, duplicated or in doubt is refused.
    pub fn parse(der: &[u8]) -> Result<Self, SvidError> {
        let certificate = leaf(der)?;
        Ok(Self {
            id: uri_name(&certificate)?.parse()?,
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            serial: certificate.tbs_certificate.serial.to_str_radix(16),
        })
    }
}

/// The SPIFFE ID in a leaf certificate, of whatever form its path is: others name their workloads otherwise than we do. The
/// rules for leaves are the same as those of [`Leaf::parse`].
///
/// # Errors
/// [`SvidError`].
pub fn leaf_name(der: &[u8]) -> Result<String, SvidError> {
    let certificate = leaf(der)?;
    let name = uri_name(&certificate)?;
    spiffe_id_domain(name)?;
    Ok(name.to_owned())
}

/// When a certificate ends, seconds since 1970, if it can be read.
#[must_use]
pub fn ends(der: &[u8]) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

fn leaf(der: &[u8]) -> Result<X509Certificate<'_>, SvidError> {
    if der.len() > MAX_LEAF_BYTES {
        return Err(SvidError::Malformed(format!("{} bytes are too many", der.len())));
    }
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(|error| SvidError::Malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(SvidError::Malformed("bytes follow the certificate".to_owned()));
    }
    refuse_unparsed_extensions(&certificate)?;
    refuse_non_leaf(&certificate)?;
    Ok(certificate)
}

impl Svid {
    /// Joins a chain (leaf first) with its private key (PKCS#8 DER).
    ///
    /// # Errors
    /// When the leaf is not a valid one. That the key fits is found out when a TLS configuration is made of it.
    pub fn parse(chain: Vec<Vec<u8>>, key: Zeroizing<Vec<u8>>) -> Result<Self, SvidError> {
        let leaf = Leaf::parse(chain.first().ok_or(SvidError::Empty)?)?;
        Ok(Self { leaf, chain, key: Arc::new(key) })
    }
}

impl fmt::Debug for Svid {
    // Never the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid")
            .field("leaf", &self.leaf)
            .field("chain", &self.chain.len())
            .finish_non_exhaustive()
    }
}

impl TrustBundle {
    /// When its first root ends, seconds since 1970; `None` of an empty one.
    #[must_use]
    pub fn first_end(&self) -> Option<i64> {
        self.roots.iter().filter_map(|root| ends(root)).min()
    }

    /// A bundle of roots alone, the first of its history.
    #[must_use]
    pub fn of_roots(trust_domain: TrustDomain, roots: Vec<Vec<u8>>) -> Self {
        Self {
            trust_domain,
            roots,
            epoch: 1,
            sequence: 1,
            jwt_keys: Vec::new(),
            tainted_keys: Vec::new(),
            refused_keys: Vec::new(),
            retired_keys: Vec::new(),
        }
    }

    /// Where it stands in its history: only a higher place may replace a lower one.
    #[must_use]
    pub fn place(&self) -> (u64, u64) {
        (self.epoch, self.sequence)
    }
}

impl From<&TrustBundle> for wire::TrustBundle {
    fn from(bundle: &TrustBundle) -> Self {
        let jwt_key =
            |key: &JwtKey| wire::JwtKey { key_id: key.key_id.clone(), spki_der: key.spki_der.clone() };
        Self {
            trust_domain: bundle.trust_domain.to_string(),
            roots: bundle.roots.clone(),
            epoch: bundle.epoch,
            sequence: bundle.sequence,
            jwt_keys: bundle.jwt_keys.iter().map(jwt_key).collect(),
            tainted_keys: bundle.tainted_keys.clone(),
            refused_keys: bundle.refused_keys.clone(),
            retired_keys: bundle.retired_keys.clone(),
        }
    }
}

impl TryFrom<wire::TrustBundle> for TrustBundle {
    type Error = SvidError;

    fn try_from(bundle: wire::TrustBundle) -> Result<Self, SvidError> {
        let wrong = |what: String| Err(SvidError::Bundle(what));
        if bundle.roots.len() > MAX_ROOTS {
            return wrong(format!("{} roots are too many", bundle.roots.len()));
        }
        let key_ids = || bundle.tainted_keys.iter().chain(&bundle.refused_keys).chain(&bundle.retired_keys);
        if bundle.jwt_keys.len() > MAX_ROOTS || key_ids().count() > MAX_ROOTS {
            return wrong("it holds too many keys".to_owned());
        }
        if key_ids().any(|id| !(1..=MAX_KEY_ID_BYTES).contains(&id.len())) {
            return wrong("it holds a key identifier that is none".to_owned());
        }
        let trust_domain =
            TrustDomain::parse(&bundle.trust_domain).map_err(|error| SvidError::Bundle(error.to_string()))?;
        Ok(Self {
            trust_domain,
            jwt_keys: bundle.jwt_keys.into_iter().map(JwtKey::try_from).collect::<Result<_, _>>()?,
            roots: bundle.roots,
            epoch: bundle.epoch,
            sequence: bundle.sequence,
            tainted_keys: bundle.tainted_keys,
            refused_keys: bundle.refused_keys,
            retired_keys: bundle.retired_keys,
        })
    }
}

impl TryFrom<wire::JwtKey> for JwtKey {
    type Error = SvidError;

    fn try_from(key: wire::JwtKey) -> Result<Self, SvidError> {
        let fits = |bytes: usize| (1..=MAX_JWT_KEY_BYTES).contains(&bytes);
        if !fits(key.key_id.len()) || !fits(key.spki_der.len()) {
            return Err(SvidError::Bundle(
                "it holds a JWT key without an id, or one that is none".to_owned(),
            ));
        }
        Ok(Self { key_id: key.key_id, spki_der: key.spki_der })
    }
}

/// Who vouches for a certificate: its authority key identifier, if it has one that can be read.
#[must_use]
pub fn authority_key_id(der: &[u8]) -> Option<Vec<u8>> {
    extension(der, |parsed| match parsed {
        ParsedExtension::AuthorityKeyIdentifier(found) => {
            found.key_identifier.as_ref().map(|id| id.0.to_vec())
        }
        _ => None,
    })
}

/// The subject key identifier of a certificate, if it has one that can be read.
#[must_use]
pub fn subject_key_id(der: &[u8]) -> Option<Vec<u8>> {
    extension(der, |parsed| match parsed {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    })
}

fn extension<T>(der: &[u8], wanted: impl Fn(&ParsedExtension<'_>) -> Option<T>) -> Option<T> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    certificate.extensions().iter().find_map(|extension| wanted(extension.parsed_extension()))
}

/// May this certificate act as an issuer: is it a CA whose key usage allows to sign certificates? An intermediate that
/// may not must be kept out of path building, which looks at neither (X509-SVID 4.3).
#[must_use]
pub fn may_issue(der: &[u8]) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return false;
    };
    let is_ca = matches!(certificate.basic_constraints(), Ok(Some(found)) if found.value.ca);
    is_ca && matches!(certificate.key_usage(), Ok(Some(usage)) if usage.value.key_cert_sign())
}

// An extension that is present but unreadable must not count as absent.
fn refuse_unparsed_extensions(certificate: &X509Certificate<'_>) -> Result<(), SvidError> {
    let mut seen = Vec::new();
    for extension in certificate.extensions() {
        if matches!(extension.parsed_extension(), ParsedExtension::ParseError { .. }) {
            return Err(SvidError::Malformed(format!("extension {}", extension.oid)));
        }
        if seen.contains(&&extension.oid) {
            return Err(SvidError::Malformed(format!("extension {} twice", extension.oid)));
        }
        seen.push(&extension.oid);
    }
    Ok(())
}

fn refuse_non_leaf(certificate: &X509Certificate<'_>) -> Result<(), SvidError> {
    let malformed = |error: x509_parser::error::X509Error| SvidError::Malformed(error.to_string());
    if certificate.basic_constraints().map_err(malformed)?.is_some_and(|found| found.value.ca) {
        return Err(SvidError::NotALeaf("it is a CA certificate (4.1)"));
    }
    let Some(usage) = certificate.key_usage().map_err(malformed)? else {
        return Err(SvidError::NotALeaf("it has no key usage (4.3)"));
    };
    if !usage.critical || !usage.value.digital_signature() {
        return Err(SvidError::NotALeaf("its key usage is not critical digitalSignature (4.3)"));
    }
    if usage.value.key_cert_sign() || usage.value.crl_sign() {
        return Err(SvidError::NotALeaf("its key may sign certificates or CRLs (4.3)"));
    }
    match certificate.extended_key_usage().map_err(malformed)? {
        Some(usage) if !(usage.value.server_auth && usage.value.client_auth) => {
            Err(SvidError::NotALeaf("its extended key usage lacks server or client authentication (4.4)"))
        }
        _ => Ok(()),
    }
}

fn uri_name<'a>(certificate: &X509Certificate<'a>) -> Result<&'a str, SvidError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| SvidError::Malformed(error.to_string()))?
        .ok_or(SvidError::UriNames(0))?;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.count()) {
        (Some(uri), 0) => Ok(uri),
        (None, _) => Err(SvidError::UriNames(0)),
        (Some(_), more) => Err(SvidError::UriNames(more + 1)),
    }
}
