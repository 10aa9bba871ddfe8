//! Tokens of honest issuers and of others.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{minted::Issuer, *};

const NOW: u64 = 1_800_000_000;

fn issuer(id: &str) -> Issuer {
    Issuer::new(id)
}

fn token(issuer: &Issuer, id: &str, claims: &Value) -> String {
    issuer.sign_as(id, claims)
}

fn good() -> Value {
    json!({"iss": "lab", "aud": ["douane-ca", "other"], "exp": NOW + 600, "sub": "web"})
}

fn check(issuer: &Issuer, token: &str) -> Result<Claims, JwtError> {
    check_for(Purpose::Attestation, issuer, token)
}

fn check_for(purpose: Purpose, issuer: &Issuer, token: &str) -> Result<Claims, JwtError> {
    let audiences = ["douane-ca".to_owned()];
    verify(token, &issuer.keys(), Expected { issuer: Some("lab"), audiences: &audiences, purpose }, NOW)
}

#[test]
fn a_token_for_us_is_accepted() {
    let lab = issuer("a");
    let claims = check(&lab, &token(&lab, "a", &good())).unwrap();
    assert_eq!(claims.subject(), Some("web"));
    assert_eq!(claims.expires(), Some(NOW + 600));
}

#[test]
fn every_wrong_claim_is_refused_with_its_name() {
    let lab = issuer("a");
    let cases = [
        ("exp", json!(NOW - 60), JwtError::Expired(60)),
        ("exp", json!("soon"), JwtError::Claim("exp")),
        ("exp", Value::Null, JwtError::Claim("exp")),
        ("nbf", json!(NOW + 60), JwtError::NotYet(60)),
        ("nbf", json!([]), JwtError::Claim("nbf")),
        ("iss", json!("other"), JwtError::Issuer),
        ("iss", json!(["lab"]), JwtError::Issuer),
        ("aud", json!("other"), JwtError::Audience),
        ("aud", json!([]), JwtError::Audience),
        ("aud", Value::Null, JwtError::Audience),
    ];
    for (name, value, error) in cases {
        let mut claims = good();
        claims[name] = value.clone();
        assert_eq!(check(&lab, &token(&lab, "a", &claims)), Err(error), "{name} = {value}");
    }
    let mut claims = good();
    claims.as_object_mut().unwrap().remove("exp");
    assert_eq!(check(&lab, &token(&lab, "a", &claims)), Err(JwtError::Claim("exp")));
}

#[test]
fn a_request_token_without_exp_never_expires_and_clocks_may_differ_by_60_s() {
    let lab = issuer("a");
    let with = |name: &str, value: Value| {
        let mut claims = good();
        claims[name] = value;
        check_for(Purpose::Request, &lab, &lab.sign(&claims)).map(drop)
    };
    let mut without = good();
    without.as_object_mut().unwrap().remove("exp");
    assert!(check_for(Purpose::Request, &lab, &lab.sign(&without)).is_ok());
    assert_eq!(with("exp", json!(NOW - 59)), Ok(()));
    assert_eq!(with("exp", json!(NOW - 60)), Err(JwtError::Expired(60)));
    assert_eq!(with("exp", json!("soon")), Err(JwtError::Claim("exp")));
    assert_eq!(with("exp", json!(-1)), Err(JwtError::Claim("exp")));
    assert_eq!(with("nbf", json!(NOW + 60)), Ok(()));
    assert_eq!(with("nbf", json!(NOW + 61)), Err(JwtError::NotYet(61)));
}

#[test]
fn an_expected_issuer_of_none_accepts_any() {
    let lab = issuer("a");
    let any = Expected { issuer: None, audiences: &[], purpose: Purpose::Request };
    for claims in [json!({"iss": "somebody"}), json!({})] {
        assert!(verify(&lab.sign(&claims), &lab.keys(), any, NOW).is_ok());
    }
}

#[test]
fn an_audience_is_named_only_where_nothing_else_is_wrong() {
    let (lab, thief) = (issuer("a"), issuer("a"));
    let mut claims = good();
    claims["aud"] = json!("other");
    assert_eq!(check(&lab, &lab.sign(&claims)), Err(JwtError::Audience));
    assert_eq!(check(&lab, &thief.sign(&claims)), Err(JwtError::Signature));
    claims["iss"] = json!("other");
    assert_eq!(check(&lab, &lab.sign(&claims)), Err(JwtError::Issuer));
    claims["exp"] = json!(NOW - 60);
    assert_eq!(check(&lab, &lab.sign(&claims)), Err(JwtError::Expired(60)));
}

#[test]
fn each_asymmetric_algorithm_verifies_with_a_key_of_its_type() {
    for algorithm in minted::ALGORITHMS {
        let lab = Issuer::of(algorithm, "a");
        assert!(check(&lab, &lab.sign(&good())).is_ok(), "{algorithm:?}");
    }
}

#[test]
fn all_keys_of_one_id_are_tried() {
    let (old, new) = (issuer("a"), issuer("a"));
    let both = Issuer::key_set(&[&old, &new]);
    let keys = Keys::parse(both.as_bytes()).unwrap();
    let any = Expected { issuer: None, audiences: &[], purpose: Purpose::Request };
    for signer in [&old, &new] {
        assert!(verify(&signer.sign(&good()), &keys, any, NOW).is_ok());
    }
    assert_eq!(verify(&old.sign_as("b", &good()), &keys, any, NOW), Err(JwtError::UnknownKey));
}

#[test]
fn a_key_that_the_token_brings_is_not_looked_at() {
    let (lab, thief) = (issuer("a"), issuer("a"));
    let header = Header {
        kid: Some("a".to_owned()),
        jwk: Some(thief.jwk()),
        jku: Some("https://thief.example/keys".to_owned()),
        x5u: Some("https://thief.example/chain".to_owned()),
        ..Header::new(Algorithm::ES256)
    };
    assert_eq!(check(&lab, &thief.sign_with(&header, &good())), Err(JwtError::Signature));
    assert!(check(&lab, &lab.sign_with(&header, &good())).is_ok());
}

#[test]
fn a_public_key_is_no_secret_of_hmac() {
    let rsa = Issuer::of(Algorithm::RS256, "a");
    let public = rsa.key_set_text();
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        let header = Header { kid: Some("a".to_owned()), ..Header::new(algorithm) };
        let forged = encode(&header, &good(), &EncodingKey::from_secret(public.as_bytes())).unwrap();
        assert_eq!(check(&rsa, &forged), Err(JwtError::UnknownKey));
    }
}

#[test]
fn claims_inside_of_claims_are_found() {
    let lab = issuer("a");
    let mut claims = good();
    claims["a"] = json!({"b": {"c": 1}, "b.c": 2});
    let claims = check(&lab, &lab.sign(&claims)).unwrap();
    assert_eq!(claims.at(["a", "b", "c"]), Some(&json!(1)));
    for path in [&["a", "x"][..], &["iss", "b"], &["aud", "0"], &[]] {
        assert_eq!(claims.at(path.iter().copied()), None, "{path:?}");
    }
}

#[test]
fn a_foreign_signature_is_refused() {
    let (lab, thief) = (issuer("a"), issuer("a"));
    assert_eq!(check(&lab, &token(&thief, "a", &good())), Err(JwtError::Signature));
    assert_eq!(check(&lab, &token(&lab, "b", &good())), Err(JwtError::UnknownKey));
}

#[test]
fn a_symmetric_or_absent_algorithm_is_refused() {
    let lab = issuer("a");
    let hmac = encode(&Header::default(), &good(), &EncodingKey::from_secret(b"public key bytes")).unwrap();
    assert_eq!(check(&lab, &hmac), Err(JwtError::UnknownKey));
    let none = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJsYWIifQ.";
    assert_eq!(check(&lab, none), Err(JwtError::Malformed));
    for garbage in ["", "a.b.c", "....", &"x".repeat(MAX_TOKEN_BYTES + 1)] {
        assert_eq!(check(&lab, garbage), Err(JwtError::Malformed));
    }
}

#[test]
fn a_header_field_that_must_be_understood_is_refused() {
    let lab = issuer("a");
    for names in [vec![], vec!["exp".to_owned()], vec!["b64".to_owned()]] {
        let header = Header { crit: Some(names), ..Header::new(Algorithm::ES256) };
        let token = encode(&header, &good(), lab.key()).unwrap();
        assert_eq!(check(&lab, &token), Err(JwtError::Critical));
    }
}

#[test]
fn a_key_set_without_a_usable_key_is_an_error() {
    let symmetric = br#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#;
    assert_eq!(Keys::parse(symmetric).unwrap_err(), KeysError::Empty);
    for malformed in [&b""[..], b"[]", b"{}", br#"{"keys":1}"#] {
        assert!(matches!(Keys::parse(malformed), Err(KeysError::Malformed(_))));
    }
}

#[test]
fn a_key_set_is_bounded_in_bytes_and_keys() {
    let long = format!(r#"{{"keys":[],"x":"{}"}}"#, "x".repeat(keys::MAX_KEY_SET_BYTES));
    assert!(matches!(Keys::parse(long.as_bytes()), Err(KeysError::Malformed(_))));
    let many = json!({"keys": vec![json!({}); keys::MAX_KEYS + 1]}).to_string();
    assert_eq!(Keys::parse(many.as_bytes()).unwrap_err(), KeysError::TooMany(keys::MAX_KEYS + 1));
}

#[test]
fn a_key_verifies_only_the_algorithms_of_its_kind() {
    let pair = rcgen::KeyPair::generate().unwrap();
    let key = EncodingKey::from_ec_der(&pair.serialize_der());
    let jwk = serde_json::to_value(Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap()).unwrap();
    for declared in ["HS256", "RS256", "ES384", "none"] {
        let mut jwk = jwk.clone();
        jwk["alg"] = json!(declared);
        let set = json!({"keys": [jwk]}).to_string();
        assert_eq!(Keys::parse(set.as_bytes()).unwrap_err(), KeysError::Empty, "{declared}");
    }
    let mut for_encryption = jwk;
    for_encryption["use"] = json!("enc");
    let set = json!({"keys": [for_encryption]}).to_string();
    assert_eq!(Keys::parse(set.as_bytes()).unwrap_err(), KeysError::Empty);
}

proptest! {
    #[test]
    fn no_token_and_no_key_set_panics(
        text in any::<String>(), bytes in any::<Vec<u8>>(), parts in "[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,8}",
    ) {
        thread_local!(static LAB: Issuer = issuer("a"));
        let _ = Keys::parse(&bytes);
        let _ = Keys::parse(text.as_bytes());
        LAB.with(|lab| {
            assert!(check(lab, &text).is_err());
            assert!(check(lab, &parts).is_err());
        });
    }
}
