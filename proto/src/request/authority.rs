//! Which host a request is for, of the two places that may say so.

use http::{HeaderMap, HeaderValue, Uri, Version, header, uri};

use super::error::BadRequest;
use crate::target::TargetError;

/// The host that a target names: absolute form or `:authority`; `None` for origin form. A CONNECT's target is not read here.
///
/// # Errors
/// [`BadRequest`] for a host alone (`GET orders`, which only CONNECT may say, RFC 9112 3.2.3), and for another scheme than
/// the web's.
pub fn line_authority(target: &Uri) -> Result<Option<&str>, BadRequest> {
    match (target.scheme(), target.authority()) {
        (Some(scheme), _) if *scheme != uri::Scheme::HTTP && *scheme != uri::Scheme::HTTPS => {
            Err(TargetError::Path("its scheme is not of the web").into())
        }
        (None, Some(_)) => Err(TargetError::Path("it does not begin with a slash").into()),
        (_, authority) => Ok(authority.map(uri::Authority::as_str)),
    }
}

/// The host as the request writes it; `None` where HTTP/1.0 names none. `named` is what the request line says (absolute
/// form) or `:authority`.
///
/// # Errors
/// [`BadRequest`] when there is none, several, or two that differ.
pub fn named_host<'a>(
    version: Version,
    named: Option<&'a str>,
    headers: &'a HeaderMap,
) -> Result<Option<&'a str>, BadRequest> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(BadRequest::ManyHosts);
    }
    let is_no_text = |_| TargetError::Authority("a byte that no host name has");
    let host = host.map(HeaderValue::to_str).transpose().map_err(is_no_text)?;
    match (named, host) {
        (Some(named), Some(host)) if version >= Version::HTTP_2 && !named.eq_ignore_ascii_case(host) => {
            Err(BadRequest::HostMismatch)
        }
        // RFC 9112 3.2: the header must be there even where the absolute form replaces it.
        (_, None) if version == Version::HTTP_11 => Err(BadRequest::NoHost),
        (_, Some("")) => Err(BadRequest::NoHost),
        // RFC 9112 3.2.2: the absolute form replaces Host.
        (Some(named), _) => Ok(Some(named)),
        (None, Some(host)) => Ok(Some(host)),
        (None, None) if version <= Version::HTTP_10 => Ok(None),
        (None, None) => Err(BadRequest::NoHost),
    }
}
