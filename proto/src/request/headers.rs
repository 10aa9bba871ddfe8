//! Headers that belong to one hop, and those that only we may say.
//!
//! Knows not which way a request goes; both sides of the sidecar apply it.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};

use super::error::BadRequest;

/// The direct peer's proven identity, for the application (Envoy's form). Never read for a decision.
pub const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

const RESERVED_PREFIX: &str = "x-douane-";
/// What Envoy's own hops tell each other, and some applications believe (CVE-2023-27487, CVE-2024-45806).
const ENVOY_PREFIX: &str = "x-envoy-";
// Removing one of these because `Connection` names it would change who is asked, or by whom (CVE-2026-105299).
const NOT_HOP_BY_HOP: &[&str] = &[
    "host",
    "authorization",
    "content-length",
    "content-type",
    "cookie",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-real-ip",
    "forwarded",
    "traceparent",
    "tracestate",
];

// Framing, routing, identity, and what belongs to a hop.
const NOT_IN_TRAILERS: &[&str] = &[
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
];

/// Removes what belongs to one hop only (RFC 9110 7.6.1), and what we do not offer (`Upgrade`, so no h2c;
/// `Expect`, since 100-continue is answered hop by hop). `TE: trailers` stays: every hop of ours keeps trailers.
///
/// # Errors
/// [`BadRequest::ConnectionNames`] when `Connection` names what must not be removed.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) -> Result<(), BadRequest> {
    // One look over the names: most heads have none of them, between sidecars all but a few.
    let found: Vec<HeaderName> = headers.keys().filter(|name| belongs_to_a_hop(name)).cloned().collect();
    if found.is_empty() {
        return Ok(());
    }
    let trailers = wants_trailers(headers);
    if headers.contains_key(header::CONNECTION) {
        for name in connection_names(headers) {
            if NOT_HOP_BY_HOP.contains(&name.as_str()) || is_ours(&name) {
                return Err(BadRequest::ConnectionNames(name.to_string()));
            }
            headers.remove(name);
        }
    }
    for name in found {
        headers.remove(name);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    Ok(())
}

/// Removes what an application or a peer must not say: our own headers and the identity header, in any spelling that
/// an application might take for them.
pub fn strip_reserved(headers: &mut HeaderMap) {
    remove_all(headers, is_ours);
}

/// Removes what a peer must not say: [`strip_reserved`], and the internal headers of Envoy.
pub(super) fn strip_internal(headers: &mut HeaderMap) {
    remove_all(headers, |name| {
        may_be_reserved(name) && (is_ours(name) || dashed(name).starts_with(ENVOY_PREFIX))
    });
}

/// Cleans what follows a body: nothing there says how long something is, who is asked or who asks (RFC 9110 6.5.1), nor
/// what belongs to one hop only.
pub fn clean_trailers(trailers: &mut HeaderMap) {
    remove_all(trailers, |name| is_ours(name) || NOT_IN_TRAILERS.contains(&dashed(name).as_ref()));
}

fn remove_all(headers: &mut HeaderMap, is_meant: impl Fn(&HeaderName) -> bool) {
    let meant: Vec<HeaderName> = headers.keys().filter(|name| is_meant(name)).cloned().collect();
    for name in meant {
        headers.remove(name);
    }
}

/// Makes one header of the pieces that HTTP/2 permits a cookie to come in (RFC 9113 8.2.3), as HTTP/1 applications
/// must hear it: some read only the first.
pub fn join_cookies(headers: &mut HeaderMap) {
    let pieces: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if pieces.len() < 2 {
        return;
    }
    match HeaderValue::from_bytes(&pieces.join(&b"; "[..])) {
        Ok(joined) => drop(headers.insert(header::COOKIE, joined)),
        // Of valid values always a value.
        Err(_) => drop(headers.remove(header::COOKIE)),
    }
}

/// The target in origin form (or `*`), as it was sent.
#[must_use]
pub fn origin_form(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
}

// Looked for by its text, which tells most names apart by their length.
fn belongs_to_a_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "http2-settings"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "expect"
    )
}

fn connection_names(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        // What most say: no header's name, and one that goes anyway.
        .filter(|token| !token.eq_ignore_ascii_case(b"close") && !token.eq_ignore_ascii_case(b"keep-alive"))
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .collect()
}

fn wants_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::TE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

pub(crate) fn is_ours(name: &HeaderName) -> bool {
    if !may_be_reserved(name) {
        return false;
    }
    let dashed = dashed(name);
    dashed.starts_with(RESERVED_PREFIX) || dashed == CLIENT_CERT.as_str()
}

// All that is reserved by its beginning begins so; the others cost nothing.
fn may_be_reserved(name: &HeaderName) -> bool {
    name.as_str().starts_with('x')
}

// Some applications see `_` and `-` as one (CGI), so both spellings are reserved.
fn dashed(name: &HeaderName) -> Cow<'_, str> {
    let name = name.as_str();
    if name.contains('_') { name.replace('_', "-").into() } else { name.into() }
}
