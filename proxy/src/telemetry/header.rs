//! What every form of trace header shares: the span it names, and ids in hex.

use http::{HeaderMap, HeaderName, HeaderValue};

/// A span as headers name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Named {
    /// Never zero.
    pub(crate) trace_id: u128,
    /// Never zero.
    pub(crate) span_id: u64,
    /// The span that caused it, where the form has a place for it.
    pub(crate) parent_id: Option<u64>,
    /// `None` leaves the choice to the reader.
    pub(crate) sampled: Option<bool>,
    /// Level 2 of W3C's: the trace id is known to be random.
    pub(crate) random: bool,
}

/// The value of a header that came exactly once; one that came twice says nothing.
pub(crate) fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value.as_bytes()),
        _ => None,
    }
}

/// Replaces all values of a header by one.
pub(crate) fn replace(headers: &mut HeaderMap, name: HeaderName, value: impl AsRef<[u8]>) {
    // Ids in hex are valid in a header; were they not, no header is better than the old parent.
    match HeaderValue::from_bytes(value.as_ref()) {
        Ok(value) => drop(headers.insert(name, value)),
        Err(_) => drop(headers.remove(name)),
    }
}

/// The number that exactly `digits` lower case hexadecimal digits write, 32 at most.
pub(crate) fn number(text: &[u8], digits: usize) -> Option<u128> {
    if text.len() != digits {
        return None;
    }
    text.iter().try_fold(0u128, |sum, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(sum << 4 | u128::from(digit))
    })
}

/// A trace id, never zero.
pub(crate) fn trace_id(text: &[u8]) -> Option<u128> {
    number(text, 32).filter(|id| *id != 0)
}

/// A span id, never zero.
pub(crate) fn span_id(text: &[u8]) -> Option<u64> {
    u64::try_from(number(text, 16)?).ok().filter(|id| *id != 0)
}
