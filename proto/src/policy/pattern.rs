//! How a value of a policy matches a text: exactly, by its beginning, by its end, or by being there at all.
//!
//! Works on bytes that may come in parts, so that neither a principal nor joined header values must be put together.

use super::spelling;

/// A text of a policy with Istio's stars: only a first or a last one is a wildcard, the first one wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pattern {
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    /// `*`: there, and not empty.
    Present,
}

/// Do letters in another case count as the same?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    Sensitive,
    /// ASCII letters only.
    Insensitive,
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Self {
        if text == "*" {
            return Self::Present;
        }
        if let Some(end) = text.strip_prefix('*') {
            return Self::Suffix(end.into());
        }
        match text.strip_suffix('*') {
            Some(beginning) => Self::Prefix(beginning.into()),
            None => Self::Exact(text.into()),
        }
    }

    pub(super) fn matches(&self, text: &[u8], case: Case) -> bool {
        let same = |own: &[u8], other: &str| match case {
            Case::Sensitive => own == other.as_bytes(),
            Case::Insensitive => own.eq_ignore_ascii_case(other.as_bytes()),
        };
        match self {
            Self::Present => !text.is_empty(),
            Self::Exact(all) => same(text, all),
            Self::Prefix(beginning) => {
                text.get(..beginning.len()).is_some_and(|first| same(first, beginning))
            }
            Self::Suffix(end) => {
                let skipped = text.len().checked_sub(end.len());
                skipped.and_then(|skipped| text.get(skipped..)).is_some_and(|last| same(last, end))
            }
        }
    }

    /// Does the text match that these parts make, one after the other?
    pub(super) fn matches_parts(&self, parts: &[&str]) -> bool {
        match self {
            Self::Present => parts.iter().any(|part| !part.is_empty()),
            Self::Exact(all) => {
                let rest = parts.iter().try_fold(&**all, |rest, part| rest.strip_prefix(part));
                rest.is_some_and(str::is_empty)
            }
            Self::Prefix(beginning) => {
                let mut rest: &str = beginning;
                for part in parts {
                    if part.starts_with(rest) {
                        return true;
                    }
                    let Some(after) = rest.strip_prefix(part) else { return false };
                    rest = after;
                }
                rest.is_empty()
            }
            Self::Suffix(end) => {
                let mut rest: &str = end;
                for part in parts.iter().rev() {
                    if part.ends_with(rest) {
                        return true;
                    }
                    let Some(before) = rest.strip_suffix(part) else { return false };
                    rest = before;
                }
                rest.is_empty()
            }
        }
    }

    pub(super) fn matches_path(&self, path: &str) -> bool {
        let path = path.as_bytes();
        match self {
            Self::Present => !path.is_empty(),
            Self::Exact(all) => spelling::is_same(path, all.as_bytes()),
            Self::Prefix(beginning) => spelling::starts_with(path, beginning.as_bytes()),
            Self::Suffix(end) => spelling::ends_with(path, end.as_bytes()),
        }
    }

    /// Does the text match that these bytes make?
    pub(super) fn matches_bytes(&self, mut text: impl DoubleEndedIterator<Item = u8>) -> bool {
        match self {
            Self::Present => text.next().is_some(),
            Self::Exact(all) => all.bytes().all(|byte| text.next() == Some(byte)) && text.next().is_none(),
            Self::Prefix(beginning) => beginning.bytes().all(|byte| text.next() == Some(byte)),
            Self::Suffix(end) => end.bytes().rev().all(|byte| text.next_back() == Some(byte)),
        }
    }
}

/// A text with stars anywhere, each for any number of bytes (Istio's `namespaces`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Glob(Box<str>);

impl Glob {
    pub(super) fn parse(text: &str) -> Self {
        Self(text.into())
    }

    /// The text, if it has no star.
    pub(super) fn exact(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(&*self.0)
    }

    /// Linear in practice and at worst quadratic: on a mismatch only the last star takes one byte more.
    pub(super) fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut at, mut seen) = (0, 0);
        let mut retry: Option<(usize, usize)> = None;
        while let Some(byte) = text.get(seen) {
            match pattern.get(at) {
                Some(b'*') => {
                    at += 1;
                    retry = Some((at, seen));
                }
                Some(expected) if expected == byte => {
                    at += 1;
                    seen += 1;
                }
                _ => {
                    let Some((star, from)) = retry else { return false };
                    (at, seen) = (star, from + 1);
                    retry = Some((star, from + 1));
                }
            }
        }
        pattern.get(at..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_a_first_or_last_star_is_a_wildcard_and_the_first_wins() {
        let matches =
            |pattern: &str, text: &str| Pattern::parse(pattern).matches(text.as_bytes(), Case::Sensitive);
        for (pattern, text, expected) in [
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("abc", "ab", false),
            ("abc*", "abc", true),
            ("abc*", "abcd", true),
            ("abc*", "xabc", false),
            ("*abc", "abc", true),
            ("*abc", "xabc", true),
            ("*abc", "abcx", false),
            ("*", "x", true),
            ("*", "", false),
            ("*a*", "xa*", true),
            ("*a*", "xay", false),
            ("/a/*b", "/a/*b", true),
            ("/a/*b", "/a/xb", false),
            ("ABC", "abc", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern:?} on {text:?}");
        }
    }

    #[test]
    fn a_glob_takes_stars_anywhere() {
        for (pattern, text, expected) in [
            ("shop", "shop", true),
            ("shop", "shop2", false),
            ("sh*p", "shop", true),
            ("*op*", "shop-2", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("*", "", true),
        ] {
            assert_eq!(Glob::parse(pattern).matches(text), expected, "{pattern:?} on {text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_text_matches_whole_as_in_parts(
            pattern in "[*]?[ab/]{0,4}[*]?",
            parts in prop::collection::vec("[ab/]{0,3}", 0..4),
        ) {
            let (pattern, whole) = (Pattern::parse(&pattern), parts.concat());
            let pieces: Vec<&str> = parts.iter().map(String::as_str).collect();
            let expected = pattern.matches(whole.as_bytes(), Case::Sensitive);
            prop_assert_eq!(pattern.matches_parts(&pieces), expected);
            prop_assert_eq!(pattern.matches_bytes(whole.bytes()), expected);
            prop_assert_eq!(pattern.matches(whole.to_uppercase().as_bytes(), Case::Insensitive), expected);
        }

        #[test]
        fn a_glob_matches_what_a_naive_one_matches(pattern in "[ab*]{0,8}", text in "[ab]{0,8}") {
            fn naive(pattern: &[u8], text: &[u8]) -> bool {
                match pattern.split_first() {
                    None => text.is_empty(),
                    Some((b'*', rest)) => (0..=text.len()).any(|from| naive(rest, &text[from..])),
                    Some((byte, rest)) => text.first() == Some(byte) && naive(rest, &text[1..]),
                }
            }
            prop_assert_eq!(Glob::parse(&pattern).matches(&text), naive(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
