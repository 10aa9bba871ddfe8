//! A request put together for its next hop, in the form that hop wants to hear.

use bytes::Bytes;
use douane_proto::request::BadRequest;
use http::{
    HeaderMap, HeaderValue, Method, Request, Uri, header,
    uri::{self, Authority, PathAndQuery},
};

use crate::exchange::{body::Body, headers::Speech};

/// Absolute form for HTTP/2 (which makes `:scheme` and `:authority` of it), origin form and `Host` for HTTP/1.
///
/// # Errors
/// [`BadRequest::Uri`] when the target is no URI.
pub fn assemble(
    method: Method,
    authority: Bytes,
    path_and_query: PathAndQuery,
    mut headers: HeaderMap,
    speech: Speech,
) -> Result<Request<()>, BadRequest> {
    let mut parts = uri::Parts::default();
    parts.path_and_query = Some(path_and_query);
    headers.remove(header::HOST);
    if speech == Speech::Http2 {
        parts.scheme = Some(uri::Scheme::HTTP);
        parts.authority = Some(Authority::from_maybe_shared(authority).map_err(|_| BadRequest::Uri)?);
    } else {
        let host = HeaderValue::from_maybe_shared(authority).map_err(|_| BadRequest::Uri)?;
        headers.insert(header::HOST, host);
        // RFC 9110 10.1.4: TE belongs to the hop, which must say so.
        if headers.contains_key(header::TE) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
        }
    }
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| BadRequest::Uri)?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// A target in origin form, or `*`.
///
/// # Errors
/// [`BadRequest::Uri`] when it is neither.
pub fn target(path_and_query: String) -> Result<PathAndQuery, BadRequest> {
    PathAndQuery::from_maybe_shared(Bytes::from(path_and_query)).map_err(|_| BadRequest::Uri)
}

/// Gives a request its body.
#[must_use]
pub fn with_body(request: Request<()>, body: Body) -> Request<Body> {
    request.map(|()| body)
}
