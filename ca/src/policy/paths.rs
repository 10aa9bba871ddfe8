//! Observed paths as policies write them: exact ones, and templates where a segment is an identifier that was seen with many
//! values.

use std::collections::{BTreeMap, BTreeSet};

/// So many values of one identifier are no list that somebody meant.
const MANY: usize = 5;
/// A word of hexadecimal digits that is so long is no English word.
const LONG_HEX: usize = 12;

/// Can a policy name exactly this path?
#[must_use]
pub(crate) fn is_writable(path: &str) -> bool {
    path.starts_with('/') && !path.contains(['*', '{', '}'])
}

/// Path -> methods, with paths that differ in identifiers only as one template where there are many of them.
#[must_use]
pub(crate) fn generalize(paths: BTreeMap<String, BTreeSet<String>>) -> BTreeMap<String, BTreeSet<String>> {
    let mut shapes: BTreeMap<(String, BTreeSet<String>), Vec<String>> = BTreeMap::new();
    for (path, methods) in paths {
        shapes.entry((shape(&path), methods)).or_default().push(path);
    }
    let mut general: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for ((shape, methods), members) in shapes {
        let chosen = if members.len() >= MANY { vec![shape] } else { members };
        for path in chosen {
            general.entry(path).or_default().extend(methods.iter().cloned());
        }
    }
    general
}

fn shape(path: &str) -> String {
    let segments: Vec<&str> =
        path.split('/').map(|segment| if is_identifier(segment) { "{*}" } else { segment }).collect();
    let is_plain = |segment: &&str| *segment == "{*}" || segment.chars().all(is_pchar);
    // What a template must not hold stays a path.
    if segments.iter().all(is_plain) { segments.join("/") } else { path.to_owned() }
}

// Numbers, UUIDs, and long words of hexadecimal digits.
fn is_identifier(segment: &str) -> bool {
    let bytes = segment.as_bytes();
    let is_number = !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit);
    let is_hex = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_hexdigit);
    let parts: Vec<usize> = segment.split('-').map(str::len).collect();
    let is_uuid = parts == [8, 4, 4, 4, 12] && segment.split('-').all(|part| is_hex(part.as_bytes()));
    is_number || is_uuid || (bytes.len() >= LONG_HEX && is_hex(bytes) && bytes.iter().any(u8::is_ascii_digit))
}

// RFC 3986 3.3.
fn is_pchar(char: char) -> bool {
    char.is_ascii_alphanumeric() || "-._~%!$&'()+,;=:@".contains(char)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generalized(paths: &[&str]) -> Vec<String> {
        let get = || ["GET".to_owned()].into();
        let paths = paths.iter().map(|path| ((*path).to_owned(), get())).collect();
        generalize(paths).into_keys().collect()
    }

    #[test]
    fn many_identifiers_become_a_template_and_few_stay_as_they_are() {
        let many = ["/orders/1", "/orders/2", "/orders/3", "/orders/4", "/orders/5", "/health"];
        assert_eq!(generalized(&many), ["/health", "/orders/{*}"]);
        assert_eq!(generalized(&many[..3]), ["/orders/1", "/orders/2", "/orders/3"]);
    }

    #[test]
    fn words_are_never_generalized() {
        let words =
            ["/a/admin", "/a/users", "/a/health", "/a/metrics", "/a/debug", "/a/faded", "/a/deadbeef"];
        assert_eq!(generalized(&words).len(), words.len());
    }
}
