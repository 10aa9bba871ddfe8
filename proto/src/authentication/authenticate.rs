//! The check of a request's tokens: each one that is in a place where a rule looks must be accepted by a rule that looks
//! there; one that is not refuses the request, whatever the others are.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, Method, header};

use super::{
    output,
    place::Place,
    refused::TokenRefused,
    rule::{Original, Rejection, Rule},
    set::Authentication,
};
use crate::{
    facts::{RequestFacts, Token},
    jwt::{Claims, JwtError},
};

/// A request has one token, or two; each one costs a signature check.
const MAX_TOKENS: usize = 16;

/// A token in the request, and the rules that look at it, in order.
struct Seen<'rules, 'request> {
    token: Cow<'request, [u8]>,
    place: &'rules Place,
    lookers: Vec<Looker<'rules>>,
}

/// A rule that found a token.
#[derive(Clone, Copy)]
struct Looker<'a> {
    rule: &'a Rule,
    place: &'a Place,
    /// Of the rule among all, and of the place among the rule's.
    order: (usize, usize),
}

/// A token that a rule accepted.
struct Accepted<'a> {
    token: String,
    claims: Claims,
    by: Looker<'a>,
}

impl Authentication {
    /// Verifies every token in a place that a rule looks at, takes those out that are not forwarded, and sets and clears
    /// the headers that rules own. `now`: seconds since 1970.
    ///
    /// The user is the one of the first accepted token: in the order of the rules, and for one rule in the order of its
    /// places (headers, then parameters, then cookies). Of several rules that would accept a token the first counts.
    ///
    /// # Errors
    /// [`TokenRefused`] when there is a token that is not valid, also where another one is.
    pub fn authenticate(&self, request: &mut RequestFacts, now: u64) -> Result<(), TokenRefused> {
        request.token = None;
        let mut accepted = if is_preflight(request) { Vec::new() } else { self.accept(request, now)? };
        output::clear(&self.owned, &mut request.headers);
        accepted.sort_by_key(|accepted| accepted.by.order);
        for Accepted { token, by, .. } in &accepted {
            if by.rule.original == Original::TakenOut {
                by.place.take_out(token.as_bytes(), request);
            }
        }
        for Accepted { token, claims, by } in &accepted {
            by.rule.output.write(token, claims, &mut request.headers);
        }
        let first = accepted.into_iter().next();
        request.token =
            first.map(|first| Token { claims: first.claims, spaced: first.by.rule.spaced.clone() });
        Ok(())
    }

    fn accept(&self, request: &RequestFacts, now: u64) -> Result<Vec<Accepted<'_>>, TokenRefused> {
        self.seen(request)?.iter().map(|seen| seen.accept(now)).collect()
    }

    fn seen<'request>(
        &self,
        request: &'request RequestFacts,
    ) -> Result<Vec<Seen<'_, 'request>>, TokenRefused> {
        let mut all = Vec::<Seen<'_, 'request>>::new();
        let lookers = self.rules.iter().enumerate().flat_map(|(first, rule)| {
            let places = rule.places.iter().enumerate();
            places.map(move |(second, place)| Looker { rule, place, order: (first, second) })
        });
        for looker in lookers {
            let place = looker.place;
            place.tokens(request, |token| {
                if let Some(seen) = all.iter_mut().find(|seen| seen.is(place, &token)) {
                    seen.lookers.push(looker);
                } else if all.len() <= MAX_TOKENS {
                    // One more than are looked at, so that they are known to be too many.
                    all.push(Seen { token, place, lookers: vec![looker] });
                }
            });
        }
        match all.get(MAX_TOKENS) {
            Some(last) => Err(TokenRefused::Invalid {
                place: last.place.to_string(),
                why: format!("the request has more than {MAX_TOKENS} tokens"),
            }),
            None => Ok(all),
        }
    }
}

impl<'rules> Seen<'rules, '_> {
    fn is(&self, place: &Place, token: &[u8]) -> bool {
        self.place.reads_what(place) && *self.token == *token
    }

    fn accept(&self, now: u64) -> Result<Accepted<'rules>, TokenRefused> {
        // What is no text is no token either.
        let text = std::str::from_utf8(&self.token).unwrap_or_default();
        let mut nearest: Option<Rejection> = None;
        for by in &self.lookers {
            match by.rule.verify(text, now) {
                Ok(claims) => return Ok(Accepted { token: text.to_owned(), claims, by: *by }),
                Err(rejection) => {
                    let nearer = nearest.as_ref().is_none_or(|other| other.nearness() < rejection.nearness());
                    nearest = if nearer { Some(rejection) } else { nearest };
                }
            }
        }
        let place = self.place.to_string();
        Err(match nearest {
            Some(Rejection::Token(JwtError::Audience)) => TokenRefused::Audience { place },
            Some(rejection) => TokenRefused::Invalid { place, why: rejection.to_string() },
            None => TokenRefused::Invalid { place, why: "no rule looks at it".to_owned() },
        })
    }
}

// A browser sends no token with it (Fetch 3.2.2), so that none can be asked for.
fn is_preflight(request: &RequestFacts) -> bool {
    let says =
        |headers: &HeaderMap, name: &HeaderName| headers.get(name).is_some_and(|value| !value.is_empty());
    request.method == Method::OPTIONS
        && says(&request.headers, &header::ORIGIN)
        && says(&request.headers, &header::ACCESS_CONTROL_REQUEST_METHOD)
}
