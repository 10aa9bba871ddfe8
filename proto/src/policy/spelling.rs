//! Two spellings of one path: the hexadecimal digits of an escape in either case (RFC 3986 6.2.2.1). A policy may be
//! written in either, and a mesh may leave the paths of requests as they come.

/// Is `own` `other`, of which no escape is cut in two?
pub(super) fn is_same(own: &[u8], other: &[u8]) -> bool {
    own.len() == other.len() && ends_with(own, other)
}

/// Does `own` begin with `beginning`?
pub(super) fn starts_with(own: &[u8], beginning: &[u8]) -> bool {
    own.get(..beginning.len()).is_some_and(|first| is_same(first, beginning))
}

/// Does `own` end with `end`?
pub(super) fn ends_with(own: &[u8], end: &[u8]) -> bool {
    let Some(skipped) = own.len().checked_sub(end.len()) else { return false };
    let mut pairs = own.iter().enumerate().skip(skipped).zip(end);
    pairs.all(|((at, byte), other)| {
        byte == other || (byte.eq_ignore_ascii_case(other) && is_digit_of_escape(own, at))
    })
}

fn is_digit_of_escape(path: &[u8], at: usize) -> bool {
    let percent = |before: usize| at.checked_sub(before).and_then(|at| path.get(at)) == Some(&b'%');
    percent(1) || percent(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digits_of_escapes_have_no_case() {
        for (own, other, expected) in [
            ("/a%2fb", "/a%2Fb", true),
            ("/a%2Fb", "/a%2fb", true),
            ("/a%2fb", "/a%2fB", false),
            ("/a%2f", "/A%2f", false),
            ("/a2fb", "/a2Fb", false),
        ] {
            assert_eq!(is_same(own.as_bytes(), other.as_bytes()), expected, "{own} {other}");
        }
        assert!(ends_with(b"/x%2fb", b"Fb"));
        assert!(starts_with(b"/x%2fb", b"/x%2F"));
    }
}
