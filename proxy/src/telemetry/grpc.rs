//! gRPC's status codes by name (gRPC "Status codes and their use"), as OpenTelemetry's conventions want them.

use std::borrow::Cow;

/// The name of a code; of one that does not exist the number.
pub(crate) fn name(code: u16) -> Cow<'static, str> {
    NAMES.get(usize::from(code)).map_or_else(|| code.to_string().into(), |name| (*name).into())
}

/// The name of a code, for a label: a peer may answer with any number.
pub(crate) fn known(code: u16) -> &'static str {
    NAMES.get(usize::from(code)).copied().unwrap_or("_OTHER")
}

const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
