//! What a JWT-SVID says: whose it is, for whom, until when. Pure; who asks was proven before, and signing comes after.

use std::time::Duration;

use douane_proto::id::WorkloadId;
use serde_json::json;

/// Audiences of one token; more than one lets each of them pass for the caller at the others (JWT-SVID 6.2).
const MAX_AUDIENCES: usize = 16;
/// Of each.
const MAX_AUDIENCE_BYTES: usize = 512;
/// A bearer token is good for whoever holds it: short (JWT-SVID 3.3).
const LONGEST: Duration = Duration::from_secs(5 * 60);
/// What still reaches its audience.
const SHORTEST: Duration = Duration::from_secs(10);

/// Why the audiences cannot be signed.
pub(super) const AUDIENCES: &str =
    "no audience, more than 16, or one that is empty, longer than 512 bytes or not printable";

/// A token that left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// JWS compact serialization.
    pub text: String,
    /// Seconds since 1970.
    pub expires: i64,
}

/// What shall be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) json: String,
    pub(super) id: String,
    pub(super) audiences: Vec<String>,
    pub(super) expires: i64,
}

/// The claims of `id` for `audiences`, each once; `None` when those are none.
pub(super) fn claims(
    id: &WorkloadId,
    audiences: &[String],
    wanted: Option<Duration>,
    (token_id, now): (u128, i64),
) -> Option<Claims> {
    let is_printable = |text: &String| !text.chars().any(char::is_control);
    let is_fine = |text: &String| (1..=MAX_AUDIENCE_BYTES).contains(&text.len()) && is_printable(text);
    if !(1..=MAX_AUDIENCES).contains(&audiences.len()) || !audiences.iter().all(is_fine) {
        return None;
    }
    let mut once: Vec<String> = Vec::new();
    for audience in audiences {
        if !once.contains(audience) {
            once.push(audience.clone());
        }
    }
    let life = wanted.map_or(LONGEST, |wanted| wanted.clamp(SHORTEST, LONGEST));
    let expires = now.saturating_add(i64::try_from(life.as_secs()).ok()?);
    let token_id = format!("{token_id:032x}");
    let claims = json!({ "sub": id.to_string(), "aud": once, "exp": expires, "iat": now, "jti": token_id });
    Some(Claims { json: claims.to_string(), id: token_id, audiences: once, expires })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn made(audiences: &[&str], wanted: Option<u64>) -> Option<Claims> {
        let id = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
        let audiences: Vec<_> = audiences.iter().map(|one| (*one).to_owned()).collect();
        claims(&id, &audiences, wanted.map(Duration::from_secs), (7, NOW))
    }

    #[test]
    fn a_token_says_whose_it_is_for_whom_and_until_when() {
        let claims = made(&["bank", "shop", "bank"], None).unwrap();
        let said: serde_json::Value = serde_json::from_str(&claims.json).unwrap();
        assert_eq!(
            said,
            json!({
                "sub": "spiffe://cluster.local/ns/shop/sa/web",
                "aud": ["bank", "shop"],
                "exp": NOW + 300,
                "iat": NOW,
                "jti": "00000000000000000000000000000007",
            })
        );
    }

    #[test]
    fn a_wish_for_a_lifetime_is_cut_to_five_minutes() {
        for (wanted, expected) in [(None, 300), (Some(60), 60), (Some(1), 10), (Some(86_400), 300)] {
            assert_eq!(made(&["bank"], wanted).unwrap().expires, NOW + expected, "{wanted:?}");
        }
    }

    #[test]
    fn audiences_that_are_none_are_refused() {
        let long = "a".repeat(513);
        for wrong in [&[][..], &[""], &["bank", ""], &[long.as_str()], &["a\nb"], &["a"; 17]] {
            assert_eq!(made(wrong, None), None, "{wrong:?}");
        }
    }
}
