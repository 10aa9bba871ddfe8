//! W3C Trace Context level 1, with level 2's random flag, and W3C Baggage: `traceparent` read and replaced, `tracestate`
//! and `baggage`, which belong to others, passed untouched within their limits.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::telemetry::{
    header::{Named, number, only, span_id, trace_id},
    hex,
};

/// The parent that the headers name; `None` where it is missing, invalid or there twice.
pub(crate) fn read(headers: &HeaderMap) -> Option<Named> {
    let mut parts = only(headers, &TRACEPARENT)?.splitn(5, |byte| *byte == b'-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    match number(version, 2)? {
        0 if parts.next().is_some() => return None,
        0xff => return None,
        // A later version begins like this one; what follows after a further dash is not for us (3.2.4).
        _ => {}
    }
    let (trace_id, span_id, flags) = (trace_id(trace)?, span_id(span)?, number(flags, 2)?);
    let (sampled, random) = (flags & u128::from(SAMPLED) != 0, flags & u128::from(RANDOM) != 0);
    Some(Named { trace_id, span_id, parent_id: None, sampled: Some(sampled), random })
}

/// Is it a header that belongs to others?
pub(crate) fn is_state(name: &str) -> bool {
    name == TRACESTATE.as_str() || name == BAGGAGE.as_str()
}

/// Takes out what belongs to others and is worth nothing any more, or over its limits. Before the parent is replaced.
pub(crate) fn limit_states(headers: &mut HeaderMap) {
    // A list of vendors' states is worth nothing without the parent that it came with.
    if read(headers).is_none() || !within(headers, &TRACESTATE, MAX_TRACESTATE_MEMBERS) {
        headers.remove(TRACESTATE);
    }
    if !within(headers, &BAGGAGE, MAX_BAGGAGE_MEMBERS) {
        headers.remove(BAGGAGE);
    }
}

/// Names `span` as the next hop's parent.
pub(crate) fn write(span: Named, headers: &mut HeaderMap) {
    let Ok(mut value) = HeaderValue::from_bytes(&traceparent(span)) else { return };
    // No two requests have the same: HPACK's tables shall not remember it (RFC 7541 7.1.3), in place of what comes again.
    value.set_sensitive(true);
    headers.insert(TRACEPARENT, value);
}

/// The value of `traceparent`: version 00, trace, parent, flags.
pub(crate) fn traceparent(span: Named) -> [u8; TRACEPARENT_LENGTH] {
    let sampled = if span.sampled == Some(true) { SAMPLED } else { 0 };
    let random = if span.random { RANDOM } else { 0 };
    let (trace_id, span_id) = (hex::of(span.trace_id.to_be_bytes()), hex::of(span.span_id.to_be_bytes()));
    let flags = hex::of([sampled | random]);
    let mut text = [b'-'; TRACEPARENT_LENGTH];
    let parts = [
        (0, &b"00"[..]),
        (3, trace_id.as_flattened()),
        (36, span_id.as_flattened()),
        (53, flags.as_flattened()),
    ];
    for (at, part) in parts {
        if let Some(place) = text.get_mut(at..at + part.len()) {
            place.copy_from_slice(part);
        }
    }
    text
}

fn within(headers: &HeaderMap, name: &HeaderName, members: usize) -> bool {
    let (mut seen, mut length) = (0, 0);
    for value in headers.get_all(name) {
        let parts = value.as_bytes().split(|byte| *byte == b',');
        seen += parts.filter(|member| !member.trim_ascii().is_empty()).count();
        // Several lines are one list, joined by commas.
        length += value.len() + usize::from(length > 0);
    }
    seen <= members && length <= MAX_BYTES
}

pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
pub(crate) const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

const TRACEPARENT_LENGTH: usize = 55;
const SAMPLED: u8 = 0x01;
// Level 2, 3.2.2.5.2.
const RANDOM: u8 = 0x02;

// Trace Context 3.3.1.1.
const MAX_TRACESTATE_MEMBERS: usize = 32;
// Baggage 3.3.2.
const MAX_BAGGAGE_MEMBERS: usize = 64;
// Baggage 3.3.2; Trace Context asks for 512 at least.
const MAX_BYTES: usize = 8192;
