//! Where in a request a token may be: found there, and taken out of there without a change to anything beside it.

use std::{borrow::Cow, fmt};

use http::{HeaderName, HeaderValue, header};

use super::query;
use crate::facts::RequestFacts;

/// Where a token may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Header {
        name: HeaderName,
        scheme: Scheme,
    },
    /// A parameter of the query.
    Param(String),
    Cookie(String),
}

/// What stands before the token in a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scheme {
    /// RFC 6750 2.1; the case of a scheme does not matter (RFC 9110 11.1).
    Bearer,
    /// Exactly this.
    Prefix(String),
}

impl Place {
    /// Every token that is here, in the order in which they were sent.
    pub(super) fn tokens<'a>(&self, request: &'a RequestFacts, mut found: impl FnMut(Cow<'a, [u8]>)) {
        match self {
            Self::Header { name, scheme } => {
                let values = request.headers.get_all(name).iter();
                values
                    .filter_map(|value| scheme.token(value.as_bytes()))
                    .for_each(|token| found(token.into()));
            }
            Self::Param(name) => {
                let Some(query) = &request.target.query else { return };
                query.split('&').filter_map(|part| query::value_of(part, name)).for_each(found);
            }
            Self::Cookie(name) => {
                let lines = request.headers.get_all(header::COOKIE).iter();
                lines
                    .flat_map(|line| crumbs(line.as_bytes()))
                    .filter_map(|crumb| cookie(crumb, name))
                    .for_each(|token| found(token.into()));
            }
        }
    }

    /// Do both read the same header, parameter or cookie?
    pub(super) fn reads_what(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Header { name, .. }, Self::Header { name: other, .. }) => name == other,
            _ => self == other,
        }
    }

    /// Takes the token out.
    pub(super) fn take_out(&self, token: &[u8], request: &mut RequestFacts) {
        match self {
            Self::Header { name, scheme } => {
                rewrite(request, name, |value| (scheme.token(value) != Some(token)).then(|| value.to_vec()));
            }
            Self::Param(name) => {
                let Some(query) = request.target.query.take() else { return };
                let holds = |part: &&str| query::value_of(part, name).is_some_and(|value| *value == *token);
                let kept: Vec<&str> = query.split('&').filter(|part| !holds(part)).collect();
                request.target.query = (!kept.is_empty()).then(|| kept.join("&"));
            }
            Self::Cookie(name) => rewrite(request, &header::COOKIE, |line| {
                let kept: Vec<&[u8]> =
                    crumbs(line).filter(|crumb| cookie(crumb, name) != Some(token)).collect();
                (!kept.is_empty()).then(|| kept.join(&b"; "[..]))
            }),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header { name, .. } => write!(f, "header {name}"),
            Self::Param(name) => write!(f, "query parameter {name}"),
            Self::Cookie(name) => write!(f, "cookie {name}"),
        }
    }
}

impl Scheme {
    // Blanks between a scheme and its token do not count.
    fn token<'a>(&self, value: &'a [u8]) -> Option<&'a [u8]> {
        let rest = match self {
            Self::Bearer => {
                let (scheme, rest) = value.split_at_checked(BEARER.len())?;
                scheme.eq_ignore_ascii_case(BEARER).then_some(rest)?
            }
            Self::Prefix(prefix) => value.strip_prefix(prefix.as_bytes())?,
        };
        Some(rest.trim_ascii())
    }
}

const BEARER: &[u8] = b"Bearer ";

// RFC 6265 4.2.1.
fn crumbs(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b';').map(<[u8]>::trim_ascii)
}

fn cookie<'a>(crumb: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let value = crumb.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
    Some(value.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\"")).unwrap_or(value))
}

// Every value of a header: as `keep` has it, or gone. A header that keeps all of its values stays where it is.
fn rewrite(request: &mut RequestFacts, name: &HeaderName, keep: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    let values = request.headers.get_all(name).iter();
    let kept: Vec<Option<Vec<u8>>> = values.map(|value| keep(value.as_bytes())).collect();
    request.headers.remove(name);
    // Of a part of a valid value always a value.
    for value in kept.into_iter().flatten().filter_map(|value| HeaderValue::from_bytes(&value).ok()) {
        request.headers.append(name.clone(), value);
    }
}
