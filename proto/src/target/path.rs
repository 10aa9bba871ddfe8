//! The path of a request in its one normalized form (RFC 3986 6.2.2): escapes of unreserved characters decoded once, other
//! escapes in upper case, backslash as slash, dot segments removed.
//!
//! Escaped slashes stay escaped. What an application could read as a dot segment although this does not (`..;x`,
//! `..%2F`) is refused.

use std::fmt::Write as _;

use super::normalization::PathNormalization;

/// Normalizes a path, or names the rule that it breaks.
pub(super) fn normalize(path: &str, normalization: PathNormalization) -> Result<String, &'static str> {
    let decoded = decode(path)?;
    if !decoded.starts_with('/') {
        return Err("it does not begin with a slash");
    }
    let plain = remove_dot_segments(&decoded)?;
    Ok(match normalization {
        PathNormalization::Base | PathNormalization::None => plain,
        PathNormalization::MergeSlashes | PathNormalization::DecodeAndMergeSlashes => merge_slashes(&plain),
    })
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
    Ok(query)
}

fn decode(path: &str) -> Result<String, &'static str> {
    let mut decoded = String::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digit =
                    |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|d| u8::try_from(d).ok());
                let (Some(high), Some(low)) = (digit(bytes.next()), digit(bytes.next())) else {
                    return Err("a percent sign without two hexadecimal digits");
                };
                match high << 4 | low {
                    0 => return Err("an escaped NUL"),
                    byte if is_unreserved(byte) => decoded.push(char::from(byte)),
                    byte => escape(&mut decoded, byte),
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

// RFC 3986 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
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
            segment if hides_dots(segment) => {
                return Err(
                    "a dot segment with parameters or escaped slashes, which servers read differently",
                );
            }
            segment => kept.push(segment),
        }
    }
    if ends_in_directory {
        kept.push("");
    }
    Ok(format!("/{}", kept.join("/")))
}

// `..;x`, `.%3B`, `..%2Fx`, `x%5C..`: some servers cut parameters, some decode these slashes.
fn hides_dots(segment: &str) -> bool {
    let pieces = segment.split("%2F").flat_map(|piece| piece.split("%5C"));
    pieces.flat_map(|piece| piece.split(';').next()).flat_map(|piece| piece.split("%3B").next()).any(is_dots)
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
