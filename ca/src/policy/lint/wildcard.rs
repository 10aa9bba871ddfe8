//! Values with stars as Istio reads them: only a first or a last star stands for something, all others are themselves.

/// A value of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wildcard<'a> {
    /// This text.
    Exact(&'a str),
    /// What begins with it.
    Prefix(&'a str),
    /// What ends with it.
    Suffix(&'a str),
    /// Anything.
    Presence,
}

impl<'a> Wildcard<'a> {
    pub(super) fn read(text: &'a str) -> Self {
        match (text.strip_prefix('*'), text.strip_suffix('*')) {
            (Some(""), _) => Self::Presence,
            // A leading star goes before a last one.
            (Some(rest), _) => Self::Suffix(rest),
            (None, Some(rest)) => Self::Prefix(rest),
            (None, None) => Self::Exact(text),
        }
    }

    /// Is everything that `other` matches matched by this?
    pub(super) fn covers(self, other: Self) -> bool {
        match (self, other) {
            (Self::Presence, _) => true,
            (Self::Exact(own), Self::Exact(other)) => own == other,
            (Self::Prefix(own), Self::Exact(other) | Self::Prefix(other)) => other.starts_with(own),
            (Self::Suffix(own), Self::Exact(other) | Self::Suffix(other)) => other.ends_with(own),
            _ => false,
        }
    }

    /// The text that is compared.
    pub(super) fn literal(self) -> &'a str {
        match self {
            Self::Exact(text) | Self::Prefix(text) | Self::Suffix(text) => text,
            Self::Presence => "",
        }
    }
}
