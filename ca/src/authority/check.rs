//! The last look at a certificate before it leaves: parsed again, by another parser than the one that wrote it, and
//! held against the list of what an issued X509-SVID must be (X509-SVID 2 to 4, RFC 5280).
//!
//! Knows not how it was made (`sign`). A failure here is a bug of ours, and costs a refusal instead of a wrong identity.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ParsedPublicKey};
use douane_proto::{
    id::{TrustDomain, WorkloadId},
    svid::Leaf,
};
use x509_parser::{
    oid_registry::OID_SIG_ECDSA_WITH_SHA256,
    prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate},
};

/// RFC 5280 4.1.2.2 allows 20 bytes; we use 16 random ones, of which the encoding adds one or leaves out leading zeros:
/// so many that fewer than 64 bits are left never come by chance.
const SERIAL_BYTES: std::ops::RangeInclusive<usize> = 9..=17;
/// Subject alternative name, basic constraints, key usage, extended key usage, and both key identifiers.
const EXTENSIONS: usize = 6;

/// What the certificate was meant to be.
pub(crate) struct Expected<'a> {
    pub(crate) id: &'a WorkloadId,
    pub(crate) dns_names: &'a [String],
    /// SubjectPublicKeyInfo, DER.
    pub(crate) spki: &'a [u8],
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
    /// Who signed it.
    pub(crate) signer: &'a Voucher,
}

/// What of a signer's certificate its leaves are held against: read once, for many.
pub(crate) struct Voucher {
    subject: Vec<u8>,
    key_id: Option<Vec<u8>>,
    not_after: i64,
    key: ParsedPublicKey,
}

impl Voucher {
    /// Of a certificate (DER) with a P-256 key, as all that sign leaves have.
    pub(crate) fn of(der: &[u8]) -> Result<Self, &'static str> {
        let (_, signer) = X509Certificate::from_der(der).map_err(|_| "its signer cannot be parsed")?;
        let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, signer.public_key().raw)
            .map_err(|_| "its signer's key is not P-256")?;
        Ok(Self {
            subject: signer.subject().as_raw().to_vec(),
            key_id: subject_key_id(&signer).map(<[u8]>::to_vec),
            not_after: signer.validity().not_after.timestamp(),
            key,
        })
    }

    // Both places name the algorithm (RFC 5280 4.1.1.2).
    fn signed(&self, leaf: &X509Certificate<'_>) -> bool {
        let named = [&leaf.signature_algorithm, &leaf.tbs_certificate.signature];
        named.iter().all(|one| one.algorithm == OID_SIG_ECDSA_WITH_SHA256)
            && self.key.verify_sig(leaf.tbs_certificate.as_ref(), &leaf.signature_value.data).is_ok()
    }
}

/// Is `der` exactly that? Otherwise the rule that it breaks.
pub(crate) fn leaf(der: &[u8], expected: &Expected<'_>) -> Result<(), &'static str> {
    let said = Leaf::parse(der).map_err(|_| "a sidecar would refuse it")?;
    let (_, leaf) = X509Certificate::from_der(der).map_err(|_| "it cannot be parsed")?;
    let signer = expected.signer;

    ensure(said.id == *expected.id, "its identity is not the attested one")?;
    ensure(
        said.not_before == expected.not_before && said.not_after == expected.not_after,
        "its validity is not the wanted one",
    )?;
    ensure(said.not_before < said.not_after && said.not_after <= signer.not_after, "it outlives its signer")?;
    ensure(leaf.version().0 == 2, "it is not X.509 v3")?;
    ensure(leaf.public_key().raw == expected.spki, "its key is not the one of the request")?;
    ensure(leaf.issuer().as_raw() == signer.subject, "its issuer is not its signer")?;
    ensure(signer.signed(&leaf), "its signature is wrong")?;
    ensure(leaf.subject().iter().next().is_none(), "its subject is not empty")?;
    ensure(SERIAL_BYTES.contains(&leaf.raw_serial().len()), "its serial number is too short or too long")?;
    ensure(leaf.raw_serial().iter().any(|byte| *byte != 0), "its serial number is zero")?;
    names(&leaf, expected.dns_names)?;
    constraints(&leaf)?;
    key_identifiers(&leaf, signer)?;
    // Each of the six was found: so there is no other.
    ensure(leaf.extensions().len() == EXTENSIONS, "it has an extension that nobody asked for")
}

/// Is `der` an authority of `trust_domain` that `issuer` signed, as X509-SVID 2 to 4 and RFC 5280 want it, with exactly
/// this path length?
pub(crate) fn signer(
    der: &[u8],
    issuer: &[u8],
    trust_domain: &TrustDomain,
    path_length: Option<u32>,
) -> Result<(), &'static str> {
    let (_, own) = X509Certificate::from_der(der).map_err(|_| "it cannot be parsed")?;
    let (_, issuer) = X509Certificate::from_der(issuer).map_err(|_| "its signer cannot be parsed")?;
    ensure(own.version().0 == 2, "it is not X.509 v3")?;
    ensure(own.issuer().as_raw() == issuer.subject().as_raw(), "its issuer is not its signer")?;
    ensure(own.verify_signature(Some(issuer.public_key())).is_ok(), "its signature is wrong")?;
    ensure(own.validity().not_after <= issuer.validity().not_after, "it outlives its signer")?;
    ensure(own.subject().iter_common_name().count() == 1, "its subject names no authority")?;
    ensure(SERIAL_BYTES.contains(&own.raw_serial().len()), "its serial number is too long")?;
    let basic = own.basic_constraints().ok().flatten().ok_or("it has no basic constraints")?;
    ensure(basic.critical && basic.value.ca, "its basic constraints are not critical CA:TRUE")?;
    ensure(basic.value.path_len_constraint == path_length, "its path length is not the wanted one")?;
    let usage = own.key_usage().ok().flatten().ok_or("it has no key usage")?;
    let (certificates, lists) = (usage.value.key_cert_sign(), usage.value.crl_sign());
    // Bits 5 and 6 alone.
    ensure(
        usage.critical && certificates && lists && usage.value.flags == 0b110_0000,
        "its key usage is not critical keyCertSign and cRLSign alone",
    )?;
    let names = own.subject_alternative_name().ok().flatten().ok_or("it has no SPIFFE ID")?;
    let wanted = format!("spiffe://{trust_domain}");
    let is_domain = matches!(names.value.general_names.as_slice(), [GeneralName::URI(uri)] if *uri == wanted);
    ensure(is_domain, "its SPIFFE ID is not the trust domain's alone")?;
    ensure(own.name_constraints().is_ok_and(|found| found.is_none()), "it has name constraints")?;
    ensure(subject_key_id(&own).is_some_and(|id| !id.is_empty()), "it has no subject key identifier")?;
    let is_root = own.subject().as_raw() == own.issuer().as_raw();
    ensure(
        is_root || authority_key_id(&own) == subject_key_id(&issuer),
        "its authority key identifier is not its signer's",
    )
}

/// Is the first of `chain` an intermediate with the key `spki` that somebody else has signed, and does each of them follow
/// from the next, the last from the self-signed `root`, all valid `now`, so that sidecars will accept it?
pub(crate) fn vouched(
    (chain, root): (&[Vec<u8>], &[u8]),
    spki: &[u8],
    trust_domain: &TrustDomain,
    now: i64,
) -> Result<(), &'static str> {
    let Some(first) = chain.first() else { return Err("there is no certificate") };
    let (_, own) = X509Certificate::from_der(first).map_err(|_| "it cannot be parsed")?;
    ensure(own.public_key().raw == spki, "its key is not the one of our request")?;
    let (_, top) = X509Certificate::from_der(root).map_err(|_| "its root cannot be parsed")?;
    ensure(
        top.subject().as_raw() == top.issuer().as_raw(),
        "its root is not self-signed; give the whole chain",
    )?;
    let issuers = chain.iter().skip(1).map(Vec::as_slice).chain([root]);
    for (der, issuer) in chain.iter().map(Vec::as_slice).chain([root]).zip(issuers.chain([root])) {
        let (_, below) =
            X509Certificate::from_der(der).map_err(|_| "a certificate of its chain cannot be parsed")?;
        let (_, above) = X509Certificate::from_der(issuer).map_err(|_| "its chain cannot be parsed")?;
        ensure(below.issuer().as_raw() == above.subject().as_raw(), "its chain does not lead to its root")?;
        ensure(
            below.verify_signature(Some(above.public_key())).is_ok(),
            "a signature of its chain is wrong",
        )?;
        may_vouch(&below, trust_domain, now)?;
    }
    Ok(())
}

// Of an authority that others have made, what sidecars demand: less than of our own.
fn may_vouch(
    certificate: &X509Certificate<'_>,
    trust_domain: &TrustDomain,
    now: i64,
) -> Result<(), &'static str> {
    let validity = certificate.validity();
    let is_valid = validity.not_before.timestamp() <= now && now < validity.not_after.timestamp();
    ensure(is_valid, "a certificate of its chain is not valid now")?;
    let basic = certificate.basic_constraints().ok().flatten();
    ensure(
        basic.is_some_and(|basic| basic.value.ca),
        "a certificate of its chain is no authority (CA:TRUE)",
    )?;
    let usage = certificate.key_usage().ok().flatten();
    ensure(
        usage.is_some_and(|usage| usage.value.key_cert_sign()),
        "a certificate of its chain may not sign certificates",
    )?;
    ensure(
        certificate.name_constraints().is_ok_and(|found| found.is_none()),
        "a certificate of its chain has name constraints, which verifiers do not take together with SPIFFE IDs",
    )?;
    ensure(
        subject_key_id(certificate).is_some_and(|id| !id.is_empty()),
        "a certificate of its chain has no subject key identifier",
    )?;
    let names = certificate.subject_alternative_name().map_err(|_| "its names cannot be read")?;
    let wanted = format!("spiffe://{trust_domain}");
    let is_ours = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => *uri == wanted,
        _ => true,
    };
    let all_ours = names.is_none_or(|names| names.value.general_names.iter().all(is_ours));
    ensure(all_ours, "a certificate of its chain has a URI that is not our trust domain's SPIFFE ID")
}

// Exactly one URI is demanded by `Leaf::parse`; here, that nothing but the wanted DNS names stands beside it.
fn names(leaf: &X509Certificate<'_>, dns_names: &[String]) -> Result<(), &'static str> {
    let names = leaf.subject_alternative_name().ok().flatten().ok_or("it has no names")?;
    ensure(names.critical, "its names are not critical although its subject is empty")?;
    let mut dns = Vec::new();
    for name in &names.value.general_names {
        match name {
            GeneralName::URI(_) => {}
            GeneralName::DNSName(name) => dns.push(*name),
            _ => return Err("it has a name that nobody asked for"),
        }
    }
    ensure(dns == dns_names, "its DNS names are not the wanted ones")
}

fn constraints(leaf: &X509Certificate<'_>) -> Result<(), &'static str> {
    let basic = leaf.basic_constraints().ok().flatten().ok_or("it has no basic constraints")?;
    ensure(basic.critical && !basic.value.ca, "its basic constraints are not critical CA:FALSE")?;
    let usage = leaf.key_usage().ok().flatten().ok_or("it has no key usage")?;
    // Bit 0 alone: digitalSignature.
    ensure(usage.critical && usage.value.flags == 1, "its key usage is not critical digitalSignature alone")?;
    let purposes = leaf.extended_key_usage().ok().flatten().ok_or("it has no extended key usage")?;
    let purposes = purposes.value;
    let others = purposes.any
        || purposes.code_signing
        || purposes.email_protection
        || purposes.time_stamping
        || purposes.ocsp_signing;
    ensure(
        purposes.server_auth && purposes.client_auth && !others && purposes.other.is_empty(),
        "its extended key usage is not server and client authentication alone",
    )
}

fn key_identifiers(leaf: &X509Certificate<'_>, signer: &Voucher) -> Result<(), &'static str> {
    let own = subject_key_id(leaf).ok_or("it has no subject key identifier")?;
    ensure(!own.is_empty(), "its subject key identifier is empty")?;
    let authority = authority_key_id(leaf);
    ensure(authority.is_some(), "it has no authority key identifier")?;
    ensure(authority == signer.key_id.as_deref(), "its authority key identifier is not its signer's")
}

fn authority_key_id<'a>(certificate: &X509Certificate<'a>) -> Option<&'a [u8]> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(found) => found.key_identifier.as_ref().map(|id| id.0),
        _ => None,
    })
}

/// The subject key identifier of a certificate.
pub(crate) fn subject_key_id<'a>(certificate: &X509Certificate<'a>) -> Option<&'a [u8]> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    })
}

fn ensure(holds: bool, otherwise: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(otherwise) }
}
