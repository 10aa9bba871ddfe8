//! Envoy's response flags: the nearest one for each of our refusals, for whoever reads Envoy's words.

use crate::telemetry::record::Record;

/// `-` where nothing was refused.
pub(crate) fn of(record: &Record) -> &'static str {
    match record.refusal {
        None => "-",
        Some("no_ready_endpoint" | "unmeshed_fallback") => "UH",
        Some("connect_failed" | "peer_handshake_failed") => "UF",
        Some("upstream_failed" | "peer_refused") => "UC",
        Some("unknown_destination" | "unknown_port" | "control_plane_silent") => "NR",
        Some("unresolvable") => "DF",
        Some("request_timeout" | "idle") => "UT",
        Some("stream_age") => "DT",
        Some("client_gone") => "DC",
        Some("denied" | "authorizer_denied") => "UAEX",
        Some("bad_request" | "connect_not_allowed" | "head_timeout") => "DPE",
        Some("memory_pressure" | "too_many_connections") => "OM",
        Some("too_many_in_flight" | "share_exceeded") => "UO",
        Some(_) => "NFCF",
    }
}
