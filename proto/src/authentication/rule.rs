//! One rule: an issuer's keys, the places where its tokens are, and what becomes of them.

use std::sync::Arc;

use http::{HeaderName, header};

use super::{
    output::Output,
    place::{Place, Scheme},
};
use crate::{
    jwt::{self, Claims, Expected, JwtError, Keys, Purpose},
    wire,
};

/// Istio's default parameter, beside `Authorization: Bearer`.
const DEFAULT_PARAM: &str = "access_token";

/// One rule, compiled.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    /// Headers, then parameters, then cookies.
    pub(super) places: Vec<Place>,
    pub(super) output: Output,
    pub(super) original: Original,
    /// Claims that are lists of words.
    pub(super) spaced: Arc<[String]>,
    issuer: Option<String>,
    audiences: Vec<String>,
    /// Without keys: why there are none.
    keys: Result<Keys, String>,
}

/// What becomes of the token itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Original {
    Forwarded,
    TakenOut,
}

/// Why a rule does not accept a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Rejection {
    /// It accepts none.
    #[error("{0}")]
    NoKeys(String),
    /// This one.
    #[error(transparent)]
    Token(#[from] JwtError),
}

impl Rule {
    /// Reads a rule; `complain` hears what cannot be applied as written.
    pub(super) fn compile(rule: &wire::JwtRule, mut complain: impl FnMut(String)) -> Self {
        let keys = match rule.jwks.as_str() {
            "" => Err("there are no keys of its issuer (yet)".to_owned()),
            text => Keys::parse(text.as_bytes()).map_err(|error| {
                let what = format!("the keys of its issuer cannot be used: {error}");
                complain(format!("{what}; every token is refused"));
                what
            }),
        };
        Self {
            places: places(rule, &mut complain),
            output: Output::compile(rule, &mut complain),
            original: if rule.forward_original_token { Original::Forwarded } else { Original::TakenOut },
            spaced: rule.space_delimited_claims.clone().into(),
            issuer: Some(rule.issuer.clone()).filter(|issuer| !issuer.is_empty()),
            audiences: rule.audiences.clone(),
            keys,
        }
    }

    /// From now on it refuses every token.
    pub(super) fn accept_nothing(&mut self, why: &str) {
        self.keys = Err(why.to_owned());
    }

    /// Does it accept the token? `now`: seconds since 1970.
    pub(super) fn verify(&self, token: &str, now: u64) -> Result<Claims, Rejection> {
        let keys = self.keys.as_ref().map_err(|why| Rejection::NoKeys(why.clone()))?;
        let expected = Expected {
            issuer: self.issuer.as_deref(),
            audiences: &self.audiences,
            purpose: Purpose::Request,
        };
        Ok(jwt::verify(token, keys, expected, now)?)
    }
}

impl Rejection {
    /// How far the token came.
    pub(super) fn nearness(&self) -> u8 {
        match self {
            Self::NoKeys(_) => 0,
            Self::Token(JwtError::Malformed | JwtError::Critical) => 1,
            Self::Token(JwtError::UnknownKey) => 2,
            Self::Token(JwtError::Signature) => 3,
            Self::Token(JwtError::Issuer) => 4,
            Self::Token(JwtError::Claim(_) | JwtError::Expired(_) | JwtError::NotYet(_)) => 5,
            Self::Token(JwtError::Audience) => 6,
        }
    }
}

// The defaults are for a rule that names no place at all.
fn places(rule: &wire::JwtRule, mut complain: impl FnMut(String)) -> Vec<Place> {
    if rule.from_headers.is_empty() && rule.from_params.is_empty() && rule.from_cookies.is_empty() {
        return vec![
            Place::Header { name: header::AUTHORIZATION, scheme: Scheme::Bearer },
            Place::Param(DEFAULT_PARAM.to_owned()),
        ];
    }
    let headers = rule.from_headers.iter().filter_map(|place| {
        let Ok(name) = HeaderName::from_bytes(place.name.as_bytes()) else {
            complain(format!("{:?} is no header's name: it is not looked at", place.name));
            return None;
        };
        Some(Place::Header { name, scheme: Scheme::Prefix(place.prefix.clone()) })
    });
    let params = rule.from_params.iter().cloned().map(Place::Param);
    let cookies = rule.from_cookies.iter().cloned().map(Place::Cookie);
    headers.chain(params).chain(cookies).collect()
}
