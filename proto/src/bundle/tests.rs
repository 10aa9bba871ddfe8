//! Bundle documents that are written, read, broken and hostile.

use std::sync::LazyLock;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData as _,
};
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{jwk::PublicKey, *};
use crate::{
    id::TrustDomain,
    svid::{JwtKey, TrustBundle},
    wire,
};

static ROOTS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let kinds = [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519];
    kinds.map(|kind| certificate(&KeyPair::generate_for(kind).unwrap(), &authority())).to_vec()
});

fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn certificate(key: &KeyPair, params: &CertificateParams) -> Vec<u8> {
    params.self_signed(key).unwrap().der().to_vec()
}

fn domain(name: &str) -> TrustDomain {
    TrustDomain::parse(name).unwrap()
}

fn ours() -> TrustBundle {
    let key = KeyPair::generate().unwrap();
    let jwt_keys = vec![JwtKey { key_id: "one".to_owned(), spki_der: key.subject_public_key_info() }];
    TrustBundle {
        epoch: 1_800_000_000,
        sequence: 7,
        jwt_keys,
        ..TrustBundle::of_roots(domain("a.example"), ROOTS.clone())
    }
}

// What we would write of our own bundle, to be changed.
fn written() -> Value {
    serde_json::from_str(&BundleDocument::of(&ours(), 60).write()).unwrap()
}

fn parse(document: &Value) -> Result<BundleDocument, BundleError> {
    BundleDocument::parse(document.to_string().as_bytes())
}

fn changed(change: impl FnOnce(&mut Value)) -> Result<BundleDocument, BundleError> {
    let mut document = written();
    change(&mut document);
    parse(&document)
}

#[test]
fn row_1_4_a_bundle_is_written_as_the_standard_says() {
    let document = written();
    let keys = document["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 4);
    for (jwk, root) in keys.iter().zip(ROOTS.iter()) {
        assert_eq!(jwk["use"], "x509-svid");
        assert_eq!(jwk["x5c"], json!([STANDARD.encode(root)]), "exactly one certificate");
        assert!(jwk.get("kid").is_none(), "{jwk}");
        assert!(jwk["kty"].is_string() && jwk["x"].is_string());
    }
    let kinds: Vec<_> = keys.iter().map(|jwk| (jwk["kty"].clone(), jwk["crv"].clone())).collect();
    assert_eq!(kinds[0], (json!("EC"), json!("P-256")));
    assert_eq!(kinds[1], (json!("EC"), json!("P-384")));
    assert_eq!(kinds[2], (json!("OKP"), json!("Ed25519")));
    assert_eq!((&keys[3]["use"], &keys[3]["kid"]), (&json!("jwt-svid"), &json!("one")));
    assert_eq!(document["spiffe_refresh_hint"], 60);
    assert_eq!(document["spiffe_sequence"], 1_800_000_000_u64 * (1 << 20) + 7);
}

#[test]
fn row_1_4_the_sequence_grows_with_each_change_and_past_a_backup() {
    let at = |epoch, sequence| published_sequence(&TrustBundle { epoch, sequence, ..ours() });
    assert!(at(1, 1) < at(1, 2));
    assert!(at(1, 500) < at(2, 1), "a new epoch counts on");
    assert!(at(4_000_000_000, 1) < 1 << 53, "a number that JSON readers can hold");
}

#[test]
fn row_1_4_what_is_unknown_is_passed_over() {
    let unknown = [
        json!({ "use": "wit-svid", "kty": "EC", "x": 7 }),
        json!({ "use": "x509-svid", "kty": "AKP", "x5c": [] }),
        json!({ "use": "jwt-svid", "kty": "EC", "crv": "secp256k1", "kid": "k" }),
        json!({ "kty": "EC" }),
        json!({ "use": 7 }),
    ];
    let all = changed(|document| document["keys"].as_array_mut().unwrap().extend(unknown)).unwrap();
    assert_eq!(all, BundleDocument::of(&ours(), 60).with_keys_of(&all));
    let more = changed(|document| document["issued_by"] = json!({ "anything": [1] })).unwrap();
    assert_eq!(more.roots, *ROOTS);
    let without = changed(|document| {
        let document = document.as_object_mut().unwrap();
        document.remove("spiffe_sequence");
        document.remove("spiffe_refresh_hint");
    });
    let without = without.unwrap();
    assert_eq!((without.sequence, without.refresh_hint), (None, None));
}

impl BundleDocument {
    // The JWT key of each call to `ours` is another.
    fn with_keys_of(self, other: &Self) -> Self {
        Self { jwt_keys: other.jwt_keys.clone(), ..self }
    }
}

#[test]
fn row_1_4_of_several_certificates_the_first_counts_and_none_is_no_root() {
    let two =
        changed(|document| document["keys"][0]["x5c"] = json!([STANDARD.encode(&ROOTS[0]), "nonsense"]));
    assert_eq!(two.unwrap().roots, *ROOTS);
    for none in [json!([]), Value::Null] {
        let fewer = changed(|document| match none {
            Value::Null => drop(document["keys"][0].as_object_mut().unwrap().remove("x5c")),
            _ => document["keys"][0]["x5c"] = none.clone(),
        });
        assert_eq!(fewer.unwrap().roots, ROOTS[1..]);
    }
    let twice = changed(|document| document["keys"][1] = document["keys"][0].clone()).unwrap();
    assert_eq!(twice.roots, [ROOTS[0].clone(), ROOTS[2].clone()], "one root is one");
}

#[test]
fn row_1_4_a_bundle_without_x509_keys_is_one_by_which_nobody_is_trusted() {
    for empty in [json!({ "keys": [] }), json!({ "keys": [{ "use": "new", "kty": "new" }] })] {
        let document = parse(&empty).unwrap();
        assert!(document.roots.is_empty() && document.jwt_keys.is_empty());
        let foreign = ForeignBundle::of(domain("b.example"), &document);
        assert!(foreign.roots.is_empty() && foreign.keys().is_none());
    }
}

#[test]
fn t21_what_is_broken_is_refused_whole() {
    let leaf = certificate(&KeyPair::generate().unwrap(), &CertificateParams::default());
    let (broken, other) = (STANDARD.encode(&ROOTS[0][..100]), STANDARD.encode(&ROOTS[1]));
    let trailing = STANDARD.encode([&ROOTS[0][..], b"more"].concat());
    for certificate in [json!("%%%"), json!(7), json!(broken), json!(other), json!(trailing)] {
        let refused = changed(|document| document["keys"][0]["x5c"] = json!([certificate]));
        assert!(matches!(refused, Err(BundleError::Key { number: 1, .. })), "{certificate}: {refused:?}");
    }
    assert!(changed(|document| document["keys"][0]["x5c"] = json!("MIIB")).is_err());
    // A certificate that may not sign, under its own key.
    let jwk = PublicKey::of(X509Certificate::from_der(&leaf).unwrap().1.public_key()).unwrap();
    let mut jwk = Value::Object(jwk.write());
    (jwk["use"], jwk["x5c"]) = (json!("x509-svid"), json!([STANDARD.encode(&leaf)]));
    let refused = changed(|document| document["keys"][0] = jwk).unwrap_err();
    assert!(refused.to_string().contains("may not sign"), "{refused}");

    let short = URL_SAFE_NO_PAD.encode([1; 31]);
    for (member, value) in [
        ("kid", Value::Null),
        ("kid", json!("")),
        ("kid", json!("k".repeat(257))),
        ("x", json!(short)),
        ("x", Value::Null),
        ("y", json!("!")),
        ("crv", json!(1)),
    ] {
        let refused = changed(|document| document["keys"][3][member] = value.clone());
        assert!(matches!(refused, Err(BundleError::Key { number: 4, .. })), "{member} {value}: {refused:?}");
    }
    let twice = changed(|document| {
        let key = document["keys"][3].clone();
        document["keys"].as_array_mut().unwrap().push(key);
    });
    assert!(matches!(twice, Err(BundleError::Key { number: 5, .. })), "{twice:?}");
}

#[test]
fn t21_what_is_no_bundle_is_refused() {
    for text in [
        "",
        "null",
        "[]",
        "{}",
        r#"{"keys":{}}"#,
        r#"{"keys":null}"#,
        r#"{"keys":[],"keys":[]}"#,
        r#"{"keys":[],"spiffe_sequence":1,"spiffe_sequence":2}"#,
        r#"{"keys":[],"spiffe_sequence":-1}"#,
        r#"{"keys":[],"spiffe_sequence":1.5}"#,
        r#"{"keys":[],"spiffe_sequence":18446744073709551616}"#,
        r#"{"keys":[],"spiffe_refresh_hint":"60"}"#,
        r#"{"keys":[]} more"#,
        "\u{feff}{\"keys\":[]}",
    ] {
        assert!(matches!(BundleDocument::parse(text.as_bytes()), Err(BundleError::Malformed(_))), "{text}");
    }
    assert!(BundleDocument::parse(b"{\"keys\":[],\"x\":\"\xff\"}").is_err(), "UTF-8 only");
    assert!(BundleDocument::parse(&b"[".repeat(100_000)).is_err());
    assert!(BundleDocument::parse(br#"{"keys":[7]}"#).is_err());
}

#[test]
fn t21_more_than_an_honest_bundle_holds_is_refused() {
    let too_large =
        |result: Result<BundleDocument, BundleError>| matches!(result, Err(BundleError::TooLarge(_)));
    assert!(too_large(BundleDocument::parse(&vec![b' '; MAX_BUNDLE_BYTES + 1])));
    let many = vec![json!({ "use": "unknown" }); 65];
    assert!(too_large(parse(&json!({ "keys": many }))));
    let key = |number: usize| {
        let mut key = written()["keys"][3].clone();
        key["kid"] = json!(number.to_string());
        key
    };
    let many: Vec<_> = (0..33).map(key).collect();
    assert!(too_large(parse(&json!({ "keys": many }))));
}

#[test]
fn what_a_sidecar_is_told_of_other_domains_is_bounded_and_each_once() {
    let foreign = |name: &str| ForeignBundle::of(domain(name), &BundleDocument::of(&ours(), 60));
    let message = |names: &[&str]| wire::FederatedBundles {
        bundles: names.iter().map(|name| wire::FederatedBundle::from(&foreign(name))).collect(),
    };
    let all = ForeignBundle::all(message(&["b.example", "c.example"])).unwrap();
    assert_eq!(all[1].roots, *ROOTS);
    assert!(all[0].keys().is_some());

    assert!(ForeignBundle::all(message(&["b.example", "b.example"])).is_err());
    let mut impossible = message(&["b.example"]);
    impossible.bundles[0].trust_domain = "B/".to_owned();
    assert!(ForeignBundle::all(impossible).is_err());
    let many: Vec<String> = (0..65).map(|number| format!("d{number}.example")).collect();
    let bundles =
        many.iter().map(|name| wire::FederatedBundle { trust_domain: name.clone(), ..Default::default() });
    assert!(ForeignBundle::all(wire::FederatedBundles { bundles: bundles.collect() }).is_err());
    let mut large = message(&["b.example"]);
    large.bundles[0].roots = vec![ROOTS[0].clone(); 33];
    assert!(ForeignBundle::all(large).is_err());
}

fn any_key() -> impl Strategy<Value = PublicKey> {
    let encoded = |bytes: Vec<u8>| URL_SAFE_NO_PAD.encode(bytes);
    let bytes = |count: usize| proptest::collection::vec(any::<u8>(), count);
    let curve = |name: &'static str, count: usize| {
        (bytes(count), bytes(count))
            .prop_map(move |(x, y)| json!({ "kty": "EC", "crv": name, "x": encoded(x), "y": encoded(y) }))
    };
    let rsa = (1_u8.., bytes(255)).prop_map(
        move |(first, rest)| json!({ "kty": "RSA", "n": encoded([vec![first], rest].concat()), "e": "AQAB" }),
    );
    let ed25519 = bytes(32).prop_map(move |x| json!({ "kty": "OKP", "crv": "Ed25519", "x": encoded(x) }));
    prop_oneof![curve("P-256", 32), curve("P-384", 48), curve("P-521", 66), rsa, ed25519]
        .prop_map(|jwk| PublicKey::read(jwk.as_object().unwrap()).unwrap())
}

fn any_bundle() -> impl Strategy<Value = BundleDocument> {
    let keys = proptest::collection::btree_map("[ -~]{1,40}", any_key(), 0..6);
    let roots = proptest::sample::subsequence(ROOTS.clone(), 0..=ROOTS.len());
    (roots, keys, any::<Option<u64>>(), any::<Option<u64>>()).prop_map(
        |(roots, keys, sequence, refresh_hint)| {
            let jwt_keys = keys.into_iter().map(|(key_id, key)| JwtAuthority { key_id, key }).collect();
            BundleDocument { roots, jwt_keys, sequence, refresh_hint }
        },
    )
}

proptest! {
    #[test]
    fn row_1_4_what_is_written_is_read_as_it_was(bundle in any_bundle()) {
        prop_assert_eq!(BundleDocument::parse(bundle.write().as_bytes()), Ok(bundle));
    }

    #[test]
    fn t21_no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = BundleDocument::parse(&bytes);
    }
}
