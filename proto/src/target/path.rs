//! The path of a request in its one normalized form (RFC 3986 6.2.2): escapes of unreserved characters decoded once,
//! backslash as slash, dot segments removed; then, where the mesh says so, slashes merged.
//!
//! Escaped slashes stay escaped unless the mesh decodes them, and other escapes stay as they were written, as Istio has
//! it: the case of their digits is the matter of who compares (`policy/spelling`). What an application could read as a
//! dot segment although this does not (`..;x`, `..%2F`) is refused.

use std::{fmt::Write as _, mem};

use super::normalization::PathNormalization;

/// Normalizes a path, or names the rule that it breaks.
pub(super) fn normalize(path: &str, normalization: PathNormalization) -> Result<String, &'static str> {
    if is_normal(path) {
        return Ok(path.to_owned());
    }
    by_rule(path, normalization)
}

// In its one form by every normalization, as most paths are: segments of unreserved characters, none of which begins
// with a dot.
fn is_normal(path: &str) -> bool {
    let is_in_place = |before: u8, byte: u8| match byte {
        b'/' | b'.' => before != b'/',
        byte => is_unreserved(byte),
    };
    let mut before = b'/';
    let mut bytes = path.bytes();
    bytes.next() == Some(b'/') && bytes.all(|byte| is_in_place(mem::replace(&mut before, byte), byte))
}

fn by_rule(path: &str, normalization: PathNormalization) -> Result<String, &'static str> {
    let decoded = decode(path, normalization)?;
    if !decoded.starts_with('/') || (normalization == PathNormalization::None && !path.starts_with('/')) {
        return Err("it does not begin with a slash");
    }
    match normalization {
        PathNormalization::None => as_it_came(path, &decoded),
        PathNormalization::Base => remove_dot_segments(&decoded),
        PathNormalization::MergeSlashes | PathNormalization::DecodeAndMergeSlashes => {
            Ok(merge_slashes(&remove_dot_segments(&decoded)?))
        }
    }
}

/// A query is sent on as it came; it must not break out of its place.
pub(super) fn check_query(query: &str) -> Result<&str, &'static str> {
    if query.bytes().any(|byte| byte.is_ascii_control() || byte == b' ') {
        return Err("a blank or control character");
    }
    if query.contains('#') {
        return Err("a fragment");
    }
    if query.contains(['<', '>', '"']) {
        return Err("a character that no query has");
    }
    if query.contains("%00") {
        return Err("an escaped NUL");
    }
    Ok(query)
}

fn decode(path: &str, normalization: PathNormalization) -> Result<String, &'static str> {
    let mut decoded = String::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let written = bytes.next().zip(bytes.next());
                let Some((high, low)) = written.filter(|(high, low)| is_hexadecimal(*high, *low)) else {
                    return Err("a percent sign without two hexadecimal digits");
                };
                match digit(high) << 4 | digit(low) {
                    0 => return Err("an escaped NUL"),
                    b'/' | b'\\' if normalization == PathNormalization::DecodeAndMergeSlashes => {
                        decoded.push('/');
                    }
                    byte if is_unreserved(byte) => decoded.push(char::from(byte)),
                    _ => decoded.extend(['%', char::from(high), char::from(low)]),
                }
            }
            b'\\' => decoded.push('/'),
            b'#' => return Err("a fragment"),
            byte if byte.is_ascii_control() || byte == b' ' => return Err("a blank or control character"),
            b'<' | b'>' | b'`' => return Err("a character that no path has"),
            // Not legal in a target; its escape is, and means the same.
            byte if !byte.is_ascii() => escape(&mut decoded, byte),
            byte => decoded.push(char::from(byte)),
        }
    }
    Ok(decoded)
}

fn escape(text: &mut String, byte: u8) {
    // Writing to a String cannot fail.
    let _ = write!(text, "%{byte:02X}");
}

fn is_hexadecimal(high: u8, low: u8) -> bool {
    high.is_ascii_hexdigit() && low.is_ascii_hexdigit()
}

fn digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        _ => byte.wrapping_sub(b'A').wrapping_add(10),
    }
}

// RFC 3986 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

// Nothing is changed; a dot segment that only some servers see is refused here, too.
fn as_it_came(path: &str, decoded: &str) -> Result<String, &'static str> {
    if decoded.split('/').any(hides_dots) {
        return Err(HIDDEN_DOTS);
    }
    Ok(path.to_owned())
}

// RFC 3986 5.2.4, on segments.
fn remove_dot_segments(path: &str) -> Result<String, &'static str> {
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_in_directory = false;
    for segment in path.split('/').skip(1) {
        ends_in_directory = false;
        match segment {
            "." => ends_in_directory = true,
            ".." => {
                kept.pop();
                ends_in_directory = true;
            }
            segment if hides_dots(segment) => return Err(HIDDEN_DOTS),
            segment => kept.push(segment),
        }
    }
    if ends_in_directory {
        kept.push("");
    }
    Ok(format!("/{}", kept.join("/")))
}

const HIDDEN_DOTS: &str = "a dot segment with parameters, which servers read differently";

// `..;x`, `.%3B`, also behind an escaped slash: some servers cut parameters, some decode first.
fn hides_dots(segment: &str) -> bool {
    if !segment.contains('.') || !segment.contains([';', '%']) {
        return false;
    }
    let spelled = segment.to_ascii_uppercase().replace("%3B", ";").replace("%5C", "%2F");
    spelled.split("%2F").filter_map(|piece| piece.split_once(';')).any(|(before, _)| is_dots(before))
}

fn is_dots(piece: &str) -> bool {
    matches!(piece, "." | "..")
}

fn merge_slashes(path: &str) -> String {
    let mut merged = String::with_capacity(path.len());
    for char in path.chars() {
        if char != '/' || !merged.ends_with('/') {
            merged.push(char);
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_usual_path_needs_no_second_look() {
        for path in ["/", "/orders/42", "/a.b/c~d_e-f", "/a/", "/a..b"] {
            assert!(is_normal(path), "{path}");
        }
        for path in
            ["", "a", "//", "/a//b", "/.", "/..", "/a/./b", "/.a", "/%61", "/a\\b", "/a;b", "/a#b", "/ü"]
        {
            assert!(!is_normal(path), "{path}");
        }
    }

    proptest! {
        #[test]
        fn what_is_normal_at_first_sight_is_so_by_every_rule(text in "/[a-b./~%;2eE]{0,12}") {
            for rule in [
                PathNormalization::None,
                PathNormalization::Base,
                PathNormalization::MergeSlashes,
                PathNormalization::DecodeAndMergeSlashes,
            ] {
                if is_normal(&text) {
                    prop_assert_eq!(by_rule(&text, rule), Ok(text.clone()));
                }
            }
        }
    }
}
