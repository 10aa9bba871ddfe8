//! Why a request is answered with 401 or 403 before any policy is asked.

/// Why a request's tokens are refused. Never holds a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    /// A token that no rule of its place accepts: 401.
    #[error("the token in {place} is refused: {why}")]
    Invalid {
        /// Such as `header authorization`.
        place: String,
        /// Of the rule that came nearest, for the log.
        why: String,
    },
    /// A token for somebody else: 403.
    #[error("the token in {place} is for another audience")]
    Audience {
        /// Such as `header authorization`.
        place: String,
    },
}
