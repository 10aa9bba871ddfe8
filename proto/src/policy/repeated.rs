//! A header that may stand in a request more than once. It can be read value by value, or joined by commas; applications
//! do either, so that an ALLOW rule must hold in every reading and any other rule holds if it does in one.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    matcher::{Effect, Matcher, Values},
    pattern::Case,
};

/// Does a field on the header hold?
pub(super) fn holds(
    name: &HeaderName,
    headers: &HeaderMap,
    any_of: &Values,
    none_of: &Values,
    effect: Effect,
) -> bool {
    let all = || headers.get_all(name).iter();
    let present = all().next().is_some();
    let one = |values: &Values, value: &HeaderValue| {
        values.any(|matcher| match matcher {
            Matcher::Text(pattern) => pattern.matches(value.as_bytes(), Case::Sensitive),
            _ => false,
        })
    };
    let joined = |values: &Values| {
        let with_comma = |value| std::iter::once(b',').chain(HeaderValue::as_bytes(value).iter().copied());
        values.any(|matcher| match matcher {
            Matcher::Text(pattern) => {
                let mut text = all().flat_map(with_comma);
                text.next();
                pattern.matches_bytes(text)
            }
            _ => false,
        })
    };
    match effect {
        Effect::Allow => {
            (any_of.is_empty() || present && all().all(|value| one(any_of, value)))
                && !all().any(|value| one(none_of, value))
                && !(present && joined(none_of))
        }
        Effect::Deny => {
            let wanted = || all().any(|value| one(any_of, value)) || present && joined(any_of);
            let unwanted_missing = || !present || all().any(|value| !one(none_of, value)) || !joined(none_of);
            (any_of.is_empty() || wanted()) && (none_of.is_empty() || unwanted_missing())
        }
    }
}
