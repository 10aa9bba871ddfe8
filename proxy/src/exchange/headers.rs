//! Headers of a hop of ours: how the application spoke, who the peer is, what of an answer goes on.
//!
//! Knows not what headers mean in a request (`douane_proto::request`), nor which way it goes.

use douane_proto::{
    id::WorkloadId,
    mesh::Protocol,
    request::{BadRequest, strip_hop_by_hop, strip_reserved},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};

/// Tells the receiving sidecar which HTTP/1 the application spoke. Absent: HTTP/2.
pub const DIALECT_HTTP: HeaderName = HeaderName::from_static("x-douane-http");

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

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

    /// What a port speaks that is spoken to like this.
    #[must_use]
    pub fn protocol(self) -> Protocol {
        match self {
            Self::Http10 | Self::Http11 => Protocol::Http1,
            Self::Http2 => Protocol::Http2,
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

/// Is it a gRPC request or answer?
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// How many bytes the body of an answer has, where that can be known before they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Length(pub Option<u64>);

impl Length {
    /// RFC 9110 6.4.1: some answers have no body, whatever length they tell.
    #[must_use]
    pub fn of(method: Option<&Method>, status: StatusCode, headers: &HeaderMap) -> Self {
        if method == Some(&Method::HEAD) || matches!(status.as_u16(), 204 | 304) {
            return Self(Some(0));
        }
        let told = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        Self(told.and_then(|length| length.parse().ok()))
    }
}

/// The `grpc-status` among headers or trailers.
#[must_use]
pub fn grpc_status_of(headers: &HeaderMap) -> Option<u16> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn a_faulty_connection_header_does_not_keep_the_others_in_an_answer() {
        let mut headers =
            map(&[("connection", "content-length, x-hop"), ("transfer-encoding", "chunked"), ("x-end", "1")]);

        clean_answer(&mut headers);

        assert_eq!(headers, map(&[("x-end", "1")]));
    }

    #[test]
    fn the_dialect_header_is_an_enum() {
        assert_eq!(Speech::from_dialect(&map(&[("x-douane-http", "1.0")])), Ok(Speech::Http10));
        assert_eq!(Speech::from_dialect(&map(&[])), Ok(Speech::Http2));
        assert_eq!(Speech::from_dialect(&map(&[("x-douane-http", "2")])), Err(BadRequest::Dialect));
    }
}
