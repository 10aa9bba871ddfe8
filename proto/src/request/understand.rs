//! From a request's head to what a policy may see of it: exactly what will be sent on.

use std::net::SocketAddr;

use http::{HeaderMap, Method, Version, header};

use super::{
    authority::named_host,
    error::BadRequest,
    framing,
    headers::{join_cookies, strip_hop_by_hop, strip_internal},
};
use crate::{
    facts::RequestFacts,
    target::{PathNormalization, Target, TargetError},
};

/// A request's head as it was sent. [`headers_of`](super::headers_of) and [`method_of`](super::method_of) make its parts
/// of raw text.
#[derive(Debug, Clone)]
pub struct Head<'a> {
    /// Its method.
    pub method: Method,
    /// What the request line or `:path` says, raw: origin form, `*`, and in HTTP/1 also the absolute form. Empty for a
    /// CONNECT of HTTP/2.
    pub target: &'a str,
    /// `:authority`, or the host of an absolute form that a parser has already taken apart.
    pub authority: Option<&'a str>,
    /// The version of the framing that brought it.
    pub version: Version,
    /// All headers.
    pub headers: HeaderMap,
    /// What was asked for: the host of an HTTP/1.0 request that names none.
    pub destination: SocketAddr,
}

/// What a policy may see of a request.
///
/// CONNECT has no path: it is empty. The sidecar refuses every CONNECT of an application before it asks a policy.
///
/// # Errors
/// [`BadRequest`] names what could be read in two ways.
pub fn understand(head: Head<'_>, normalization: PathNormalization) -> Result<RequestFacts, BadRequest> {
    let Head { method, target, authority, version, mut headers, destination } = head;
    framing::check(&mut headers, version)?;
    let line = RequestLine::read(&method, target, authority, version);
    let target = match named_host(version, line.authority, &headers)? {
        Some(host) => line.target(&method, host, normalization)?,
        None => line.target(&method, &destination.to_string(), normalization)?,
    };
    strip_hop_by_hop(&mut headers)?;
    strip_internal(&mut headers);
    join_cookies(&mut headers);
    headers.remove(header::HOST);
    Ok(RequestFacts { method, target, headers, token: None })
}

// A target taken apart: whom it names, and the rest.
struct RequestLine<'a> {
    authority: Option<&'a str>,
    path_and_query: &'a str,
}

impl<'a> RequestLine<'a> {
    fn read(method: &Method, target: &'a str, authority: Option<&'a str>, version: Version) -> Self {
        // A fragment is the client's own affair (RFC 9110 7.1): it is neither decided on nor sent on.
        let target = target.split('#').next().unwrap_or_default();
        let as_sent = Self { authority, path_and_query: target };
        if authority.is_some() || version >= Version::HTTP_2 {
            return as_sent;
        }
        if *method == Method::CONNECT && !target.is_empty() && !target.starts_with('/') {
            return Self { authority: Some(target), path_and_query: "" };
        }
        absolute_form(target).unwrap_or(as_sent)
    }

    fn target(
        &self,
        method: &Method,
        host: &str,
        normalization: PathNormalization,
    ) -> Result<Target, TargetError> {
        if *method == Method::CONNECT {
            let path_and_query = if self.path_and_query.is_empty() { "/" } else { self.path_and_query };
            let target = Target::parse(host, path_and_query, normalization)?;
            return Ok(Target { path: String::new(), query: None, ..target });
        }
        let target = Target::parse(host, self.path_and_query, normalization)?;
        if target.path == "*" && *method != Method::OPTIONS {
            return Err(TargetError::Path("an asterisk is for OPTIONS only"));
        }
        Ok(target)
    }
}

// RFC 9112 3.2.2.
fn absolute_form(target: &str) -> Option<RequestLine<'_>> {
    let (scheme, rest) = target.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path_and_query) = rest.split_at_checked(end)?;
    let path_and_query = if path_and_query.is_empty() { "/" } else { path_and_query };
    Some(RequestLine { authority: Some(authority), path_and_query })
}
