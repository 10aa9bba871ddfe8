//! The access log's line: one JSON object for a [`Record`] at its end.
//!
//! Query strings, headers and bodies are never in it; texts that a peer chose are cut, and escaped as JSON escapes.

use std::{borrow::Cow, fmt};

use douane_proto::policy::Shadow;
use serde::{Serialize, Serializer};

use crate::telemetry::{
    origin::Origin,
    record::{Lasted, Protection, Record, policy_and_rule},
};

/// The line with its line feed. `suppressed` counts like lines that were left out before it.
pub(crate) fn access_line(origin: &Origin, record: &Record, lasted: Lasted, suppressed: u64) -> Vec<u8> {
    let line = Line {
        timestamp: Shown(humantime::format_rfc3339_micros(lasted.until())),
        level: if record.refusal.is_some() { "warn" } else { "info" },
        kind: "access",
        message: Shown(Message(record)),
        service: &origin.service,
        environment: &origin.environment,
        namespace: &origin.namespace,
        pod: &origin.pod,
        trace_id: record.trace.as_ref().map(|trace| Shown(Hex(trace.trace_id, 32))),
        span_id: record.trace.as_ref().map(|trace| Shown(Hex(trace.span_id.into(), 16))),
        direction: record.direction.as_str(),
        protocol: record.protocol,
        method: record.method.as_ref().map(|method| cut(method.as_str())),
        authority: record.authority.as_deref().map(cut),
        path: record.path.as_deref().map(cut),
        status: record.status,
        grpc_status: record.grpc_status,
        #[expect(clippy::cast_precision_loss, reason = "2^53 microseconds are 285 years")]
        duration_ms: lasted.length.as_micros() as f64 / 1000.0,
        bytes_in: record.bytes_in,
        bytes_out: record.bytes_out,
        peer_id: record.peer.as_ref().map(Shown),
        local_id: record.local.as_ref().map(Shown),
        peer_addr: record.peer_address.map(Shown),
        destination: Shown(record.destination),
        to_service: record.service.as_deref().map(cut),
        tls: match &record.protection {
            Protection::Mtls { version, group } => Some(Tls { version, group }),
            Protection::None => None,
        },
        decision: record.decision,
        policy: record.policy.as_deref().map(cut),
        audit: record.audited_by.as_deref().map(cut),
        dry_run: record.dry_run.as_ref().map(DryRun::of),
        sni: record.sni.as_deref().map(cut),
        request_principal: record.request_principal.as_deref().map(cut),
        reason: record.reason.as_deref().map(cut),
        refusal: record.refusal,
        hint: record.hint.as_deref().map(cut),
        suppressed: (suppressed > 0).then_some(suppressed),
    };
    let mut bytes = Vec::with_capacity(TYPICAL);
    // Plain values into memory: neither can fail.
    if serde_json::to_writer(&mut bytes, &line).is_err() {
        bytes.clear();
    }
    bytes.push(b'\n');
    bytes
}

/// The first part of a text that somebody else chose the length of.
pub(crate) fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(LONGEST)).unwrap_or_default()
}

#[derive(Serialize)]
struct Line<'a> {
    timestamp: Shown<humantime::Rfc3339Timestamp>,
    level: &'static str,
    kind: &'static str,
    message: Shown<Message<'a>>,
    service: &'a str,
    environment: &'a str,
    namespace: &'a str,
    pod: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<Shown<Hex>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<Shown<Hex>>,
    direction: &'static str,
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authority: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u16>,
    duration_ms: f64,
    bytes_in: u64,
    bytes_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_id: Option<Shown<&'a douane_proto::id::WorkloadId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_id: Option<Shown<&'a douane_proto::id::WorkloadId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_addr: Option<Shown<std::net::SocketAddr>>,
    destination: Shown<std::net::SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_service: Option<&'a str>,
    tls: Option<Tls<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audit: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dry_run: Option<DryRun<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sni: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_principal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    suppressed: Option<u64>,
}

#[derive(Serialize)]
struct Tls<'a> {
    version: &'a str,
    group: &'a str,
}

/// What policies in a dry run would have decided.
#[derive(Serialize)]
pub(crate) struct DryRun<'a> {
    would: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl<'a> DryRun<'a> {
    pub(crate) fn of(shadow: &'a Shadow) -> Self {
        match shadow {
            Shadow::Allow { by } => {
                Self { would: "allow", policy: by.as_deref().map(Cow::from), reason: None }
            }
            Shadow::Deny(denial) => Self {
                would: "deny",
                policy: policy_and_rule(denial).map(Cow::from),
                reason: Some(cut(&denial.reason)),
            },
        }
    }
}

/// A value as it prints itself.
pub(crate) struct Shown<T>(pub(crate) T);

impl<T: fmt::Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

pub(crate) struct Hex(pub(crate) u128, pub(crate) usize);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0width$x}", self.0, width = self.1)
    }
}

/// What a human reads first.
struct Message<'a>(&'a Record);

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record { method, path, status, refusal, protocol, .. } = self.0;
        match (method, path) {
            (Some(method), path) => {
                write!(f, "{} {}", cut(method.as_str()), cut(path.as_deref().unwrap_or("*")))?;
            }
            (None, _) => f.write_str(protocol)?,
        }
        match (status, refusal) {
            (Some(status), None) => write!(f, " {status}"),
            (Some(status), Some(refusal)) => write!(f, " {status} {refusal}"),
            (None, Some(refusal)) => write!(f, " refused: {refusal}"),
            (None, None) => f.write_str(if method.is_some() { " cancelled" } else { " closed" }),
        }
    }
}

// Bytes. A line with all fields has about 900.
const TYPICAL: usize = 1024;
// Bytes of one text; a hint of YAML has some hundred.
const LONGEST: usize = 2048;

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use serde_json::Value;

    use super::*;
    use crate::telemetry::{record::Direction, trace::TraceContext};

    fn told(record: &Record) -> Value {
        let origin = Origin {
            service: "orders".into(),
            guessed: false,
            environment: "lab".into(),
            namespace: "shop".into(),
            pod: "orders-1".into(),
        };
        let lasted = Lasted { from: UNIX_EPOCH, length: Duration::from_micros(1_500_250) };
        let line = access_line(&origin, record, lasted, 0);
        assert_eq!(line.iter().filter(|byte| byte.is_ascii_control()).count(), 1, "the line feed at its end");
        serde_json::from_slice(&line).unwrap()
    }

    fn record() -> Record {
        Record::new(Direction::Inbound, "10.77.0.5:8080".parse().unwrap())
    }

    #[test]
    fn a_request_is_told_with_who_when_and_why() {
        let mut record = record();
        record.protocol = "http/1.1";
        record.method = Some(http::Method::GET);
        record.path = Some("/orders/42".to_owned());
        record.status = Some(403);
        record.decision = Some("deny");
        record.policy = Some("shop/orders#rule[0]".to_owned());
        record.refusal = Some("denied");
        record.peer = Some("spiffe://cluster.local/ns/shop/sa/web".parse().unwrap());
        record.protection = Protection::Mtls { version: "TLSv1.3", group: "X25519MLKEM768".to_owned() };
        record.trace =
            Some(TraceContext { trace_id: 0xabc, parent_id: None, span_id: 1, sampled: true, random: true });

        let line = told(&record);

        for (field, expected) in [
            ("timestamp", Value::from("1970-01-01T00:00:01.500250Z")),
            ("level", "warn".into()),
            ("kind", "access".into()),
            ("message", "GET /orders/42 403 denied".into()),
            ("service", "orders".into()),
            ("environment", "lab".into()),
            ("namespace", "shop".into()),
            ("pod", "orders-1".into()),
            ("trace_id", "00000000000000000000000000000abc".into()),
            ("span_id", "0000000000000001".into()),
            ("direction", "inbound".into()),
            ("status", 403.into()),
            ("duration_ms", 1500.25.into()),
            ("peer_id", "spiffe://cluster.local/ns/shop/sa/web".into()),
            ("destination", "10.77.0.5:8080".into()),
            ("tls", serde_json::json!({"version": "TLSv1.3", "group": "X25519MLKEM768"})),
            ("decision", "deny".into()),
            ("policy", "shop/orders#rule[0]".into()),
            ("refusal", "denied".into()),
        ] {
            assert_eq!(line[field], expected, "{field}");
        }
        assert!(line.get("grpc_status").is_none());
    }

    #[test]
    fn what_a_peer_writes_forges_no_line_and_has_a_bounded_length() {
        let mut record = record();
        record.method = Some(http::Method::GET);
        record.path = Some("/a\n{\"level\":\"error\"}\r\u{1b}[31m".to_owned());
        record.authority = Some("é".repeat(100_000));

        let line = told(&record);

        assert_eq!(line["path"], "/a\n{\"level\":\"error\"}\r\u{1b}[31m");
        assert_eq!(line["authority"].as_str().unwrap().len(), LONGEST);
    }

    #[test]
    fn a_stream_without_tls_says_so() {
        let line = told(&record());

        assert_eq!(line["message"], "tcp closed");
        assert_eq!(line["tls"], Value::Null);
    }
}
