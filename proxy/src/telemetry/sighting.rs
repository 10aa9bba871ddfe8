//! What an operator may be told of one request: its record without query, body, and headers but its id, which have no field
//! there.

use std::time::{SystemTime, UNIX_EPOCH};

use douane_proto::wire;

use crate::telemetry::record::{Direction, Lasted, Protection, Record};

/// Of a path, a name or an address.
const LONGEST: usize = 256;
/// Of a sentence, and of a hint of YAML.
const LONGEST_TEXT: usize = 1024;

/// What may be told of `record`.
pub(crate) fn sighting(record: &Record, lasted: Lasted) -> wire::Sighting {
    let trace = record.trace.as_ref();
    let text = |text: Option<&str>, most| cut(text.unwrap_or_default(), most);
    wire::Sighting {
        outbound: record.direction == Direction::Outbound,
        ended: micros(lasted.until()),
        lasted: u64::try_from(lasted.length.as_micros()).unwrap_or(u64::MAX),
        trace_id: trace.map(|trace| trace.trace_id.to_be_bytes().to_vec()).unwrap_or_default(),
        span_id: trace.map(|trace| trace.span_id.to_be_bytes().to_vec()).unwrap_or_default(),
        parent_id: trace
            .and_then(|trace| trace.parent_id)
            .map(|id| id.to_be_bytes().to_vec())
            .unwrap_or_default(),
        protocol: record.protocol.to_owned(),
        // One that a client invented tells nothing but what the client wants to be told.
        method: record
            .method
            .as_ref()
            .map(|_| record.known_method().unwrap_or("_OTHER").to_owned())
            .unwrap_or_default(),
        path: text(without_query(record.path.as_deref()), LONGEST),
        status: record.status.map(u32::from).unwrap_or_default(),
        grpc_status: record.grpc_status.map(u32::from),
        peer: record.peer.as_ref().map(ToString::to_string).unwrap_or_default(),
        peer_address: record.peer_address.map(|address| address.to_string()).unwrap_or_default(),
        destination: record.destination.to_string(),
        service: text(record.service.as_deref(), LONGEST),
        tls: match &record.protection {
            Protection::Mtls { version, group, .. } => format!("{version} {group}"),
            Protection::None => String::new(),
        },
        decision: record.decision.unwrap_or_default().to_owned(),
        policy: text(record.policy.as_deref(), LONGEST_TEXT),
        reason: text(record.reason.as_deref(), LONGEST_TEXT),
        refusal: record.refusal.unwrap_or_default().to_owned(),
        hint: text(record.hint.as_deref(), LONGEST_TEXT),
        bytes_in: record.bytes_in,
        bytes_out: record.bytes_out,
        denied: record.denied,
        request_id: record.request_id.as_deref().unwrap_or_default().to_owned(),
    }
}

// A record's path has none; whoever fills it otherwise one day must not tell a query by that.
fn without_query(path: Option<&str>) -> Option<&str> {
    path?.split(['?', '#']).next()
}

fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn cut(text: &str, most: usize) -> String {
    text.get(..text.floor_char_boundary(most)).unwrap_or_default().to_owned()
}
