//! One request as an operator sees it: what a sidecar told of it, with the names of both ends. It came from afar: every part
//! is read strictly, and has a bounded length.

use douane_proto::{id::WorkloadId, wire};
use serde::{Deserialize, Serialize};

use super::view::{End, Kind, Names};
use crate::hex;

/// A request or stream that has ended. What is unknown is absent. `-o json` prints it: names stay.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Seen {
    /// Which end tells: `source` or `destination`.
    pub end: String,
    /// Whose sidecar tells, `namespace/pod`.
    pub told_by: String,
    /// Who asked.
    pub from: Option<End>,
    /// Who was asked.
    pub to: Option<End>,
    /// When it ended, microseconds since 1970.
    pub time_us: u64,
    /// How long it took.
    pub duration_ms: f64,
    /// 32 hexadecimal digits.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trace_id: String,
    /// 16 hexadecimal digits.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub span_id: String,
    /// The span that caused it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub parent_id: String,
    /// What its client calls it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    /// `http/1.1`, `h2`, `tcp`.
    pub protocol: String,
    /// The method; `_OTHER`: one that nobody knows.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub method: String,
    /// The path without its query.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// The answer's status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u32>,
    /// The status of gRPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<u32>,
    /// The other end's address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub peer_address: String,
    /// The address that was asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub destination: String,
    /// The service that was asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// Version and group of the mutual TLS; empty: none.
    pub tls: String,
    /// `allow` or `deny`, where it was decided.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub decision: String,
    /// Was it denied by the law?
    pub denied: bool,
    /// The policy and rule.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub policy: String,
    /// Where that is written, `file:line`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub place: String,
    /// Why it was refused or failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The same as a fixed word.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub refusal: String,
    /// YAML that would allow it, where the sidecar knows it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
}

impl Seen {
    /// What the sidecar of `workload`, which has proven to be `own`, tells.
    pub(super) fn told(sighting: &wire::Sighting, workload: &str, own: &WorkloadId) -> Self {
        let peer = sighting.peer.parse::<WorkloadId>().ok();
        let nameless = |name: &str, kind| End { name: cut(name), kind, identity: None };
        let other = match (&peer, sighting.service.as_str()) {
            (Some(peer), _) => End::workload(peer, &Names::new()),
            (None, "") => nameless("unknown", Kind::Unknown),
            (None, service) => nameless(service, Kind::Service),
        };
        let own = End::workload(own, &Names::new());
        let (end, from, to) =
            if sighting.outbound { ("source", own, other) } else { ("destination", other, own) };
        #[expect(clippy::cast_precision_loss, reason = "a request of 140 years is told with less precision")]
        let duration_ms = sighting.lasted as f64 / 1000.0;
        Self {
            end: end.to_owned(),
            told_by: workload.to_owned(),
            from: Some(from),
            to: Some(to),
            time_us: sighting.ended,
            duration_ms,
            trace_id: id(&sighting.trace_id, 16),
            span_id: id(&sighting.span_id, 8),
            parent_id: id(&sighting.parent_id, 8),
            request_id: cut(&sighting.request_id),
            protocol: cut(&sighting.protocol),
            method: cut(&sighting.method),
            path: cut(&sighting.path),
            status: Some(sighting.status).filter(|status| *status != 0),
            grpc_status: sighting.grpc_status,
            peer_address: cut(&sighting.peer_address),
            destination: cut(&sighting.destination),
            service: cut(&sighting.service),
            tls: cut(&sighting.tls),
            decision: cut(&sighting.decision),
            denied: sighting.denied,
            policy: cut(&sighting.policy),
            place: String::new(),
            reason: cut(&sighting.reason),
            refusal: cut(&sighting.refusal),
            hint: cut(&sighting.hint),
            bytes_in: sighting.bytes_in,
            bytes_out: sighting.bytes_out,
        }
    }

    /// Gives both ends the names that the mesh knows them by.
    pub fn name(&mut self, names: &Names) {
        for end in [&mut self.from, &mut self.to].into_iter().flatten() {
            let id = end.identity.as_ref().and_then(|id| id.parse::<WorkloadId>().ok());
            if let Some(id) = id {
                *end = End::workload(&id, names);
            }
        }
    }
}

fn id(bytes: &[u8], length: usize) -> String {
    if bytes.len() == length { hex::encode(bytes) } else { String::new() }
}

fn cut(text: &str) -> String {
    text.get(..text.floor_char_boundary(LONGEST)).unwrap_or_default().to_owned()
}

/// What a sidecar may say in one text.
const LONGEST: usize = 2048;
