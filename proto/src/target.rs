//! A request target and its one normalized form: the same bytes are decided on, routed by and sent on.
//!
//! Knows not where the target came from; what it cannot normalize without doubt it refuses.

use crate::snapshot::PathNormalization;

/// Host and path of a request, normalized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `:authority` or `Host` as sent, port included, lower case.
    pub authority: String,
    /// Normalized path without query and fragment, beginning with `/` (or `*` for `OPTIONS *`).
    pub path: String,
    /// The query without `?`, as sent.
    pub query: Option<String>,
}

/// Why a target is refused; answered with 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The authority is empty, or holds user information or a character it must not.
    #[error("the host of the request is invalid: {0}")]
    Authority(&'static str),
    /// The path cannot be normalized without doubt.
    #[error("the path of the request is invalid: {0}")]
    Path(&'static str),
}

impl Target {
    /// Normalizes `authority` and `path_and_query` (origin form, or `*`).
    ///
    /// # Errors
    /// [`TargetError`] names the rule that it breaks.
    pub fn parse(
        authority: &str,
        path_and_query: &str,
        normalization: PathNormalization,
    ) -> Result<Self, TargetError> {
        let _ = (authority, path_and_query, normalization);
        Err(TargetError::Path("normalization is being written"))
    }
}
