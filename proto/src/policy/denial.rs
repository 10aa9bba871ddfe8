//! A decision that said no, and what a caller must know to answer it.

use std::fmt;

use http::StatusCode;

/// Why something was denied, in the operator's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Who denied it.
    pub kind: DenialKind,
    /// `namespace/name` of the policy that denied it, or of the nearest ALLOW policy that did not match.
    pub policy: Option<String>,
    /// Which of its rules, counted from 1.
    pub rule: Option<usize>,
    /// The first field that did not match (or, of a DENY rule, that it matched), for a human; names policy and rule.
    pub reason: String,
}

/// Who denied something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DenialKind {
    /// A policy.
    Denied,
    /// An external authorizer, which may have said how to answer.
    Authorizer {
        /// Its name in the mesh configuration.
        provider: String,
    },
    /// An external authorizer that could not be asked, and does not fail open.
    AuthorizerFailed {
        /// Its name in the mesh configuration, or the name of one that is not defined there.
        provider: String,
        /// The answer to an HTTP request.
        status: StatusCode,
    },
}

impl Denial {
    /// One that no policy is responsible for.
    #[must_use]
    pub fn without_policy(reason: impl Into<String>) -> Self {
        Self { kind: DenialKind::Denied, policy: None, rule: None, reason: reason.into() }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}
