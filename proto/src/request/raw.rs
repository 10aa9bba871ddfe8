//! A request's head as text that no HTTP parser has seen: what the wire would refuse is refused here.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::error::BadRequest;

/// As many as the sidecar's HTTP/1 server takes.
const MAX_HEADERS: usize = 100;

/// A header map of names and values in the order in which they were sent. Blanks around a value are not part of it, as
/// on the wire (RFC 9110 5.5); around a host they are an error.
///
/// # Errors
/// [`BadRequest`] for a name that is no token and a value that holds a control character. Bytes from 0x80 are legal.
pub fn headers_of<N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Result<HeaderMap, BadRequest>
where
    N: AsRef<[u8]>,
    V: AsRef<[u8]>,
{
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        if headers.len() >= MAX_HEADERS {
            return Err(BadRequest::ManyHeaders);
        }
        let name = HeaderName::from_bytes(name.as_ref()).map_err(|_| BadRequest::HeaderName)?;
        let value = if name == header::HOST { value.as_ref() } else { trim(value.as_ref()) };
        let value = HeaderValue::from_bytes(value).map_err(|_| BadRequest::HeaderValue(name.to_string()))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// A method; its case matters (RFC 9110 9.1).
///
/// # Errors
/// [`BadRequest::Method`] when it is no token.
pub fn method_of(text: impl AsRef<[u8]>) -> Result<Method, BadRequest> {
    Method::from_bytes(text.as_ref()).map_err(|_| BadRequest::Method)
}

// OWS, which is no CR and no LF.
fn trim(value: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let Some(first) = value.iter().position(|byte| !is_blank(byte)) else { return &[] };
    let last = value.iter().rposition(|byte| !is_blank(byte)).unwrap_or(first);
    value.get(first..=last).unwrap_or_default()
}
