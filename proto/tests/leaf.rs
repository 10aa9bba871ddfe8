//! Which certificates are an X509-SVID of a workload, and which are not.

use douane_proto::{
    id::IdError,
    svid::{Leaf, Svid, SvidError, TrustBundle},
    wire,
};
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("an ASCII text"))
}

fn good() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2026, 1, 2);
    params.subject_alt_names = vec![uri(WEB)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn der(params: &CertificateParams) -> Vec<u8> {
    let key = KeyPair::generate().expect("a key is made");
    params.self_signed(&key).expect("a certificate is made").der().to_vec()
}

fn made(change: impl FnOnce(&mut CertificateParams)) -> Result<Leaf, SvidError> {
    let mut params = good();
    change(&mut params);
    Leaf::parse(&der(&params))
}

#[test]
fn a_leaf_says_who_it_is_and_how_long() {
    let leaf = made(|_| {}).unwrap();

    assert_eq!(leaf.id.to_string(), WEB);
    assert_eq!(leaf.not_after - leaf.not_before, 24 * 60 * 60);
}

#[test]
fn other_names_than_uris_do_not_count_and_extended_key_usage_may_be_absent() {
    let dns = SanType::DnsName("web.shop".try_into().unwrap());
    assert!(made(|params| params.subject_alt_names.push(dns)).is_ok());
    assert!(made(|params| params.extended_key_usages.clear()).is_ok());
    assert!(made(|params| params.is_ca = IsCa::NoCa).is_ok());
}

#[test]
fn exactly_one_uri_names_a_workload() {
    assert_eq!(made(|params| params.subject_alt_names.clear()), Err(SvidError::UriNames(0)));
    let two = || vec![uri(WEB), uri("spiffe://cluster.local/ns/shop/sa/admin")];
    assert_eq!(made(|params| params.subject_alt_names = two()), Err(SvidError::UriNames(2)));
    for name in [
        "https://cluster.local/ns/shop/sa/web",
        "spiffe://cluster.local",
        "spiffe://cluster.local/web",
        "spiffe://Cluster.local/ns/shop/sa/web",
        "SPIFFE://cluster.local/ns/shop/sa/web",
        "spiffe://cluster.local/ns/shop/sa/web/",
    ] {
        let refused = made(|params| params.subject_alt_names = vec![uri(name)]);
        assert!(
            matches!(refused, Err(SvidError::Id(IdError::NotSpiffe { .. } | IdError::NotAWorkload(_)))),
            "{name}: {refused:?}"
        );
    }
}

#[test]
fn what_may_sign_is_no_leaf() {
    let refused = |change: fn(&mut CertificateParams)| matches!(made(change), Err(SvidError::NotALeaf(_)));
    assert!(refused(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)));
    assert!(refused(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign)));
    assert!(refused(|params| params.key_usages.push(KeyUsagePurpose::CrlSign)));
    assert!(refused(|params| params.key_usages = vec![KeyUsagePurpose::KeyAgreement]));
    assert!(refused(|params| params.key_usages.clear()));
    assert!(refused(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]));
    assert!(refused(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]));
}

#[test]
fn a_key_usage_that_is_not_critical_is_no_leafs() {
    // BIT STRING with digitalSignature alone.
    let usage = CustomExtension::from_oid_content(&[2, 5, 29, 15], vec![3, 2, 7, 0x80]);
    let refused = made(|params| {
        params.key_usages.clear();
        params.custom_extensions = vec![usage];
    });
    assert!(matches!(refused, Err(SvidError::NotALeaf(_))), "{refused:?}");
}

#[test]
fn an_extension_that_is_unreadable_or_twice_there_is_not_passed_over() {
    let garbled = CustomExtension::from_oid_content(&[2, 5, 29, 37], vec![0x30, 0x7f]);
    let refused = made(|params| {
        params.extended_key_usages.clear();
        params.custom_extensions = vec![garbled];
    });
    assert!(matches!(refused, Err(SvidError::Malformed(_))), "{refused:?}");

    let second = CustomExtension::from_oid_content(&[2, 5, 29, 15], vec![3, 2, 7, 0x80]);
    let refused = made(|params| params.custom_extensions = vec![second]);
    assert!(matches!(refused, Err(SvidError::Malformed(_))), "{refused:?}");
}

#[test]
fn bytes_that_are_no_certificate_or_more_than_one_are_refused() {
    let whole = der(&good());
    let mut longer = whole.clone();
    longer.push(0);
    for bytes in [&[][..], &[0x30], &whole[..whole.len() - 1], &longer, &vec![0; 20_000]] {
        assert!(matches!(Leaf::parse(bytes), Err(SvidError::Malformed(_))), "{} bytes", bytes.len());
    }
}

#[test]
fn an_svid_needs_a_chain_and_never_shows_its_key() {
    assert!(matches!(Svid::parse(vec![], vec![1].into()), Err(SvidError::Empty)));
    let svid = Svid::parse(vec![der(&good())], b"a very secret key".to_vec().into()).unwrap();
    assert!(!format!("{svid:?}").contains("key"), "{svid:?}");
}

#[test]
fn a_bundle_of_too_many_roots_or_of_no_domain_is_refused() {
    let bundle = |domain: &str, roots: usize| wire::TrustBundle {
        trust_domain: domain.to_owned(),
        roots: vec![vec![0]; roots],
        epoch: 1,
        sequence: 2,
        jwt_keys: vec![wire::JwtKey { key_id: "a1".to_owned(), spki_der: vec![1; 91] }],
        tainted_keys: vec![vec![2; 20]],
        refused_keys: vec![vec![3; 20]],
        retired_keys: vec![vec![4; 20]],
    };
    let read = TrustBundle::try_from(bundle("cluster.local", 2)).unwrap();
    assert_eq!(wire::TrustBundle::from(&read), bundle("cluster.local", 2));
    assert!(TrustBundle::try_from(bundle("cluster.local", 33)).is_err());
    assert!(TrustBundle::try_from(bundle("", 1)).is_err());
}

#[test]
fn a_bundle_with_keys_that_are_none_is_refused() {
    let refused = |change: fn(&mut wire::TrustBundle)| {
        let mut bundle =
            wire::TrustBundle { trust_domain: "cluster.local".to_owned(), ..wire::TrustBundle::default() };
        change(&mut bundle);
        TrustBundle::try_from(bundle).is_err()
    };
    assert!(!refused(|_| {}), "empty: nobody is trusted");
    assert!(refused(|it| it.jwt_keys = vec![wire::JwtKey { key_id: String::new(), spki_der: vec![1] }]));
    assert!(
        refused(|it| it.jwt_keys = vec![wire::JwtKey { key_id: "a".to_owned(), spki_der: vec![1; 513] }])
    );
    assert!(refused(|it| it.jwt_keys = vec![wire::JwtKey { key_id: "a".to_owned(), spki_der: vec![1] }; 33]));
    assert!(refused(|it| it.tainted_keys = vec![Vec::new()]));
    assert!(refused(|it| it.refused_keys = vec![vec![1; 65]]));
    assert!(refused(|it| it.refused_keys = vec![vec![1; 20]; 33]));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in any::<Vec<u8>>()) {
        let _ = Leaf::parse(&bytes);
    }

    #[test]
    fn no_change_of_a_certificate_panics(changes in prop::collection::vec((0..700_usize, any::<u8>()), 1..4)) {
        thread_local!(static WHOLE: Vec<u8> = der(&good()));
        let mut bytes = WHOLE.with(Clone::clone);
        for (at, byte) in changes {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        let _ = Leaf::parse(&bytes);
    }
}
