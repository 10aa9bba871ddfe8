//! JWT-SVIDs: tokens by which a workload proves to an audience who it is (JWT-SVID 2 and 3). Strict where JOSE is lax: three
//! header fields, nine algorithms, a SPIFFE ID, an audience and an end.
//!
//! Pure: no clock. Whose keys are trusted for which domain, the caller says.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};
use spiffe::SpiffeId;

use super::{
    claims::Claims,
    keys::Keys,
    verify::{Expected, JwtError, MAX_TOKEN_BYTES, Purpose, verify},
};
use crate::{id::TrustDomain, svid::JwtKey};

/// JWT-SVID 2.1. ES512 is valid as well; no key of that curve is read, so that it ends as unknown.
const ALGORITHMS: [&str; 9] =
    ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"];
/// JWT-SVID 2: what is not described there must not be in the header.
const HEADER: [&str; 3] = ["alg", "kid", "typ"];
/// JWT-SVID 2.3.
const TYPES: [&str; 2] = ["JWT", "JOSE"];
/// SPIFFE-ID 2.3.
const MAX_ID_BYTES: usize = 2048;
/// SubjectPublicKeyInfo of P-256 up to the two coordinates: algorithm, curve, "not compressed".
const P256_HEAD: &[u8] = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04";
/// Of each coordinate.
const P256_BYTES: usize = 32;

/// Why a token is no valid JWT-SVID for us. Never holds the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtSvidError {
    /// Its header breaks JWT-SVID 2.
    #[error("the token's header: {0}")]
    Header(&'static str),
    /// JWT-SVID 3.1.
    #[error("the token's subject is no SPIFFE ID")]
    Subject,
    /// No keys of its trust domain.
    #[error("there are no keys to verify tokens of trust domain {0} with")]
    Untrusted(String),
    /// Signature, time or audience.
    #[error("the token is refused: {0}")]
    Jwt(#[from] JwtError),
}

/// A token that verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtSvid {
    /// Its subject.
    pub spiffe_id: String,
    /// All that it claims.
    pub claims: Claims,
}

/// Verifies a JWT-SVID for one audience at `now` (seconds since 1970). `keys_of` knows the keys of the domains that are
/// trusted; those of one say nothing about another.
///
/// # Errors
/// [`JwtSvidError`].
pub fn verify_svid(
    token: &str,
    audience: &str,
    keys_of: impl Fn(&TrustDomain) -> Option<Keys>,
    now: u64,
) -> Result<JwtSvid, JwtSvidError> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(JwtError::Malformed.into());
    }
    check_header(token)?;
    let unverified = part(token, 1).ok_or(JwtError::Malformed)?;
    let (spiffe_id, domain) = subject(&unverified)?;
    let keys = keys_of(&domain).ok_or_else(|| JwtSvidError::Untrusted(domain.to_string()))?;
    let audiences = [audience.to_owned()];
    let expected = Expected { issuer: None, audiences: &audiences, purpose: Purpose::Attestation };
    let claims = verify(token, &keys, expected, now)?;
    // The same bytes were read twice; that they say the same is not taken for granted.
    if claims.subject() != Some(&spiffe_id) {
        return Err(JwtSvidError::Subject);
    }
    Ok(JwtSvid { spiffe_id, claims })
}

/// The keys of a trust domain as a JSON Web Key Set; `purpose` is each key's `use`, which plain validators do not know
/// (Workload API 6.2.2) and SPIFFE's bundles demand (Trust Domain and Bundle 4.2.2).
#[must_use]
pub fn key_set(keys: &[JwtKey], purpose: Option<&str>) -> Value {
    let entries: Vec<Value> = keys.iter().filter_map(|key| jwk(key, purpose)).collect();
    json!({ "keys": entries })
}

/// The keys of a trust domain, to verify with; `None` where it has none.
#[must_use]
pub fn keys_of(keys: &[JwtKey]) -> Option<Keys> {
    Keys::parse(key_set(keys, None).to_string().as_bytes()).ok()
}

/// Which key a token says that it is signed with.
#[must_use]
pub fn key_id(token: &str) -> Option<String> {
    part(token, 0)?.get("kid")?.as_str().map(str::to_owned)
}

fn jwk(key: &JwtKey, purpose: Option<&str>) -> Option<Value> {
    let point = key.spki_der.strip_prefix(P256_HEAD).filter(|point| point.len() == 2 * P256_BYTES)?;
    let (x, y) = point.split_at(P256_BYTES);
    let mut jwk = json!({
        "kty": "EC",
        "crv": "P-256",
        "kid": key.key_id,
        "x": URL_SAFE_NO_PAD.encode(x),
        "y": URL_SAFE_NO_PAD.encode(y),
    });
    if let (Some(purpose), Some(jwk)) = (purpose, jwk.as_object_mut()) {
        jwk.insert("use".to_owned(), purpose.into());
    }
    Some(jwk)
}

fn check_header(token: &str) -> Result<(), JwtSvidError> {
    let header = part(token, 0).ok_or(JwtError::Malformed)?;
    if header.keys().any(|name| !HEADER.contains(&name.as_str())) {
        return Err(JwtSvidError::Header("only alg, kid and typ are allowed (JWT-SVID 2)"));
    }
    let text = |name: &str| header.get(name).map(|value| value.as_str().unwrap_or_default());
    if !text("alg").is_some_and(|alg| ALGORITHMS.contains(&alg)) {
        return Err(JwtSvidError::Header("its algorithm is not allowed (JWT-SVID 2.1)"));
    }
    if text("typ").is_some_and(|kind| !TYPES.contains(&kind)) {
        return Err(JwtSvidError::Header("its type is neither JWT nor JOSE (JWT-SVID 2.3)"));
    }
    Ok(())
}

fn subject(claims: &Map<String, Value>) -> Result<(String, TrustDomain), JwtSvidError> {
    let text = claims.get("sub").and_then(Value::as_str).filter(|text| text.len() <= MAX_ID_BYTES);
    let text = text.ok_or(JwtSvidError::Subject)?;
    let id = SpiffeId::new(text).map_err(|_| JwtSvidError::Subject)?;
    // A workload has a path (JWT-SVID 3.1), and an ID one spelling.
    if id.path().is_empty() || id.to_string() != text {
        return Err(JwtSvidError::Subject);
    }
    let domain = TrustDomain::parse(id.trust_domain_name()).map_err(|_| JwtSvidError::Subject)?;
    Ok((text.to_owned(), domain))
}

// Not verified.
fn part(token: &str, number: usize) -> Option<Map<String, Value>> {
    let mut parts = token.split('.');
    if parts.clone().count() != 3 {
        return None;
    }
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts.nth(number)?).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, Header};

    use super::*;
    use crate::jwt::minted::Issuer;

    const NOW: u64 = 1_800_000_000;
    const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

    fn claims() -> Value {
        json!({ "sub": WEB, "aud": ["bank"], "exp": NOW + 60, "iat": NOW })
    }

    fn check(issuer: &Issuer, token: &str) -> Result<JwtSvid, JwtSvidError> {
        verify_svid(token, "bank", |domain| (domain.as_str() == "cluster.local").then(|| issuer.keys()), NOW)
    }

    fn without(name: &str) -> Value {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(name);
        claims
    }

    fn with(name: &str, value: Value) -> Value {
        let mut claims = claims();
        claims[name] = value;
        claims
    }

    #[test]
    fn w9_a_token_of_the_domain_for_the_audience_is_valid_and_its_claims_are_told() {
        let issuer = Issuer::new("one");
        let svid = check(&issuer, &issuer.sign(&with("scope", json!("read")))).unwrap();
        assert_eq!(svid.spiffe_id, WEB);
        assert_eq!(svid.claims.get("scope"), Some(&json!("read")));
        // Without an id of its key, and for several audiences.
        let header = Header { typ: Some("JOSE".to_owned()), kid: None, ..Header::new(Algorithm::ES256) };
        check(&issuer, &issuer.sign_with(&header, &with("aud", json!(["shop", "bank"])))).unwrap();
        check(&issuer, &issuer.sign(&with("aud", json!("bank")))).unwrap();
    }

    #[test]
    fn w9_every_algorithm_of_the_list_is_taken_and_no_other() {
        for algorithm in crate::jwt::minted::ALGORITHMS {
            let issuer = Issuer::of(algorithm, "one");
            let outcome = check(&issuer, &issuer.sign(&claims()));
            match algorithm {
                Algorithm::EdDSA => assert!(matches!(outcome, Err(JwtSvidError::Header(_))), "{outcome:?}"),
                _ => assert!(outcome.is_ok(), "{algorithm:?}: {outcome:?}"),
            }
        }
        let issuer = Issuer::new("one");
        let signed = issuer.sign(&claims());
        let (_, rest) = signed.split_once('.').unwrap();
        for forged in [r#"{"alg":"none"}"#, r#"{"alg":"HS256"}"#, r#"{"typ":"JWT"}"#, r#"{"alg":256}"#] {
            let token = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(forged));
            assert!(matches!(check(&issuer, &token), Err(JwtSvidError::Header(_))), "{forged}");
        }
    }

    #[test]
    fn w9_a_header_with_anything_but_three_fields_is_refused() {
        let issuer = Issuer::new("one");
        let usual = || Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::ES256) };
        for header in [
            Header { jku: Some("https://evil.example".to_owned()), ..usual() },
            Header { x5u: Some("https://evil.example".to_owned()), ..usual() },
            Header { cty: Some("JWT".to_owned()), ..usual() },
            Header { typ: Some("at+jwt".to_owned()), ..usual() },
        ] {
            let refused = check(&issuer, &issuer.sign_with(&header, &claims()));
            assert!(matches!(refused, Err(JwtSvidError::Header(_))), "{header:?}");
        }
    }

    #[test]
    fn w9_subject_audience_and_end_are_required() {
        let issuer = Issuer::new("one");
        let refused = |claims: &Value| check(&issuer, &issuer.sign(claims)).unwrap_err();
        for subject in
            ["web", "spiffe://cluster.local", "spiffe://Cluster.local/ns/a", "https://cluster.local/x"]
        {
            assert_eq!(refused(&with("sub", json!(subject))), JwtSvidError::Subject, "{subject}");
        }
        assert_eq!(refused(&without("sub")), JwtSvidError::Subject);
        assert_eq!(refused(&without("aud")), JwtError::Audience.into());
        assert_eq!(refused(&with("aud", json!(["shop"]))), JwtError::Audience.into());
        assert_eq!(refused(&without("exp")), JwtError::Claim("exp").into());
        assert_eq!(refused(&with("exp", json!(NOW - 100))), JwtError::Expired(100).into());
    }

    #[test]
    fn t12_the_keys_of_one_domain_say_nothing_about_another() {
        let (ours, theirs) = (Issuer::new("one"), Issuer::new("one"));
        let foreign = ours.sign(&with("sub", json!("spiffe://other.org/web")));
        assert_eq!(check(&ours, &foreign), Err(JwtSvidError::Untrusted("other.org".to_owned())));
        assert_eq!(check(&ours, &theirs.sign(&claims())), Err(JwtError::Signature.into()));
    }

    #[test]
    fn a_key_of_a_bundle_becomes_one_that_verifies_and_an_unreadable_one_is_left_out() {
        let issuer = Issuer::new("one");
        let jwk = serde_json::to_value(issuer.jwk()).unwrap();
        let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
        let spki_der = [P256_HEAD, &coordinate("x"), &coordinate("y")].concat();
        let key = JwtKey { key_id: "one".to_owned(), spki_der };
        let broken = JwtKey { key_id: "two".to_owned(), spki_der: vec![1, 2, 3] };

        let keys = keys_of(&[key.clone(), broken.clone()]).unwrap();
        verify_svid(&issuer.sign(&claims()), "bank", |_| Some(keys.clone()), NOW).unwrap();

        let set = key_set(&[key, broken.clone()], Some("jwt-svid"));
        assert_eq!(set["keys"].as_array().unwrap().len(), 1);
        assert_eq!((&set["keys"][0]["kid"], &set["keys"][0]["use"]), (&json!("one"), &json!("jwt-svid")));
        assert!(keys_of(&[broken]).is_none());
    }
}
