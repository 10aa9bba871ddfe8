//! A public key, an identity and a lifetime become a certificate. Pure: the time is an argument, nothing is stored.
//!
//! Every field is built from nothing (a request's own wishes never reach this file), and every leaf passes `check`
//! before it is returned. Knows not who asked (`attest`), nor which signer is in use (`authority/mod.rs`).

use std::time::Duration;

use douane_proto::id::{TrustDomain, WorkloadId};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm,
    SigningKey, string::Ia5String,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{authority::check, config::LEAF_LIFE};

/// What the ids of older versions' authorities stood behind.
const OLD_PREFIXES: [&str; 2] = ["douane root ", "douane intermediate "];
/// Clocks of sidecars may be this much behind ours; of a short life at most a fifth.
const BACKDATE: Duration = Duration::from_secs(60);
/// The last second of the year 9999, where X.509 time ends.
const END_OF_TIME: i64 = 253_402_300_799;

/// A certificate that signs others, with its key.
pub(crate) struct Signer {
    issuer: Issuer<'static, Key>,
    /// Unique; the common name in its subject.
    pub(crate) id: String,
    /// Subject key identifier.
    pub(crate) key_id: Vec<u8>,
    /// DER.
    pub(crate) certificate: Vec<u8>,
    /// Seconds since 1970.
    pub(crate) not_before: i64,
    /// Seconds since 1970.
    pub(crate) not_after: i64,
    // What its leaves are held against; an error where it can have none.
    voucher: Result<check::Voucher, &'static str>,
}

/// A private key that is wiped when it is dropped.
pub(crate) struct Key(KeyPair);

/// What is to be signed.
pub(crate) struct Order<'a> {
    pub(crate) id: &'a WorkloadId,
    pub(crate) dns_names: &'a [String],
    pub(crate) lifetime: Duration,
}

/// What is asked of whoever signs elsewhere.
#[derive(Debug, Clone)]
pub struct Petition {
    /// PKCS#10, DER: subject, SPIFFE ID of the trust domain and key of the intermediate.
    pub csr: Vec<u8>,
    /// The common name in its subject.
    pub id: String,
    /// Whose identities it will sign.
    pub trust_domain: TrustDomain,
    /// How long it should live.
    pub life: Duration,
    /// Seconds since 1970.
    pub now: i64,
}

/// A signed leaf.
#[derive(Debug, Clone)]
pub(crate) struct SignedLeaf {
    /// DER.
    pub(crate) certificate: Vec<u8>,
    /// In hexadecimal, as logs name it.
    pub(crate) serial: String,
    /// Seconds since 1970.
    pub(crate) not_after: i64,
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The clock says a time that no certificate can have.
    #[error("the time {0} cannot be written into a certificate")]
    Time(i64),
    /// The signer ends within the shortest leaf's life.
    #[error("the authority's own certificate ends in {0} s")]
    SignerEnds(i64),
    /// A name that no certificate can carry.
    #[error("the name {0:?} cannot be written into a certificate")]
    Name(String),
    /// An identity that is not ours to give.
    #[error("{0} is not of the trust domain whose identities are signed here")]
    OtherDomain(Box<WorkloadId>),
    /// The library refused.
    #[error("making a certificate failed")]
    Library(#[from] rcgen::Error),
    /// The result broke a rule, and was thrown away.
    #[error("the certificate was wrong and was thrown away: {0}")]
    Check(&'static str),
    /// The disk does not take the end of what would be signed.
    #[error("the end of the certificate could not be written down")]
    Disk(#[from] std::io::Error),
    /// Another replica leads, and what it has written could not be read for a while.
    #[error("the shared state could not be read for some seconds: nothing is signed until it can be")]
    Stale,
    /// Whoever signs our intermediates does not.
    #[error("no intermediate from elsewhere: {0}")]
    Elsewhere(String),
    /// It signs below another root than before.
    #[error("whoever signs our intermediates has another root now")]
    OtherRoot(Vec<u8>),
    /// What it signed cannot be used.
    #[error("the intermediate that was signed elsewhere cannot be used: {0}")]
    Vouched(&'static str),
    /// A stored signer that is none.
    #[error("the stored signer is invalid: {0}")]
    Stored(&'static str),
}

impl Signer {
    /// A fresh root with a fresh P-256 key.
    pub(crate) fn root(trust_domain: &TrustDomain, life: Duration, now: i64) -> Result<Self, SignError> {
        let key = Key(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?);
        let id = new_id();
        let mut params = authority_params(trust_domain, &id)?;
        set_validity(&mut params, now - seconds(BACKDATE), now + seconds(life))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key)?.der().to_vec();
        check::signer(&certificate, &certificate, trust_domain, None).map_err(SignError::Check)?;
        Self::new(id, certificate, Issuer::new(params, key))
    }

    /// A fresh intermediate below this root, which may sign leaves only.
    pub(crate) fn intermediate(
        &self,
        trust_domain: &TrustDomain,
        life: Duration,
        now: i64,
    ) -> Result<Self, SignError> {
        let key = Key(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?);
        let id = new_id();
        let certificate = self.vouch(&key, &id, (trust_domain, life, now))?;
        let issuer = Issuer::from_ca_cert_der(&certificate.as_slice().into(), key)?;
        Self::new(id, certificate, issuer)
    }

    /// A certificate for somebody's intermediate with this key and id.
    pub(crate) fn vouch(
        &self,
        key: &impl PublicKeyData,
        id: &str,
        (trust_domain, life, now): (&TrustDomain, Duration, i64),
    ) -> Result<Vec<u8>, SignError> {
        let life = seconds(life).min(self.remaining(now)?);
        let mut params = authority_params(trust_domain, id)?;
        set_validity(&mut params, now - seconds(BACKDATE), now + life)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(key, &self.issuer)?.der().to_vec();
        check::signer(&certificate, &self.certificate, trust_domain, Some(0)).map_err(SignError::Check)?;
        Ok(certificate)
    }

    /// A key for an intermediate, and the request to have it signed elsewhere.
    pub(crate) fn petition(
        trust_domain: &TrustDomain,
        life: Duration,
        now: i64,
    ) -> Result<(Petition, Key), SignError> {
        let key = Key(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?);
        let id = new_id();
        // Whoever signs chooses the serial number.
        let mut params = authority_params(trust_domain, &id)?;
        params.serial_number = None;
        let csr = params.serialize_request(&key)?.der().to_vec();
        Ok((Petition { csr, id, trust_domain: trust_domain.clone(), life, now }, key))
    }

    /// The intermediate that somebody else has signed, if it is one that we can use.
    pub(crate) fn vouched(
        petition: &Petition,
        key: Key,
        (chain, root): (&[Vec<u8>], &[u8]),
    ) -> Result<Self, SignError> {
        let spki = key.subject_public_key_info();
        check::vouched((chain, root), &spki, &petition.trust_domain, petition.now)
            .map_err(SignError::Vouched)?;
        let certificate = chain.first().cloned().unwrap_or_default();
        let issuer = Issuer::from_ca_cert_der(&certificate.as_slice().into(), key)?;
        Self::new(petition.id.clone(), certificate, issuer)
    }

    /// A signer that somebody gave us: its certificate (DER), of whatever subject, and its key in PEM.
    pub(crate) fn given(certificate: Vec<u8>, key_pem: &str) -> Result<Self, SignError> {
        let key = Key(KeyPair::from_pem(key_pem)?);
        let (_, parsed) = X509Certificate::from_der(&certificate)
            .map_err(|_| SignError::Stored("its certificate cannot be parsed"))?;
        if parsed.public_key().raw != key.0.subject_public_key_info() {
            return Err(SignError::Stored("its key is not the one of its certificate"));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate.as_slice().into(), key)?;
        Self::new(String::new(), certificate, issuer)
    }

    /// A signer from storage: its certificate (DER) and its key (PKCS#8 DER), which must fit together.
    pub(crate) fn restore(
        certificate: Vec<u8>,
        key: &[u8],
        trust_domain: &TrustDomain,
    ) -> Result<Self, SignError> {
        let key = Key(KeyPair::from_pkcs8_der_and_sign_algo(&key.into(), &rcgen::PKCS_ECDSA_P256_SHA256)?);
        let (rest, parsed) = X509Certificate::from_der(&certificate)
            .map_err(|_| SignError::Stored("its certificate cannot be parsed"))?;
        if !rest.is_empty() {
            return Err(SignError::Stored("bytes follow its certificate"));
        }
        if parsed.public_key().raw != key.0.subject_public_key_info() {
            return Err(SignError::Stored("its key is not the one of its certificate"));
        }
        if parsed.verify_signature(None).is_err() {
            return Err(SignError::Stored("its certificate is not signed by its key"));
        }
        if !parsed.is_ca() {
            return Err(SignError::Stored("its certificate may not sign others"));
        }
        if !is_of(&parsed, trust_domain) {
            return Err(SignError::Stored("it is of another trust domain than the configured one"));
        }
        let (id, params) = restored_params(&parsed)?;
        Self::new(id, certificate, Issuer::new(params, key))
    }

    fn new(id: String, certificate: Vec<u8>, issuer: Issuer<'static, Key>) -> Result<Self, SignError> {
        let (_, parsed) =
            X509Certificate::from_der(&certificate).map_err(|_| SignError::Check("it cannot be parsed"))?;
        let key_id =
            check::subject_key_id(&parsed).ok_or(SignError::Check("it has no key identifier"))?.to_vec();
        let validity = parsed.validity();
        let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        let voucher = check::Voucher::of(&certificate);
        Ok(Self { issuer, id, key_id, certificate, not_before, not_after, voucher })
    }

    /// The middle of its life, seconds since 1970.
    pub(crate) fn half_life(&self) -> i64 {
        self.not_before + (self.not_after - self.not_before) / 2
    }

    /// The private key, PKCS#8 DER, for whoever stores it.
    pub(crate) fn key_der(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.issuer.key().0.serialize_der())
    }

    /// Signs a leaf for `key`.
    ///
    /// # Errors
    /// [`SignError`]; a certificate that breaks a rule of the profile is one, and does not leave.
    pub(crate) fn leaf(
        &self,
        key: &impl PublicKeyData,
        order: &Order<'_>,
        now: i64,
    ) -> Result<SignedLeaf, SignError> {
        let wanted = order.lifetime.clamp(*LEAF_LIFE.start(), *LEAF_LIFE.end());
        let life = seconds(wanted).min(self.remaining(now)?);
        let not_before = now - seconds(BACKDATE).min(life / 5);
        let not_after = now + life;
        let serial: [u8; 16] = rand::random();

        let mut params = CertificateParams::default();
        set_validity(&mut params, not_before, not_after)?;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = leaf_names(order)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(key, &self.issuer)?.der().to_vec();

        let spki = key.subject_public_key_info();
        let expected = check::Expected {
            id: order.id,
            dns_names: order.dns_names,
            spki: &spki,
            not_before,
            not_after,
            signer: self.voucher.as_ref().map_err(|broken| SignError::Stored(broken))?,
        };
        check::leaf(&certificate, &expected).map_err(SignError::Check)?;
        Ok(SignedLeaf { certificate, serial: crate::hex::encode(&serial), not_after })
    }

    // Seconds that what is signed now may live; an error when they are too few for the shortest leaf.
    fn remaining(&self, now: i64) -> Result<i64, SignError> {
        let remaining = self.not_after - now;
        if remaining < seconds(*LEAF_LIFE.start()) {
            return Err(SignError::SignerEnds(remaining));
        }
        Ok(remaining)
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

fn leaf_names(order: &Order<'_>) -> Result<Vec<SanType>, SignError> {
    let uri = order.id.to_string();
    let mut names = vec![SanType::URI(ia5(&uri)?)];
    for name in order.dns_names {
        names.push(SanType::DnsName(ia5(name)?));
    }
    Ok(names)
}

// Random: path builders that try every root of one name become slow otherwise.
fn new_id() -> String {
    crate::hex::encode(&rand::random::<[u8; 8]>())
}

// What root and intermediate have in common.
fn authority_params(trust_domain: &TrustDomain, id: &str) -> Result<CertificateParams, SignError> {
    let mut params = named(trust_domain.as_str(), id);
    params.serial_number = Some(SerialNumber::from_slice(&rand::random::<[u8; 16]>()));
    params.subject_alt_names = vec![SanType::URI(ia5(&format!("spiffe://{trust_domain}"))?)];
    Ok(params)
}

// rcgen needs of an issuer its name and its key identifier.
fn restored_params(parsed: &X509Certificate<'_>) -> Result<(String, CertificateParams), SignError> {
    let subject = parsed.subject();
    let organization = subject.iter_organization().next().and_then(|name| name.as_str().ok());
    let common = subject.iter_common_name().next().and_then(|name| name.as_str().ok());
    let (Some(organization), Some(common)) = (organization, common) else {
        return Err(SignError::Stored("its subject is not one of ours"));
    };
    let key_id =
        check::subject_key_id(parsed).ok_or(SignError::Stored("it has no subject key identifier"))?;
    let mut params = named(organization, common);
    params.key_identifier_method = KeyIdMethod::PreSpecified(key_id.to_vec());
    let id = OLD_PREFIXES.iter().find_map(|prefix| common.strip_prefix(prefix)).unwrap_or(common);
    Ok((id.to_owned(), params))
}

fn named(organization: &str, common: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.distinguished_name.push(DnType::CommonName, common);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn is_of(parsed: &X509Certificate<'_>, trust_domain: &TrustDomain) -> bool {
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return false };
    let wanted = format!("spiffe://{trust_domain}");
    matches!(names.value.general_names.as_slice(), [GeneralName::URI(uri)] if *uri == wanted)
}

/// The beginning and the end of a certificate's life, seconds since 1970.
pub(crate) fn validity(der: &[u8]) -> Result<(i64, i64), SignError> {
    let (_, parsed) =
        X509Certificate::from_der(der).map_err(|_| SignError::Stored("its certificate cannot be parsed"))?;
    Ok((parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp()))
}

fn ia5(text: &str) -> Result<Ia5String, SignError> {
    Ia5String::try_from(text).map_err(|_| SignError::Name(text.to_owned()))
}

fn set_validity(params: &mut CertificateParams, not_before: i64, not_after: i64) -> Result<(), SignError> {
    let since = |unix: i64| {
        let valid = u64::try_from(unix).ok().filter(|_| unix <= END_OF_TIME);
        valid.map(Duration::from_secs).ok_or(SignError::Time(unix))
    };
    let start = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = start + since(not_before)?;
    params.not_after = start + since(not_after)?;
    Ok(())
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}
