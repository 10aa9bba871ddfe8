//! The mark of a kept trace between sidecars: up with an answer, as a header or behind its body, and down to peers that were
//! called for it, as a small request of the dialect. Never to or from an application, and only of traces that the other end
//! has to do with.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    exchange::ledger::SharedAccess,
    telemetry::header::{only, trace_id},
};

/// The trace's id in hex. Reserved: stripped from whatever an application says.
pub const RETAIN: HeaderName = HeaderName::from_static("x-douane-retain");
/// The protocol of a request that only names traces (extended CONNECT, RFC 8441).
pub const PROTOCOL: &str = "douane-retain";
/// Of one such request.
pub const MOST_TRACES: usize = 64;

/// Marks an answer to a peer of the mesh where its trace is kept.
pub fn mark(headers: &mut HeaderMap, access: &SharedAccess) {
    let access = access.borrow();
    if let Some(kept) = access.kept_trace() {
        headers.insert(RETAIN, value(kept));
        access.marked();
    }
}

/// Believes the mark on a peer's answer, if it is of the trace that the peer was asked in.
pub fn hear(headers: &HeaderMap, access: &SharedAccess) {
    if let Some(marked) = only(headers, &RETAIN).and_then(trace_id) {
        access.borrow().told_to_keep(marked);
    }
}

/// The traces that a request names.
pub fn named(headers: &HeaderMap) -> impl Iterator<Item = u128> {
    headers.get_all(RETAIN).iter().take(MOST_TRACES).filter_map(|value| trace_id(value.as_bytes()))
}

/// A trace's name.
#[must_use]
pub fn value(trace_id: u128) -> HeaderValue {
    // Hex is always a value.
    HeaderValue::try_from(format!("{trace_id:032x}")).unwrap_or_else(|_| HeaderValue::from_static(""))
}
