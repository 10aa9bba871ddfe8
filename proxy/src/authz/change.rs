//! What an external authorizer may change: headers of the request that it allows and of the answer to it, never those that
//! say who asks, whom, or where a message ends.

use douane_proto::{policy::HeaderChange, request::strip_reserved};
use http::{HeaderMap, HeaderName, header};

// Who is asked is decided already, and the framing is ours.
const UNTOUCHABLE: [HeaderName; 8] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::EXPECT,
];

/// Applies the changes, in order, to headers without reserved ones.
pub fn apply(headers: &mut HeaderMap, changes: &[HeaderChange]) {
    for change in changes {
        match change {
            HeaderChange::Set(name, _) | HeaderChange::Append(name, _) | HeaderChange::Remove(name)
                if UNTOUCHABLE.contains(name) => {}
            HeaderChange::Set(name, value) => drop(headers.insert(name, value.clone())),
            // Of more values than a map can hold the rest is dropped.
            HeaderChange::Append(name, value) => drop(headers.try_append(name, value.clone())),
            HeaderChange::Remove(name) => drop(headers.remove(name)),
        }
    }
    if !changes.is_empty() {
        strip_reserved(headers);
    }
}

/// The headers of an authorizer's answer whose names are chosen, as changes that replace what was there.
pub(super) fn chosen(answer: &HeaderMap, is_chosen: impl Fn(&HeaderName) -> bool) -> Vec<HeaderChange> {
    let mut changes = Vec::new();
    for name in answer.keys().filter(|name| is_chosen(name)) {
        for (index, value) in answer.get_all(name).iter().enumerate() {
            changes.push(match index {
                0 => HeaderChange::Set(name.clone(), value.clone()),
                _ => HeaderChange::Append(name.clone(), value.clone()),
            });
        }
    }
    changes
}

/// Is `name` one of `patterns`, which may begin or end with `*`? Case does not matter.
pub(super) fn is_listed(patterns: &[String], name: &HeaderName) -> bool {
    patterns.iter().any(|pattern| {
        let (name, pattern) = (name.as_str(), pattern.to_ascii_lowercase());
        match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
            (Some(end), _) => name.ends_with(end),
            (None, Some(beginning)) => name.starts_with(beginning),
            (None, None) => name == pattern,
        }
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn set(name: &'static str, value: &'static str) -> HeaderChange {
        HeaderChange::Set(HeaderName::from_static(name), HeaderValue::from_static(value))
    }

    #[test]
    fn an_authorizer_changes_neither_identity_nor_host_nor_framing() {
        let mut headers = HeaderMap::new();
        headers.insert("x-user", HeaderValue::from_static("client"));
        headers.insert("te", HeaderValue::from_static("trailers"));

        apply(
            &mut headers,
            &[
                set("x-user", "web"),
                set("host", "other"),
                set("content-length", "0"),
                set("transfer-encoding", "chunked"),
                set("x-forwarded-client-cert", "URI=spiffe://a"),
                set("x-douane-http", "1.0"),
                HeaderChange::Append(HeaderName::from_static("x-user"), HeaderValue::from_static("more")),
                HeaderChange::Remove(header::TE),
            ],
        );

        let left: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(left, [("x-user", "web"), ("x-user", "more"), ("te", "trailers")]);
    }

    #[test]
    fn names_are_listed_exactly_by_beginning_or_by_end() {
        let patterns = ["X-Ext-*".to_owned(), "*-id".to_owned(), "cookie".to_owned()];
        for (name, expected) in [
            ("x-ext-user", true),
            ("x-request-id", true),
            ("cookie", true),
            ("cookies", false),
            ("x-ex", false),
        ] {
            assert_eq!(is_listed(&patterns, &HeaderName::from_static(name)), expected, "{name}");
        }
    }
}
