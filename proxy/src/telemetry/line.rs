//! The access log's line: one JSON object for a [`Record`] at its end.
//!
//! Query strings, bodies, and headers but those that say which request and whose program it is are never in it; texts that a
//! peer chose are cut, and escaped as JSON escapes.

use std::borrow::Cow;

use douane_proto::policy::Shadow;
use http::StatusCode;

use crate::telemetry::{
    json::{Object, key},
    origin::Origin,
    record::{Lasted, Protection, Record, policy_and_rule},
};

/// Writes the line with its line feed. `suppressed` counts like lines that were left out before it.
pub(crate) fn access_line(out: &mut Vec<u8>, who: &[u8], record: &Record, lasted: Lasted, suppressed: u64) {
    out.reserve(TYPICAL);
    let mut line = Object::begin(out);
    line.time(key!("timestamp"), lasted.until());
    line.word(key!("level"), if record.refusal.is_some() { "warn" } else { "info" });
    line.word(key!("kind"), "access");
    message(&mut line, record);
    line.again(who);
    if let Some(trace) = &record.trace {
        line.trace_id(key!("trace_id"), trace.trace_id);
        line.span_id(key!("span_id"), trace.span_id);
        line.word(key!("trace_flags"), if trace.sampled { "01" } else { "00" });
    }
    line.maybe(key!("request_id"), record.request_id.as_deref());
    line.word(key!("direction"), record.direction.as_str());
    line.word(key!("protocol"), record.protocol);
    line.maybe(key!("method"), record.method.as_ref().map(|method| cut(method.as_str())));
    line.maybe(key!("authority"), record.authority.as_deref().map(cut));
    line.maybe(key!("path"), record.path.as_deref().map(cut));
    line.maybe(key!("user_agent"), record.user_agent.as_deref());
    for (key, status) in [(key!("status"), record.status), (key!("grpc_status"), record.grpc_status)] {
        if let Some(status) = status {
            line.number(key, status.into());
        }
    }
    if record.status.is_some() {
        line.word(key!("response_origin"), record.answered_by());
    }
    line.milliseconds(key!("duration_ms"), lasted.length);
    if record.method.is_some() {
        line.milliseconds(key!("overhead_ms"), record.overhead_before + record.overhead);
    }
    line.number(key!("bytes_in"), record.bytes_in);
    line.number(key!("bytes_out"), record.bytes_out);
    for (key, id) in [(key!("peer_id"), &record.peer), (key!("local_id"), &record.local)] {
        if let Some(id) = id {
            line.id(key, id);
        }
    }
    if let Some(address) = record.peer_address {
        line.address(key!("peer_addr"), address);
    }
    line.address(key!("destination"), record.destination);
    line.maybe(key!("to_service"), record.service.as_deref().map(cut));
    match &record.protection {
        Protection::Mtls { version, group, binding } => {
            let mut tls = line.object(key!("tls"));
            tls.word(key!("version"), version);
            tls.text(key!("group"), group);
            tls.end();
            line.span_id(key!("tls_binding"), *binding);
        }
        Protection::None => line.null(key!("tls")),
    }
    law(&mut line, record);
    if suppressed > 0 {
        line.number(key!("suppressed"), suppressed);
    }
    line.end();
    out.push(b'\n');
}

/// Who tells, as it stands on every line.
pub(crate) fn who(origin: &Origin) -> Vec<u8> {
    Object::members(|line| {
        line.text(key!("service"), &origin.service);
        line.text(key!("environment"), &origin.environment);
        line.text(key!("namespace"), &origin.namespace);
        line.text(key!("pod"), &origin.pod);
    })
}

/// What policies in a dry run would have decided.
pub(crate) fn dry_run(line: &mut Object<'_>, shadow: &Shadow) {
    let (would, policy, reason) = match shadow {
        Shadow::Allow { by } => ("allow", by.as_deref().map(Cow::from), None),
        Shadow::Deny(denial) => ("deny", policy_and_rule(denial).map(Cow::from), Some(cut(&denial.reason))),
    };
    let mut told = line.object(key!("dry_run"));
    told.word(key!("would"), would);
    told.maybe(key!("policy"), policy.as_deref());
    told.maybe(key!("reason"), reason);
    told.end();
}

/// The first part of a text that somebody else chose the length of.
pub(crate) fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(LONGEST)).unwrap_or_default()
}

// What was decided, and why.
fn law(line: &mut Object<'_>, record: &Record) {
    line.maybe_word(key!("decision"), record.decision);
    line.maybe(key!("policy"), record.policy.as_deref().map(cut));
    line.maybe(key!("audit"), record.audited_by.as_deref().map(cut));
    if let Some(shadow) = &record.dry_run {
        dry_run(line, shadow);
    }
    line.maybe(key!("sni"), record.sni.as_deref().map(cut));
    line.maybe(key!("user"), record.user.as_deref());
    line.maybe(key!("reason"), record.reason.as_deref().map(cut));
    line.maybe_word(key!("refusal"), record.refusal);
    line.maybe(key!("hint"), record.hint.as_deref().map(cut));
}

// What a human reads first.
fn message(line: &mut Object<'_>, record: &Record) {
    let Record { method, path, status, refusal, protocol, .. } = record;
    let (what, gap, path) = match (method, path) {
        (Some(method), path) => (cut(method.as_str()), " ", cut(path.as_deref().unwrap_or("*"))),
        (None, _) => (*protocol, "", ""),
    };
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    let end: [&str; 4] = match (status.as_ref().map(StatusCode::as_str), refusal) {
        (Some(status), None) => [" ", status, "", ""],
        (Some(status), Some(refusal)) => [" ", status, " ", refusal],
        (None, Some(refusal)) => [" refused: ", refusal, "", ""],
        (None, None) => [if method.is_some() { " cancelled" } else { " closed" }, "", "", ""],
    };
    line.joined(key!("message"), [what, gap, path].into_iter().chain(end));
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
        let mut line = Vec::new();
        access_line(&mut line, &who(&origin), record, lasted, 0);
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
        record.policy = Some("shop/orders#rule[0]".into());
        record.refusal = Some("denied");
        record.peer = Some("spiffe://cluster.local/ns/shop/sa/web".parse().unwrap());
        record.protection =
            Protection::Mtls { version: "TLSv1.3", group: "X25519MLKEM768".into(), binding: 7 };
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
            ("tls_binding", "0000000000000007".into()),
            ("decision", "deny".into()),
            ("policy", "shop/orders#rule[0]".into()),
            ("refusal", "denied".into()),
        ] {
            assert_eq!(line[field], expected, "{field}");
        }
        assert!(line.get("grpc_status").is_none());
    }

    #[test]
    fn members_stand_in_the_order_in_which_people_read_them() {
        let mut record = record();
        record.method = Some(http::Method::GET);
        (record.path, record.status) = (Some("/a".to_owned()), Some(200));
        record.peer = Some("spiffe://cluster.local/ns/shop/sa/web".parse().unwrap());
        record.peer_address = Some("[fd77::9]:41234".parse().unwrap());
        record.service = Some("shop/orders".into());
        (record.decision, record.policy) = (Some("allow"), Some("shop/a rule 1".into()));
        record.dry_run = Some(Shadow::Allow { by: None });
        (record.sni, record.hint) = (Some("orders".into()), Some("spec:\n".to_owned()));
        record.request_id = Some("one".into());
        record.user_agent = Some("curl/8".into());
        (record.overhead_before, record.overhead) = (Duration::from_micros(3), Duration::from_micros(4));
        let mut line = Vec::new();

        access_line(
            &mut line,
            &who(&Origin::default()),
            &record,
            Lasted { from: UNIX_EPOCH, length: Duration::from_micros(20) },
            3,
        );

        let expected = concat!(
            r#"{"timestamp":"1970-01-01T00:00:00.000020Z","level":"info","kind":"access","#,
            r#""message":"GET /a 200","service":"","environment":"","namespace":"","pod":"","#,
            r#""request_id":"one","direction":"inbound","protocol":"tcp","method":"GET","path":"/a","#,
            r#""user_agent":"curl/8","status":200,"#,
            r#""response_origin":"upstream","duration_ms":0.02,"overhead_ms":0.007,"bytes_in":0,"bytes_out":0,"#,
            r#""peer_id":"spiffe://cluster.local/ns/shop/sa/web","peer_addr":"[fd77::9]:41234","#,
            r#""destination":"10.77.0.5:8080","to_service":"shop/orders","tls":null,"#,
            r#""decision":"allow","policy":"shop/a rule 1","dry_run":{"would":"allow"},"#,
            r#""sni":"orders","hint":"spec:\n","suppressed":3}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(line).unwrap(), expected);
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
