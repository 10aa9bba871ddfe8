//! What the values of a field match, and in which direction doubt goes.

use ipnet::IpNet;

use super::{
    pattern::{Glob, Pattern},
    template::Template,
};

/// What one value of a field matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Matcher {
    Text(Pattern),
    Glob(Glob),
    Account {
        namespace: Box<str>,
        name: Box<str>,
    },
    Net(IpNet),
    Port(u16),
    Template(Template),
    /// Issuer and subject of a token.
    Token {
        issuer: Pattern,
        subject: Pattern,
    },
    /// A value that no attribute has.
    Never,
}

/// The values of a field, and as they were written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Values {
    pub(super) matchers: Vec<Matcher>,
    pub(super) words: Vec<String>,
}

/// Which way is the safe one when a field can be read in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// The field must hold in every reading.
    Allow,
    /// The field holds if it does in any reading.
    Deny,
}

impl Values {
    pub(super) fn is_empty(&self) -> bool {
        self.matchers.is_empty()
    }

    pub(super) fn any(&self, matches: impl Fn(&Matcher) -> bool) -> bool {
        self.matchers.iter().any(matches)
    }
}
