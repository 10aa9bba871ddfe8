//! The check of one token: size, header, signature, time, issuer, audience, in this order. The signature costs ten times as
//! much as all else: whoever sees a token again may look at everything but that.

use jsonwebtoken::{Algorithm, Validation};
use serde_json::{Map, Value};

use super::{
    claims::{Claims, date},
    keys::{Key, Keys},
};

/// Tokens have one or two KiB; longer ones are refused unread.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// What a token must say of itself.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// `iss`, exactly; `None` accepts every issuer whose key is among the keys.
    pub issuer: Option<&'a str>,
    /// One of these must be in `aud`; an empty list accepts every audience.
    pub audiences: &'a [String],
    /// How strictly time is read.
    pub purpose: Purpose,
}

/// What a token is shown for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To get a certificate: it must expire (`exp`), clocks may differ by 10 s.
    Attestation,
    /// To say who a request's user is, as Istio reads it: without `exp` it never expires, clocks may differ by 60 s.
    Request,
}

/// Why a token is refused. Never holds the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// Not a JWT, or longer than 16 KiB.
    #[error("it is not a JWT")]
    Malformed,
    /// It names header fields that must be understood (RFC 7515 4.1.11); we understand none.
    #[error("its header demands an extension that is not understood (crit)")]
    Critical,
    /// No key of that id or algorithm.
    #[error("no key of the key set fits its key id and algorithm")]
    UnknownKey,
    /// The signature is wrong.
    #[error("its signature is wrong")]
    Signature,
    /// It is too late.
    #[error("it expired {0} s ago")]
    Expired(u64),
    /// It is too early.
    #[error("it is valid in {0} s only")]
    NotYet(u64),
    /// A required claim is absent, or of another type.
    #[error("its claim {0:?} is missing or malformed")]
    Claim(&'static str),
    /// Another issuer's.
    #[error("its issuer is not the expected one")]
    Issuer,
    /// For somebody else.
    #[error("its audience is not the expected one")]
    Audience,
}

impl Purpose {
    // Clocks of issuer and verifier may differ by so many seconds.
    fn leeway(self) -> u64 {
        match self {
            Self::Attestation => 10,
            Self::Request => 60,
        }
    }
}

/// Verifies signature, issuer, audience and time (`now`: seconds since 1970) of a token.
///
/// # Errors
/// [`JwtError`] says what is wrong, for the log; it tells the token's sender nothing that it may not know.
/// [`JwtError::Audience`] only where nothing else is.
pub fn verify(token: &str, keys: &Keys, expected: Expected<'_>, now: u64) -> Result<Claims, JwtError> {
    let claims = signed(token, keys)?;
    hold_to(&claims, expected, now)?;
    Ok(claims)
}

/// The same of a token that [`verify`] took before, with the very keys that count now: all but its signature is looked at
/// again. For whoever remembers which tokens those were; of any other this proves nothing.
///
/// # Errors
/// As [`verify`].
pub fn verify_again(token: &str, expected: Expected<'_>, now: u64) -> Result<Claims, JwtError> {
    let claims = unverified(token).ok_or(JwtError::Malformed)?;
    hold_to(&claims, expected, now)?;
    Ok(claims)
}

// What a token says that one of `keys` has signed. Nothing of it is held against anything yet, not even the time.
fn signed(token: &str, keys: &Keys) -> Result<Claims, JwtError> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(JwtError::Malformed);
    }
    // An algorithm outside the library's list ("none", for one) is malformed already here.
    let header = jsonwebtoken::decode_header(token).map_err(|_| JwtError::Malformed)?;
    if header.crit.is_some() {
        return Err(JwtError::Critical);
    }
    let mut fitting = keys.fitting(header.kid.as_deref(), header.alg).peekable();
    if fitting.peek().is_none() {
        return Err(JwtError::UnknownKey);
    }
    fitting.find_map(|key| signed_by(token, key, header.alg)).ok_or(JwtError::Signature)
}

// Is it in time, of the expected issuer, for the expected audience?
fn hold_to(claims: &Claims, expected: Expected<'_>, now: u64) -> Result<(), JwtError> {
    in_time(claims, expected.purpose, now)?;
    if expected.issuer.is_some_and(|issuer| claims.issuer() != Some(issuer)) {
        return Err(JwtError::Issuer);
    }
    if !expected.audiences.is_empty() && !claims.has_audience(expected.audiences) {
        return Err(JwtError::Audience);
    }
    Ok(())
}

/// What a token says of its issuer. Not verified: it may choose the keys that the token is verified with, and nothing else.
#[must_use]
pub fn unverified_issuer(token: &str) -> Option<String> {
    unverified(token)?.issuer().map(str::to_owned)
}

fn unverified(token: &str) -> Option<Claims> {
    if token.len() > MAX_TOKEN_BYTES {
        return None;
    }
    let token = jsonwebtoken::dangerous::insecure_decode::<Map<String, Value>>(token).ok()?;
    Some(Claims(token.claims))
}

fn signed_by(token: &str, key: &Key, algorithm: Algorithm) -> Option<Claims> {
    // The library would read the clock, and lets an absent `aud` pass: here it checks the signature alone.
    let mut signature_only = Validation::new(algorithm);
    signature_only.required_spec_claims.clear();
    signature_only.validate_exp = false;
    signature_only.validate_aud = false;
    let token = jsonwebtoken::decode::<Map<String, Value>>(token, &key.key, &signature_only).ok()?;
    Some(Claims(token.claims))
}

fn in_time(claims: &Claims, purpose: Purpose, now: u64) -> Result<(), JwtError> {
    let leeway = purpose.leeway();
    let seconds = |name: &'static str| {
        claims.get(name).map(|value| date(value).ok_or(JwtError::Claim(name))).transpose()
    };
    match seconds("exp")? {
        Some(expires) if now >= expires.saturating_add(leeway) => {
            return Err(JwtError::Expired(now.saturating_sub(expires)));
        }
        None if purpose == Purpose::Attestation => return Err(JwtError::Claim("exp")),
        _ => {}
    }
    match seconds("nbf")? {
        Some(start) if start > now.saturating_add(leeway) => Err(JwtError::NotYet(start.saturating_sub(now))),
        _ => Ok(()),
    }
}
