//! Where a request ends: one length, said in one way (RFC 9112 6).

use http::{HeaderMap, HeaderValue, Version, header};

use super::error::BadRequest;

/// Refuses what two parsers could cut at two places; of equal lengths one stays.
pub(super) fn check(headers: &mut HeaderMap, version: Version) -> Result<(), BadRequest> {
    // Some applications see `_` and `-` as one (CGI), and would find a length here that nobody else has seen.
    for name in headers.keys() {
        match name.as_str() {
            "content_length" => return Err(BadRequest::Length),
            "transfer_encoding" => return Err(BadRequest::TransferEncoding),
            _ => {}
        }
    }
    let encoded = headers.contains_key(header::TRANSFER_ENCODING);
    let Some(length) = content_length(headers)? else {
        return if encoded { check_encoding(headers, version) } else { Ok(()) };
    };
    if encoded {
        return Err(BadRequest::TwoLengths);
    }
    if headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some() {
        headers.insert(header::CONTENT_LENGTH, length);
    }
    Ok(())
}

fn content_length(headers: &HeaderMap) -> Result<Option<HeaderValue>, BadRequest> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return Ok(None) };
    let digits = first.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits.and_then(|digits| digits.parse::<u64>().ok());
    if number.is_some() && lengths.all(|other| other == first) {
        Ok(Some(first.clone()))
    } else {
        Err(BadRequest::Length)
    }
}

// Any list, twin or spelling of "chunked" is where parsers differ; HTTP/1.0 and HTTP/2 have no codings at all.
fn check_encoding(headers: &HeaderMap, version: Version) -> Result<(), BadRequest> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let first = codings.next().map(HeaderValue::as_bytes).unwrap_or_default();
    let chunked = codings.next().is_none() && first.eq_ignore_ascii_case(b"chunked");
    if chunked && version == Version::HTTP_11 { Ok(()) } else { Err(BadRequest::TransferEncoding) }
}
