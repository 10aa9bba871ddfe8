//! Passports that no authority of this mesh has signed: what a stranger could make at home.

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// A certificate chain and its key, in PEM.
#[derive(Debug)]
pub struct Passport {
    /// The leaf first.
    pub chain: String,
    /// PKCS#8.
    pub key: String,
}

impl Passport {
    /// Both in one text.
    #[must_use]
    pub fn pem(&self) -> String {
        format!("{}{}", self.chain, self.key)
    }
}

/// Names a workload, signed by itself.
///
/// # Errors
/// The name is no URI.
pub fn self_signed(spiffe_id: &str) -> anyhow::Result<Passport> {
    let key = KeyPair::generate()?;
    let leaf = leaf(spiffe_id)?.self_signed(&key).context("sign oneself")?;
    Ok(Passport { chain: leaf.pem(), key: key.serialize_pem() })
}

/// Names a workload, signed by a root of another trust domain.
///
/// # Errors
/// A name is no URI.
pub fn of_trust_domain(trust_domain: &str, spiffe_id: &str) -> anyhow::Result<Passport> {
    let issuer = Issuer::new(root(trust_domain)?, KeyPair::generate()?);
    let key = KeyPair::generate()?;
    let leaf = leaf(spiffe_id)?.signed_by(&key, &issuer).context("sign a leaf")?;
    Ok(Passport { chain: leaf.pem(), key: key.serialize_pem() })
}

fn leaf(spiffe_id: &str) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(spiffe_id.try_into()?)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn root(trust_domain: &str) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust_domain}").try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}
