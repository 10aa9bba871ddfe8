//! Headers at a hop: what must not cross it, what only we may say, and which host the request is for.
//!
//! Knows not which way a request goes; `inbound/http` and `outbound/http` choose what to apply.

use douane_proto::id::WorkloadId;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version, header, request::Parts};

use crate::refusal::BadRequest;

/// Tells the receiving sidecar which HTTP/1 the application spoke. Absent: HTTP/2.
pub const DIALECT_HTTP: HeaderName = HeaderName::from_static("x-douane-http");
/// The direct peer's proven identity, for the application (Envoy's form). Never read for a decision.
pub const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

const RESERVED_PREFIX: &str = "x-douane-";
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
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
    "traceparent",
    "tracestate",
];

/// How an application speaks HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Speech {
    /// HTTP/1.0: never chunked.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2 with prior knowledge.
    Http2,
}

impl Speech {
    /// By the version of a request.
    #[must_use]
    pub fn of(version: Version) -> Self {
        match version {
            Version::HTTP_09 | Version::HTTP_10 => Self::Http10,
            Version::HTTP_11 => Self::Http11,
            _ => Self::Http2,
        }
    }

    /// As records say it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http10 => "http/1.0",
            Self::Http11 => "http/1.1",
            Self::Http2 => "h2",
        }
    }

    /// Says it to the receiving sidecar.
    pub fn write_to(self, headers: &mut HeaderMap) {
        let value = match self {
            Self::Http10 => "1.0",
            Self::Http11 => "1.1",
            Self::Http2 => return,
        };
        headers.insert(DIALECT_HTTP, HeaderValue::from_static(value));
    }

    /// Reads it from a sidecar's request.
    ///
    /// # Errors
    /// [`BadRequest::Dialect`] for another value, or more than one.
    pub fn from_dialect(headers: &HeaderMap) -> Result<Self, BadRequest> {
        let mut values = headers.get_all(DIALECT_HTTP).iter();
        match (values.next().map(HeaderValue::as_bytes), values.next()) {
            (None, _) => Ok(Self::Http2),
            (Some(b"1.0"), None) => Ok(Self::Http10),
            (Some(b"1.1"), None) => Ok(Self::Http11),
            _ => Err(BadRequest::Dialect),
        }
    }
}

/// Removes what belongs to one hop only (RFC 9110 7.6.1), and what we do not offer (`Upgrade`, so no h2c;
/// `Expect`, since 100-continue is answered hop by hop). `TE: trailers` stays: every hop of ours keeps trailers.
///
/// # Errors
/// [`BadRequest::ConnectionNames`] when `Connection` names what must not be removed.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) -> Result<(), BadRequest> {
    let trailers = wants_trailers(headers);
    if headers.contains_key(header::CONNECTION) {
        for name in connection_names(headers) {
            if NOT_HOP_BY_HOP.contains(&name.as_str()) || is_reserved(&name) {
                return Err(BadRequest::ConnectionNames(name.to_string()));
            }
            headers.remove(name);
        }
    }
    for name in [
        header::CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        HTTP2_SETTINGS,
        header::TE,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::EXPECT,
    ] {
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
    let reserved: Vec<HeaderName> = headers.keys().filter(|name| is_reserved(name)).cloned().collect();
    for name in reserved {
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

/// Cleans an answer for its next hop.
pub fn clean_answer(headers: &mut HeaderMap) {
    // An application's faulty `Connection` must not cost the answer; what can be removed is.
    if strip_hop_by_hop(headers).is_err() {
        headers.remove(header::CONNECTION);
        let _ = strip_hop_by_hop(headers);
    }
    headers.remove(header::TE);
    strip_reserved(headers);
}

/// The identity header for the application behind `local`.
#[must_use]
pub fn client_cert(local: &WorkloadId, peer: &WorkloadId) -> Option<HeaderValue> {
    // SPIFFE IDs hold no character that would need quoting.
    HeaderValue::try_from(format!("By={local};URI={peer}")).ok()
}

/// Which host the request is for; `None` where HTTP/1.0 names none.
///
/// # Errors
/// [`BadRequest`] when there is none, several, or two that differ.
pub fn authority(parts: &Parts) -> Result<Option<String>, BadRequest> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(BadRequest::ManyHosts);
    }
    let host = host.map(|host| host.to_str().map_err(|_| BadRequest::NoHost)).transpose()?;
    let named = parts.uri.authority().map(http::uri::Authority::as_str);
    match (named, host) {
        (Some(named), Some(host))
            if parts.version >= Version::HTTP_2 && !named.eq_ignore_ascii_case(host) =>
        {
            Err(BadRequest::HostMismatch)
        }
        // RFC 9112 3.2.2: the absolute form replaces Host.
        (Some(named), _) => Ok(Some(named.to_owned())),
        (None, Some(host)) => Ok(Some(host.to_owned())),
        (None, None) if parts.version <= Version::HTTP_10 => Ok(None),
        (None, None) => Err(BadRequest::NoHost),
    }
}

/// The target in origin form (or `*`), as it was sent.
#[must_use]
pub fn origin_form(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
}

/// Is it a gRPC request or answer?
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// The `grpc-status` among headers or trailers.
#[must_use]
pub fn grpc_status_of(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

fn connection_names(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
        .collect()
}

fn wants_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::TE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

// Some applications see `_` and `-` as one (CGI), so both spellings are reserved.
fn is_reserved(name: &HeaderName) -> bool {
    let name = name.as_str();
    if !name.starts_with('x') {
        return false;
    }
    let dashed = name.replace('_', "-");
    dashed.starts_with(RESERVED_PREFIX) || dashed == CLIENT_CERT.as_str()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn hop_by_hop_headers_do_not_cross_and_trailers_stay_wanted() {
        let mut headers = map(&[
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "5"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("x-end", "1"),
        ]);

        strip_hop_by_hop(&mut headers).unwrap();

        assert_eq!(headers, map(&[("x-end", "1"), ("te", "trailers")]));
    }

    #[test]
    fn connection_cannot_remove_identity_or_host() {
        for name in ["x-forwarded-client-cert", "Host", "authorization", "x-douane-http"] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONNECTION, HeaderValue::from_str(name).unwrap());
            assert!(strip_hop_by_hop(&mut headers).is_err(), "{name}");
        }
    }

    #[test]
    fn a_cookie_in_pieces_becomes_one() {
        let mut headers = map(&[("cookie", "a=1"), ("cookie", "b=2"), ("x-other", "stays")]);

        join_cookies(&mut headers);

        assert_eq!(headers, map(&[("cookie", "a=1; b=2"), ("x-other", "stays")]));
    }

    #[test]
    fn a_faulty_connection_header_does_not_keep_the_others_in_an_answer() {
        let mut headers =
            map(&[("connection", "content-length, x-hop"), ("transfer-encoding", "chunked"), ("x-end", "1")]);

        clean_answer(&mut headers);

        assert_eq!(headers, map(&[("x-end", "1")]));
    }

    #[test]
    fn reserved_headers_go_in_every_spelling() {
        let mut headers = map(&[
            ("x-douane-http", "1.1"),
            ("x_douane_peer", "a"),
            ("x-forwarded-client-cert", "URI=a"),
            ("x-forwarded_client_cert", "URI=b"),
            ("x-other", "stays"),
        ]);

        strip_reserved(&mut headers);

        assert_eq!(headers, map(&[("x-other", "stays")]));
    }

    #[test]
    fn two_hosts_that_differ_are_refused_but_the_absolute_form_replaces_host() {
        let parts = |version, uri: &str, hosts: &[&str]| {
            let mut request = Request::builder().version(version).uri(uri);
            for host in hosts {
                request = request.header(header::HOST, *host);
            }
            request.body(()).unwrap().into_parts().0
        };

        assert_eq!(authority(&parts(Version::HTTP_2, "http://a/", &["b"])), Err(BadRequest::HostMismatch));
        assert_eq!(authority(&parts(Version::HTTP_11, "http://a/", &["b"])), Ok(Some("a".to_owned())));
        assert_eq!(authority(&parts(Version::HTTP_11, "/", &["a", "a"])), Err(BadRequest::ManyHosts));
        assert_eq!(authority(&parts(Version::HTTP_11, "/", &[])), Err(BadRequest::NoHost));
        assert_eq!(authority(&parts(Version::HTTP_10, "/", &[])), Ok(None));
    }

    #[test]
    fn the_dialect_header_is_an_enum() {
        assert_eq!(Speech::from_dialect(&map(&[("x-douane-http", "1.0")])), Ok(Speech::Http10));
        assert_eq!(Speech::from_dialect(&map(&[])), Ok(Speech::Http2));
        assert_eq!(Speech::from_dialect(&map(&[("x-douane-http", "2")])), Err(BadRequest::Dialect));
    }
}
