//! The rows of the profile (X509-SVID 2 to 4, RFC 5280), one by one: a certificate that breaks one of them does not leave,
//! whoever made it. And the traps of the library that makes ours.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType, SerialNumber,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{NOW, at, authority, csr, web};
use crate::authority::check::{self, Expected};

const HOUR: i64 = 3600;

fn now() -> i64 {
    i64::try_from(NOW).unwrap()
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

// As ours are, before somebody changes it.
fn good() -> CertificateParams {
    let mut params = CertificateParams::default();
    let start = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = start + std::time::Duration::from_secs(NOW - 60);
    params.not_after = start + std::time::Duration::from_secs(NOW + 3600);
    params.serial_number = Some(SerialNumber::from_slice(&[7; 16]));
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri("spiffe://cluster.local/ns/shop/sa/web")];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params
}

// What the last look says of a leaf that was changed so.
fn verdict(change: impl FnOnce(&mut CertificateParams)) -> Result<(), &'static str> {
    let mut signer = good();
    signer.distinguished_name.push(DnType::CommonName, "an authority");
    signer.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    signer.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let signer_key = KeyPair::generate().unwrap();
    let certificate = signer.self_signed(&signer_key).unwrap().der().to_vec();
    let issuer = Issuer::new(signer, signer_key);

    let (mut params, key) = (good(), KeyPair::generate().unwrap());
    change(&mut params);
    let leaf = params.signed_by(&key, &issuer).unwrap().der().to_vec();
    let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
    let expected = Expected {
        id: &web(),
        dns_names: &[],
        spki: &spki,
        not_before: now() - 60,
        not_after: now() + HOUR,
        signer: &check::Voucher::of(&certificate).unwrap(),
    };
    check::leaf(&leaf, &expected)
}

#[test]
fn a_certificate_that_keeps_every_row_leaves() {
    assert_eq!(verdict(|_| {}), Ok(()));
}

#[test]
fn x1_a_leaf_has_exactly_one_uri_and_no_name_that_nobody_asked_for() {
    verdict(|leaf| leaf.subject_alt_names.push(uri("spiffe://cluster.local/ns/shop/sa/web"))).unwrap_err();
    verdict(|leaf| leaf.subject_alt_names = vec![SanType::DnsName("web".try_into().unwrap())]).unwrap_err();
    verdict(|leaf| leaf.subject_alt_names.push(SanType::DnsName("web".try_into().unwrap()))).unwrap_err();
    verdict(|leaf| leaf.subject_alt_names.push(SanType::IpAddress([10, 0, 0, 1].into()))).unwrap_err();
}

#[test]
fn x2_a_leaf_has_the_attested_path_and_never_the_root_of_a_domain() {
    for other in [
        "spiffe://cluster.local",
        "spiffe://cluster.local/",
        "spiffe://cluster.local/ns/shop/sa/orders",
        "spiffe://other/ns/shop/sa/web",
    ] {
        verdict(|leaf| leaf.subject_alt_names = vec![uri(other)]).unwrap_err();
    }
}

#[test]
fn x3_a_subject_is_empty_and_the_names_are_then_critical() {
    let said = verdict(|leaf| leaf.distinguished_name.push(DnType::CommonName, "web"));
    // With a subject the library writes names that are not critical: either of both is a fault.
    assert!(said.unwrap_err().contains("subject") || said.unwrap_err().contains("critical"), "{said:?}");
}

#[test]
fn x4_a_leaf_says_that_it_is_no_authority() {
    verdict(|leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)).unwrap_err();
    assert!(verdict(|leaf| leaf.is_ca = IsCa::NoCa).unwrap_err().contains("basic constraints"));
}

#[test]
fn x5_a_leafs_key_signs_handshakes_and_nothing_else() {
    verdict(|leaf| leaf.key_usages.clear()).unwrap_err();
    for more in [
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::ContentCommitment,
    ] {
        verdict(|leaf| leaf.key_usages.push(more)).unwrap_err();
    }
}

#[test]
fn x6_a_leaf_is_for_servers_and_clients_and_nothing_else() {
    verdict(|leaf| leaf.extended_key_usages.clear()).unwrap_err();
    verdict(|leaf| leaf.extended_key_usages.truncate(1)).unwrap_err();
    verdict(|leaf| leaf.extended_key_usages.push(ExtendedKeyUsagePurpose::CodeSigning)).unwrap_err();
    verdict(|leaf| leaf.extended_key_usages.push(ExtendedKeyUsagePurpose::Any)).unwrap_err();
}

#[test]
fn x7_no_name_constraints_and_no_other_extension_than_ours() {
    verdict(|leaf| {
        leaf.custom_extensions
            .push(CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999], vec![5, 0]));
    })
    .unwrap_err();
    verdict(|leaf| {
        leaf.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("local".to_owned())],
            excluded_subtrees: Vec::new(),
        });
        leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    })
    .unwrap_err();
    let (_home, authority) = authority();
    let issued = authority.issue(&csr(&KeyPair::generate().unwrap()), &web(), None, at(NOW)).unwrap();
    for certificate in &issued.chain {
        let (_, parsed) = X509Certificate::from_der(certificate).unwrap();
        assert!(parsed.name_constraints().unwrap().is_none());
    }
}

#[test]
fn x8_a_leaf_has_a_long_random_serial_number_and_names_its_key_and_its_signer() {
    for short in [&[1_u8][..], &[1; 7], &[1; 18]] {
        verdict(|leaf| leaf.serial_number = Some(SerialNumber::from_slice(short))).unwrap_err();
    }
    assert!(verdict(|leaf| leaf.use_authority_key_identifier_extension = false).is_err());
    verdict(|leaf| leaf.not_after -= std::time::Duration::from_secs(1)).unwrap_err();
    verdict(|leaf| leaf.not_before -= std::time::Duration::from_secs(1)).unwrap_err();
}

#[test]
fn trap_1_nothing_but_the_key_of_a_request_is_copied() {
    let (_home, authority) = authority();
    let mut wishes = good();
    wishes.distinguished_name.push(DnType::CommonName, "evil");
    wishes.subject_alt_names.push(SanType::DnsName("evil.example".try_into().unwrap()));
    wishes.subject_alt_names.push(uri("spiffe://cluster.local/ns/kube-system/sa/admin"));
    wishes.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    wishes.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    // A request cannot ask for these two.
    (wishes.is_ca, wishes.use_authority_key_identifier_extension) = (IsCa::NoCa, false);
    wishes.serial_number = None;
    let key = KeyPair::generate().unwrap();
    let request = wishes.serialize_request(&key).unwrap().der().to_vec();
    let issued = authority.issue(&request, &web(), None, at(NOW)).unwrap();
    let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
    assert_eq!(leaf.subject().iter().count(), 0);
    assert_eq!(leaf.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 1);
    assert!(!leaf.key_usage().unwrap().unwrap().value.key_cert_sign());
}

#[test]
fn trap_3_extensions_that_nobody_knows_cost_a_request_nothing() {
    let (_home, authority) = authority();
    let mut wishes = CertificateParams::default();
    // A subject key identifier, as many tools write one, and one that nobody knows.
    wishes.custom_extensions = vec![
        CustomExtension::from_oid_content(&[2, 5, 29, 14], vec![4, 4, 1, 2, 3, 4]),
        CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999], vec![5, 0]),
    ];
    let key = KeyPair::generate().unwrap();
    let request = wishes.serialize_request(&key).unwrap().der().to_vec();
    authority.issue(&request, &web(), None, at(NOW)).unwrap();
}

#[test]
fn trap_5_no_default_of_the_library_is_in_a_certificate() {
    let (_home, authority) = authority();
    let issued = authority.issue(&csr(&KeyPair::generate().unwrap()), &web(), None, at(NOW)).unwrap();
    for certificate in &issued.chain {
        let (_, parsed) = X509Certificate::from_der(certificate).unwrap();
        assert!(!parsed.subject().to_string().contains("rcgen"));
        let years = (parsed.validity().not_after.timestamp() - now()) / (365 * 24 * HOUR);
        assert!(years < 20 && parsed.validity().not_before.timestamp() > now() - 2 * HOUR);
    }
}
