//! The names of the mesh's own trust domain, and which texts of a policy mean all of them.

use super::pattern::{Case, Pattern};
use crate::id::TrustDomain;

/// The trust domain that stands for the local one, whatever that is called.
const ANY_LOCAL: &str = "cluster.local";

/// The names of the mesh's own trust domain. Policies that name one of them mean all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trust<'a> {
    /// Its name now.
    pub local: &'a TrustDomain,
    /// Its other names.
    pub aliases: &'a [TrustDomain],
}

impl Trust<'_> {
    /// What a value of `principals` means: a whole one of our trust domain is one of any of its names, all else is as
    /// written.
    pub(super) fn principals(self, text: &str) -> Vec<Pattern> {
        let whole = text.split_once('/').filter(|(first, path)| is_whole(first, path));
        match whole {
            Some((domain, path)) if self.means(domain) => {
                let renamed = |name: &str| format!("{name}/{path}");
                self.renamed(text, domain, renamed)
            }
            _ => vec![Pattern::parse(text)],
        }
    }

    /// What a value of `trustDomains` means.
    pub(super) fn domains(self, text: &str) -> Vec<Pattern> {
        if text == "*" || !self.means(text) {
            return vec![Pattern::parse(text)];
        }
        let mut meant = self.renamed(text, text, str::to_owned);
        meant.push(Pattern::parse(text));
        meant
    }

    /// Does the value look like a principal of `cluster.local` that is matched as written, since it is not a whole one?
    pub(super) fn is_unexpanded(self, text: &str) -> bool {
        let whole = text.split_once('/').is_some_and(|(first, path)| is_whole(first, path));
        let has_other_names =
            self.local.as_str() != ANY_LOCAL || self.aliases.iter().any(|alias| alias.as_str() != ANY_LOCAL);
        let first = text.split('/').next().unwrap_or_default();
        has_other_names && !whole && !first.contains('*') && text.contains('/') && self.means(first)
    }

    fn means(self, domain: &str) -> bool {
        domain == ANY_LOCAL || self.names().any(|name| is_match(domain, name))
    }

    // One for each name; the text itself where its leading star covers the name already.
    fn renamed(self, text: &str, domain: &str, rename: impl Fn(&str) -> String) -> Vec<Pattern> {
        let mut patterns = Vec::new();
        for name in self.names() {
            let covered = domain.starts_with('*') && is_match(domain, name);
            let pattern = if covered { Pattern::parse(text) } else { Pattern::parse(&rename(name)) };
            if !patterns.contains(&pattern) {
                patterns.push(pattern);
            }
        }
        patterns
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.local).chain(self.aliases).map(TrustDomain::as_str)
    }
}

fn is_match(pattern: &str, name: &str) -> bool {
    Pattern::parse(pattern).matches(name.as_bytes(), Case::Sensitive)
}

// Istio expands principals of exactly five parts, of which the first is not any.
fn is_whole(domain: &str, path: &str) -> bool {
    domain != "*" && path.split('/').count() == 4
}
