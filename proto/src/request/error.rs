//! Why a request cannot be understood without doubt; each class is a known attack. The answer is 400.

use crate::target::TargetError;

/// Why a request cannot be understood without doubt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// RFC 9112 6.1: the two ways to say a length contradict each other.
    #[error("Content-Length together with Transfer-Encoding")]
    TwoLengths,
    /// RFC 9110 8.6: lengths that differ, or one that is no number.
    #[error("Content-Length is no number, or several that differ")]
    Length,
    /// RFC 9112 6.1: a coding that a parser may not know, or one where the version has none.
    #[error("Transfer-Encoding is other than \"chunked\" alone")]
    TransferEncoding,
    /// RFC 9112 3.2.
    #[error("no Host")]
    NoHost,
    /// RFC 9112 3.2.
    #[error("more than one Host")]
    ManyHosts,
    /// Host and `:authority` name different hosts.
    #[error("Host and :authority differ")]
    HostMismatch,
    /// `Connection` names a header that carries identity or routing.
    #[error("Connection names {0}, which must not be removed")]
    ConnectionNames(String),
    /// The dialect's own header with a value outside its enum.
    #[error("x-douane-http has an unknown value")]
    Dialect,
    /// RFC 9110 9.1.
    #[error("the method is no token")]
    Method,
    /// RFC 9110 5.1.
    #[error("a header's name is no token")]
    HeaderName,
    /// RFC 9110 5.5: CR, LF, NUL or another control character.
    #[error("the value of header {0} holds a control character")]
    HeaderValue(String),
    /// More headers than a request may have.
    #[error("too many headers")]
    ManyHeaders,
    /// Host or path.
    #[error("{0}")]
    Target(#[from] TargetError),
    /// A target that is no URI once normalized.
    #[error("the normalized target is no URI")]
    Uri,
}

impl BadRequest {
    /// Is it unknown where the request ends? What follows on its connection cannot be told apart then.
    #[must_use]
    pub fn hides_the_end(&self) -> bool {
        matches!(self, Self::TwoLengths | Self::Length | Self::TransferEncoding)
    }
}
