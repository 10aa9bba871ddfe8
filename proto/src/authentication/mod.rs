//! Who a request says its user is: `RequestAuthentication`, compiled, and the pure check of a request's tokens.
//!
//! Knows not who fetched the keys (`ca`), nor what a policy makes of a token ([`crate::policy`]).

use crate::{facts::RequestFacts, wire};

/// All token rules of one workload, compiled. An empty one looks at no token.
#[derive(Debug, Clone, Default)]
pub struct Authentication {
    complaints: Vec<String>,
}

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

impl Authentication {
    /// Compiles what the control plane sent. What cannot be read refuses every token, and is complained about.
    #[must_use]
    pub fn from_wire(_messages: &[wire::RequestAuthentication]) -> Self {
        Self::default()
    }

    /// What could not be applied as written, one line each, for the operator.
    #[must_use]
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// Verifies every token in a place that a rule looks at, takes those out that are not forwarded, and sets and clears
    /// the headers that rules own. `now`: seconds since 1970.
    ///
    /// # Errors
    /// [`TokenRefused`] when there is a token that is not valid, also where another one is.
    pub fn authenticate(&self, _request: &mut RequestFacts, _now: u64) -> Result<(), TokenRefused> {
        Ok(())
    }
}
