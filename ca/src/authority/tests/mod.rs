//! What hostile requests, a wrong clock and a damaged state folder get: never a wrong certificate, never a new root.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use douane_proto::{
    id::{TrustDomain, WorkloadId},
    svid::Leaf,
};
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, RsaKeySize, SanType,
    SignatureAlgorithm,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Authority, CsrError, IssueError, OpenError, Setup, SignError};
use crate::state::{StateError, StateFolder};

mod crash;
mod explorer;
mod given;
mod killed;
mod replicas;
mod rotation;
mod rows;
mod shelf;
mod state;

const NOW: u64 = 1_800_000_000;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").unwrap()
}

fn web() -> WorkloadId {
    WorkloadId::new(&domain(), "shop", "web").unwrap()
}

fn open(folder: &Path) -> Result<Authority, OpenError> {
    Authority::open(&StateFolder::new(folder), &domain(), Duration::from_secs(3600), at(NOW))
}

fn authority() -> (tempfile::TempDir, Authority) {
    let home = tempfile::tempdir().unwrap();
    let authority = open(&home.path().join("state")).unwrap();
    (home, authority)
}

fn csr(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

fn key(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

fn refusal(authority: &Authority, csr: &[u8]) -> CsrError {
    match authority.issue(csr, &web(), None, at(NOW)) {
        Err(IssueError::Csr(error)) => error,
        other => panic!("expected a refusal of the request, got {other:?}"),
    }
}

#[test]
fn every_allowed_kind_of_key_is_signed_as_it_is() {
    let (_home, authority) = authority();
    let keys = [
        key(&rcgen::PKCS_ECDSA_P256_SHA256),
        key(&rcgen::PKCS_ECDSA_P384_SHA384),
        key(&rcgen::PKCS_ED25519),
        KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap(),
    ];
    for key in keys {
        let issued = authority.issue(&csr(&key), &web(), None, at(NOW)).unwrap();
        let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
        assert_eq!(leaf.public_key().raw, rcgen::PublicKeyData::subject_public_key_info(&key));
        assert_eq!(leaf.validity().not_after.timestamp(), issued.not_after);
    }
}

#[test]
fn a_request_for_a_ca_gets_a_leaf_with_the_attested_name() {
    let (_home, authority) = authority();
    let key = key(&rcgen::PKCS_ECDSA_P256_SHA256);
    let mut wishes = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    wishes.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    wishes.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    for name in ["spiffe://cluster.local/ns/kube-system/sa/admin", "spiffe://other/ns/a/sa/b"] {
        wishes.subject_alt_names.push(SanType::URI(name.try_into().unwrap()));
    }
    let csr = wishes.serialize_request(&key).map(|csr| csr.der().to_vec());
    // rcgen refuses to write some of these wishes; a request without them is wish enough.
    let csr = csr.unwrap_or_else(|_| {
        wishes.is_ca = IsCa::NoCa;
        wishes.key_usages.clear();
        wishes.serialize_request(&key).unwrap().der().to_vec()
    });
    let issued = authority.issue(&csr, &web(), None, at(NOW)).unwrap();
    assert_eq!(Leaf::parse(&issued.chain[0]).unwrap().id, web());
}

#[test]
fn hostile_requests_are_refused() {
    let (_home, authority) = authority();
    assert_eq!(refusal(&authority, &[]), CsrError::Malformed);
    assert_eq!(refusal(&authority, &[0x30; 100]), CsrError::Malformed);
    assert_eq!(refusal(&authority, &vec![0x30; 9 * 1024]), CsrError::TooLong(9 * 1024));

    let honest = csr(&key(&rcgen::PKCS_ECDSA_P256_SHA256));
    let mut trailing = honest.clone();
    trailing.push(0);
    assert_eq!(refusal(&authority, &trailing), CsrError::Malformed);
    // Another signature of the same shape: the last byte lies within it.
    let mut unproven = honest;
    *unproven.last_mut().unwrap() ^= 1;
    assert_eq!(refusal(&authority, &unproven), CsrError::NoProof);

    let p521 = csr(&key(&rcgen::PKCS_ECDSA_P521_SHA512));
    assert!(matches!(refusal(&authority, &p521), CsrError::Key(_)));
    // `openssl req -newkey rsa:1024`, which no library of ours would make.
    assert!(matches!(refusal(&authority, RSA_1024), CsrError::Key(_)));
}

#[test]
fn a_key_is_known_by_itself_and_not_by_its_signature() {
    // `openssl ecparam -name prime256v1`, signed with SHA-384: rcgen would call the key P-384.
    let (_home, authority) = authority();
    let issued = authority.issue(P256_WITH_SHA384, &web(), None, at(NOW)).unwrap();
    let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
    let curve = leaf.public_key().algorithm.parameters.as_ref().unwrap().as_oid().unwrap();
    assert_eq!(curve, x509_parser::oid_registry::OID_EC_P256);
}

#[test]
fn two_certificates_for_one_key_have_two_serial_numbers() {
    let (_home, authority) = authority();
    let csr = csr(&key(&rcgen::PKCS_ECDSA_P256_SHA256));
    let one = authority.issue(&csr, &web(), None, at(NOW)).unwrap();
    let two = authority.issue(&csr, &web(), None, at(NOW)).unwrap();
    assert_ne!(one.serial, two.serial);
    assert_eq!(one.serial.len(), 32);
}

#[test]
fn a_wish_for_a_lifetime_is_clamped() {
    let (_home, authority) = authority();
    let csr = csr(&key(&rcgen::PKCS_ECDSA_P256_SHA256));
    let cases = [(None, 3600, 60), (Some(1), 10, 2), (Some(100), 100, 20), (Some(1_000_000), 86_400, 60)];
    for (wanted, life, backdate) in cases {
        let wanted = wanted.map(Duration::from_secs);
        let issued = authority.issue(&csr, &web(), wanted, at(NOW)).unwrap();
        let leaf = Leaf::parse(&issued.chain[0]).unwrap();
        let now = i64::try_from(NOW).unwrap();
        assert_eq!((leaf.not_after - now, now - leaf.not_before), (life, backdate), "{wanted:?}");
    }
}

#[test]
fn no_leaf_outlives_its_signer() {
    let (_home, authority) = authority();
    let csr = csr(&key(&rcgen::PKCS_ECDSA_P256_SHA256));
    let end = u64::try_from(authority.expiry().intermediate).unwrap();
    let issued = authority.issue(&csr, &web(), None, at(end - 100)).unwrap();
    assert_eq!(u64::try_from(issued.not_after).unwrap(), end);
    for late in [end - 5, end, end + 1000] {
        let refused = authority.issue(&csr, &web(), None, at(late)).unwrap_err();
        assert!(matches!(refused, IssueError::Sign(SignError::SignerEnds(_))), "{refused}");
    }
}

#[test]
fn the_intermediate_is_replaced_at_half_its_life_or_when_the_clock_went_back() {
    let (_home, authority) = authority();
    let first = authority.expiry().intermediate;
    authority.advance(at(NOW + 3600)).unwrap();
    assert_eq!(authority.expiry().intermediate, first, "too early");
    authority.advance(at(NOW + 25 * 3600)).unwrap();
    let second = authority.expiry().intermediate;
    assert!(second > first);
    authority.advance(at(NOW - 3600)).unwrap();
    assert!(authority.expiry().intermediate < first);
    let issued = authority.issue(&csr(&KeyPair::generate().unwrap()), &web(), None, at(NOW - 3600)).unwrap();
    assert_eq!(Leaf::parse(&issued.chain[0]).unwrap().id, web());
}

#[test]
fn our_own_certificate_has_dns_names_beside_its_identity() {
    let (_home, authority) = authority();
    let names = ["douane-ca.douane-system.svc".to_owned()];
    let svid = authority.own_svid(&web(), &names, at(NOW)).unwrap();
    assert_eq!(svid.leaf.id, web());
    let (_, leaf) = X509Certificate::from_der(&svid.chain[0]).unwrap();
    let sans = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(sans.critical);
    assert_eq!(sans.value.general_names.len(), 2);
}

#[test]
fn a_folder_that_others_use_is_not_taken() {
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("shared");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(state.join("diary.txt"), "mine").unwrap();
    let refused = open(&state).map(drop).unwrap_err();
    assert!(matches!(refused, OpenError::State(StateError::Shared { mode: 0o755, .. })), "{refused}");
    fs::remove_file(state.join("diary.txt")).unwrap();
    drop(open(&state).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn for_any_request_the_name_is_the_attested_one(
        dns in proptest::collection::vec("[a-z]{1,10}", 0..3),
        uris in proptest::collection::vec("spiffe://[a-z]{1,8}/ns/[a-z]{1,8}/sa/[a-z]{1,8}", 0..3),
        common_name in "[ -~]{0,30}",
        flip in proptest::option::of((any::<prop::sample::Index>(), 1..=255_u8)),
    ) {
        let (_home, authority) = authority();
        let mut wishes = CertificateParams::new(dns).unwrap();
        wishes.distinguished_name.push(rcgen::DnType::CommonName, common_name);
        for uri in uris {
            wishes.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        }
        let mut csr = wishes.serialize_request(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        if let Some((index, bits)) = flip {
            *index.get_mut(&mut csr) ^= bits;
        }
        if let Ok(issued) = authority.issue(&csr, &web(), None, at(NOW)) {
            prop_assert_eq!(Leaf::parse(&issued.chain[0]).unwrap().id, web());
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(super::csr::PublicKey::from_csr(&bytes).is_err());
    }
}

#[rustfmt::skip]
const RSA_1024: &[u8] = &[
    0x30, 0x82, 0x01, 0x4e, 0x30, 0x81, 0xb8, 0x02, 0x01, 0x00, 0x30, 0x0f, 0x31, 0x0d, 0x30, 0x0b, 0x06,
    0x03, 0x55, 0x04, 0x03, 0x0c, 0x04, 0x77, 0x65, 0x61, 0x6b, 0x30, 0x81, 0x9f, 0x30, 0x0d, 0x06, 0x09,
    0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00, 0x03, 0x81, 0x8d, 0x00, 0x30, 0x81,
    0x89, 0x02, 0x81, 0x81, 0x00, 0xd4, 0x59, 0xa7, 0x42, 0xc5, 0xe4, 0x9f, 0x60, 0xa7, 0x88, 0x1b, 0xbc,
    0x96, 0xc4, 0x8a, 0x4e, 0x85, 0x42, 0x8c, 0x13, 0x44, 0xc2, 0x30, 0xc1, 0x48, 0x66, 0xcc, 0xa4, 0x2a,
    0xb4, 0x0b, 0x20, 0x3e, 0x28, 0x69, 0x63, 0x18, 0x67, 0xfe, 0xb4, 0x68, 0xf5, 0x2e, 0xac, 0x31, 0xb9,
    0x82, 0x64, 0xb2, 0x00, 0x88, 0xba, 0x84, 0x25, 0x9b, 0x06, 0x90, 0xa9, 0x00, 0x78, 0x36, 0x1f, 0x55,
    0x32, 0x5a, 0xa7, 0x61, 0x3b, 0x0f, 0xf0, 0x0a, 0xe5, 0xc8, 0xce, 0x26, 0x32, 0xe9, 0xe5, 0x64, 0x5d,
    0xda, 0xe3, 0x71, 0xaa, 0x11, 0x80, 0x01, 0x1d, 0x04, 0x2f, 0x5e, 0xa6, 0xe8, 0xda, 0xdf, 0x94, 0x31,
    0x66, 0xf3, 0x2b, 0x85, 0x2a, 0x56, 0x8d, 0xff, 0x85, 0xc1, 0x7d, 0x8c, 0xca, 0xff, 0x5e, 0x3b, 0xe6,
    0xb9, 0xfa, 0xaf, 0x76, 0xcc, 0xd0, 0x81, 0xdb, 0xb4, 0xc6, 0x54, 0x5e, 0xcf, 0x6f, 0x02, 0x03, 0x01,
    0x00, 0x01, 0xa0, 0x00, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b,
    0x05, 0x00, 0x03, 0x81, 0x81, 0x00, 0x27, 0xe1, 0xad, 0xc9, 0xbf, 0x02, 0x80, 0xfd, 0x74, 0xc2, 0x85,
    0xda, 0x80, 0x47, 0x64, 0xf0, 0xa2, 0x82, 0x35, 0xa8, 0x2d, 0x26, 0x73, 0xe9, 0xfb, 0x1e, 0x2b, 0x72,
    0xf4, 0x57, 0xe2, 0xe1, 0xea, 0xff, 0x75, 0x6a, 0x96, 0x82, 0x85, 0x2e, 0x5f, 0x85, 0x44, 0x52, 0x23,
    0xde, 0xf0, 0x7e, 0x1f, 0xc7, 0x45, 0x16, 0x05, 0x08, 0x3c, 0xeb, 0x88, 0xd7, 0x75, 0x79, 0x8b, 0xa7,
    0x2d, 0x14, 0xbb, 0x0d, 0xce, 0xe5, 0x55, 0x79, 0xa3, 0xdc, 0x4d, 0xfd, 0x63, 0xf0, 0x14, 0xb4, 0xfd,
    0x1f, 0xc5, 0xac, 0xc3, 0xa4, 0x3f, 0x03, 0xe7, 0x81, 0x3e, 0x9d, 0xec, 0xa0, 0xce, 0x71, 0x0c, 0x0e,
    0xc1, 0x49, 0xd0, 0x38, 0xa3, 0x4f, 0x36, 0xf4, 0xf6, 0x6f, 0x22, 0x53, 0x8c, 0xd0, 0x0a, 0x87, 0x79,
    0x2a, 0x50, 0x58, 0xba, 0x69, 0x67, 0xb7, 0x0a, 0x42, 0xfa, 0x38, 0xd4, 0x26, 0x88, 0x31,
];

#[rustfmt::skip]
const P256_WITH_SHA384: &[u8] = &[
    0x30, 0x81, 0xc6, 0x30, 0x6e, 0x02, 0x01, 0x00, 0x30, 0x0c, 0x31, 0x0a, 0x30, 0x08, 0x06, 0x03, 0x55,
    0x04, 0x03, 0x0c, 0x01, 0x78, 0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02,
    0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04, 0xec, 0xec,
    0x69, 0x62, 0x3d, 0x04, 0xc2, 0xa5, 0x80, 0x13, 0x00, 0x41, 0x26, 0x8b, 0xd0, 0xc0, 0x68, 0x84, 0x8b,
    0x9e, 0x37, 0xad, 0xca, 0x6f, 0x8f, 0x93, 0x96, 0x48, 0x9e, 0x71, 0x9b, 0xd4, 0xd9, 0x1e, 0x97, 0x5a,
    0x9d, 0x14, 0xc9, 0x3d, 0x0a, 0x7d, 0x0e, 0x44, 0xb5, 0x63, 0xe8, 0xc0, 0xd1, 0x60, 0x77, 0x02, 0xbe,
    0x62, 0x2c, 0xbf, 0x7d, 0x98, 0x64, 0x53, 0xa1, 0x1f, 0x89, 0xda, 0xa0, 0x00, 0x30, 0x0a, 0x06, 0x08,
    0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03, 0x03, 0x48, 0x00, 0x30, 0x45, 0x02, 0x20, 0x62, 0x5d,
    0x3a, 0xc9, 0x8d, 0xb1, 0xf4, 0x63, 0x38, 0x32, 0xf0, 0x79, 0x50, 0xdd, 0x31, 0x23, 0x08, 0x5e, 0xdb,
    0x6c, 0x7a, 0xdf, 0xe9, 0x83, 0x6f, 0xfa, 0x80, 0xef, 0x10, 0xf1, 0xdc, 0xe9, 0x02, 0x21, 0x00, 0xa3,
    0xc9, 0xfd, 0xc0, 0x0a, 0x17, 0xea, 0x9b, 0x3a, 0xa5, 0x91, 0xf9, 0x0c, 0x83, 0xc5, 0x08, 0x1a, 0x02,
    0xe4, 0x0e, 0x39, 0xdd, 0x1c, 0x51, 0xc6, 0x65, 0xe7, 0x87, 0xaa, 0x52, 0xc7, 0x2f,
];
