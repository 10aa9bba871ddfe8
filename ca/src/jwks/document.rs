//! From what an issuer publishes to what sidecars receive.
//!
//! Pure.

use douane_proto::jwt::Keys;
use serde_json::{Map, Value, json};

/// What a public key is made of, and what it is for (RFC 7517, 7518, 8037). Certificates, and private parts that should
/// never have been there, are left out.
const MEMBERS: &[&str] = &["kty", "kid", "alg", "use", "key_ops", "n", "e", "crv", "x", "y"];

/// The key set of a document, brought down to its public keys.
pub(super) fn key_set(json: &[u8]) -> Result<String, String> {
    let set: Value = serde_json::from_slice(json).map_err(|error| format!("it is no key set: {error}"))?;
    let Some(Value::Array(entries)) = set.get("keys") else {
        return Err("it is no key set: it has no list \"keys\"".to_owned());
    };
    let public = |entry: &Value| -> Option<Value> {
        let entry = entry.as_object()?;
        // A shared secret is no public key.
        let is_public = entry.get("kty").is_some_and(|kind| kind != "oct");
        let kept = entry.iter().filter(|(member, _)| MEMBERS.contains(&member.as_str()));
        let kept: Map<String, Value> = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
        is_public.then_some(Value::Object(kept))
    };
    let keys: Vec<Value> = entries.iter().filter_map(public).collect();
    let text = json!({ "keys": keys }).to_string();
    match Keys::parse(text.as_bytes()) {
        Ok(_) => Ok(text),
        Err(error) => Err(error.to_string()),
    }
}

/// Where the issuer whose OpenID configuration stands at `url` has its keys. What it says must be about itself (OpenID
/// Connect Discovery 1.0, 4.3).
pub(super) fn keys_of_issuer(json: &[u8], url: &str) -> Result<String, String> {
    let said: Value =
        serde_json::from_slice(json).map_err(|error| format!("it is no OpenID configuration: {error}"))?;
    let text = |key| said.get(key).and_then(Value::as_str);
    let issuer = url.split("/.well-known/").next().unwrap_or_default();
    if text("issuer").is_none_or(|named| named.trim_end_matches('/') != issuer) {
        return Err(format!("its OpenID configuration is not that of {issuer}"));
    }
    let keys = text("jwks_uri").filter(|keys| keys.starts_with("https://") || keys.starts_with("http://"));
    keys.map(str::to_owned).ok_or_else(|| "its OpenID configuration has no jwks_uri".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = r#"{"kty":"EC","crv":"P-256","kid":"one","x5c":["MII"],"d":"secret",
        "x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}"#;

    #[test]
    fn only_public_keys_are_passed_on() {
        let set =
            key_set(format!(r#"{{"keys":[{KEY},{{"kty":"oct","k":"c2VjcmV0"}}]}}"#).as_bytes()).unwrap();
        assert!(set.contains("\"kid\":\"one\""), "{set}");
        assert!(!set.contains("secret") && !set.contains("x5c") && !set.contains("oct"), "{set}");
    }

    #[test]
    fn what_is_no_key_set_is_refused() {
        for text in ["", "<html>", "{}", "[]", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#]
        {
            assert!(key_set(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn an_openid_configuration_counts_for_its_own_issuer_only() {
        let url = "https://issuer.example/a/.well-known/openid-configuration";
        let said = |issuer: &str, keys: &str| format!(r#"{{"issuer":"{issuer}","jwks_uri":"{keys}"}}"#);
        let found = |text: String| keys_of_issuer(text.as_bytes(), url);
        assert_eq!(found(said("https://issuer.example/a/", "https://k/x")).unwrap(), "https://k/x");
        for wrong in [
            said("https://other.example/a", "https://k/x"),
            said("https://issuer.example/a", "file:///etc/passwd"),
            r#"{"issuer":"https://issuer.example/a"}"#.to_owned(),
            "nonsense".to_owned(),
        ] {
            assert!(found(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
