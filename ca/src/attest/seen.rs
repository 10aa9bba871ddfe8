//! Which tokens verified before: a sidecar shows the same one until its kubelet has written the next, and of all that makes a
//! certificate the check of its token's signature is a fifth.
//!
//! Remembered is one fact alone: that these bytes (by their SHA-256) are signed by a key of this very key set. Whatever else
//! a token says is looked at each time: when it ends, its issuer, its audience, whose identity it proves. Another key set, even
//! one that still holds the key, ends the memory at once. Single-use tokens never come here.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aws_lc_rs::digest::{SHA256, digest};
use douane_proto::jwt::{self, Claims, Expected, JwtError, Keys};

/// Of twice as many tokens as we serve sidecars, 48 bytes each; then the older half is forgotten.
const MOST_REMEMBERED: usize = 20_000;
const HASH_BYTES: usize = 32;

/// The tokens of one issuer that verified.
#[derive(Default)]
pub(super) struct Seen(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    // The key set that it is true of. Held, so that no other can take its address.
    keys: Option<Arc<Keys>>,
    recent: HashSet<[u8; HASH_BYTES]>,
    before: HashSet<[u8; HASH_BYTES]>,
}

impl Seen {
    /// Verifies `token` at `now` (seconds since 1970), its signature only where that is not known of `keys`.
    pub(super) fn verify(
        &self,
        token: &str,
        keys: &Arc<Keys>,
        expected: Expected<'_>,
        now: u64,
    ) -> Result<Claims, JwtError> {
        let mut hash = [0; HASH_BYTES];
        hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        if self.memory().knows(&hash, keys) {
            return jwt::verify_again(token, expected, now);
        }
        let claims = jwt::verify(token, keys, expected, now)?;
        self.memory().learn(hash, keys);
        Ok(claims)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn knows(&mut self, hash: &[u8; HASH_BYTES], keys: &Arc<Keys>) -> bool {
        if !self.is_of(keys) {
            return false;
        }
        // Who is seen again is as good as new.
        self.recent.contains(hash) || (self.before.remove(hash) && self.insert(*hash))
    }

    fn learn(&mut self, hash: [u8; HASH_BYTES], keys: &Arc<Keys>) {
        if !self.is_of(keys) {
            *self = Self { keys: Some(Arc::clone(keys)), ..Self::default() };
        }
        self.insert(hash);
    }

    fn insert(&mut self, hash: [u8; HASH_BYTES]) -> bool {
        if self.recent.len() >= MOST_REMEMBERED {
            self.before = std::mem::take(&mut self.recent);
        }
        self.recent.insert(hash)
    }

    fn is_of(&self, keys: &Arc<Keys>) -> bool {
        self.keys.as_ref().is_some_and(|known| Arc::ptr_eq(known, keys))
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
    use serde_json::json;

    use super::*;
    use douane_proto::jwt::Purpose;

    const NOW: u64 = 1_800_000_000;

    struct Issuer {
        key: EncodingKey,
        keys: Arc<Keys>,
    }

    fn issuer() -> Issuer {
        let key = EncodingKey::from_ec_der(&rcgen::KeyPair::generate().unwrap().serialize_der());
        let jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
        Issuer { keys: parsed(&jwk), key }
    }

    fn parsed(jwk: &Jwk) -> Arc<Keys> {
        Arc::new(Keys::parse(json!({ "keys": [jwk] }).to_string().as_bytes()).unwrap())
    }

    fn token(issuer: &Issuer, subject: &str) -> String {
        let claims = json!({ "iss": "one", "aud": "us", "sub": subject, "exp": NOW + 600 });
        encode(&Header::new(Algorithm::ES256), &claims, &issuer.key).unwrap()
    }

    fn check(
        seen: &Seen,
        token: &str,
        (keys, now): (&Arc<Keys>, u64),
        audience: &str,
    ) -> Result<(), JwtError> {
        let audiences = [audience.to_owned()];
        let expected = Expected { issuer: Some("one"), audiences: &audiences, purpose: Purpose::Attestation };
        seen.verify(token, keys, expected, now).map(drop)
    }

    fn is_remembered(seen: &Seen, token: &str, keys: &Arc<Keys>) -> bool {
        let mut hash = [0; HASH_BYTES];
        hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        seen.memory().knows(&hash, keys)
    }

    #[test]
    fn t3_a_token_that_verified_before_is_still_refused_when_it_expires_or_is_for_somebody_else() {
        let (one, seen) = (issuer(), Seen::default());
        let token = token(&one, "a");
        check(&seen, &token, (&one.keys, NOW), "us").unwrap();
        assert!(is_remembered(&seen, &token, &one.keys));
        check(&seen, &token, (&one.keys, NOW + 1), "us").unwrap();
        assert_eq!(check(&seen, &token, (&one.keys, NOW), "them"), Err(JwtError::Audience));
        assert_eq!(check(&seen, &token, (&one.keys, NOW + 610), "us"), Err(JwtError::Expired(10)));
    }

    #[test]
    fn t3_another_key_set_ends_the_memory_at_once_even_if_it_holds_the_same_key() {
        let (one, other, seen) = (issuer(), issuer(), Seen::default());
        let token = token(&one, "a");
        check(&seen, &token, (&one.keys, NOW), "us").unwrap();
        assert_eq!(check(&seen, &token, (&other.keys, NOW), "us"), Err(JwtError::Signature));
        let jwk = Jwk::from_encoding_key(&one.key, Algorithm::ES256).unwrap();
        let read_again = parsed(&jwk);
        assert!(!is_remembered(&seen, &token, &read_again));
        check(&seen, &token, (&read_again, NOW), "us").unwrap();
        assert!(!is_remembered(&seen, &token, &one.keys), "the old set is forgotten");
    }

    #[test]
    fn t3_what_did_not_verify_is_not_remembered_nor_is_a_token_that_differs_in_one_letter() {
        let (one, other, seen) = (issuer(), issuer(), Seen::default());
        let (token, forged) = (token(&one, "a"), token(&other, "a"));
        for _ in 0..2 {
            assert_eq!(check(&seen, &forged, (&one.keys, NOW), "us"), Err(JwtError::Signature));
            assert_eq!(check(&seen, &token, (&one.keys, NOW), "them"), Err(JwtError::Audience));
        }
        assert!(!is_remembered(&seen, &token, &one.keys) && !is_remembered(&seen, &forged, &one.keys));
        check(&seen, &token, (&one.keys, NOW), "us").unwrap();
        let claims = token.rfind('.').unwrap() - 1;
        let other_letter = if &token[claims..=claims] == "A" { "B" } else { "A" };
        let changed = format!("{}{other_letter}{}", &token[..claims], &token[claims + 1..]);
        assert!(check(&seen, &changed, (&one.keys, NOW), "us").is_err());
    }

    #[test]
    fn t6_memory_is_bounded_and_keeps_who_comes_again() {
        let keys = issuer().keys;
        let mut memory = Memory::default();
        let hash = |number: usize| {
            let mut hash = [0; HASH_BYTES];
            hash[..8].copy_from_slice(&number.to_le_bytes());
            hash
        };
        for number in 0..5 * MOST_REMEMBERED {
            memory.learn(hash(number), &keys);
            assert!(memory.knows(&hash(0), &keys));
            assert!(memory.recent.len() + memory.before.len() <= 2 * MOST_REMEMBERED);
        }
        assert!(!memory.knows(&hash(1), &keys));
    }
}
