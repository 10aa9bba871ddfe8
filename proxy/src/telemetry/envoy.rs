//! The access log's line as Envoy in an Istio mesh writes it by default, for tools that read that. Where a request has no id
//! stands its trace's. `-` is what is not known; what a peer chose is cut, and escaped.

use std::fmt::Write as _;

use crate::telemetry::{
    flags,
    json::rfc3339,
    line::cut,
    record::{Direction, Lasted, Record},
};

/// Writes the line with its line feed.
pub(crate) fn envoy_line(out: &mut Vec<u8>, record: &Record, lasted: Lasted) {
    let text =
        |text: Option<&str>| text.map_or_else(|| "-".to_owned(), |text| cut(text).escape_debug().to_string());
    let protocol = match record.protocol {
        "h2" => "HTTP/2",
        "http/1.1" => "HTTP/1.1",
        "http/1.0" => "HTTP/1.0",
        _ => "-",
    };
    let service = record.service.as_deref().and_then(|service| service.split_once('/'));
    let (port, peer) = (record.destination.port(), record.peer_address);
    let cluster = match (record.direction, service) {
        (Direction::Inbound, _) => format!("inbound|{port}||"),
        (Direction::Outbound, Some((namespace, name))) => {
            format!("outbound|{port}||{name}.{namespace}.svc.cluster.local")
        }
        (Direction::Outbound, None) => "PassthroughCluster".to_owned(),
    };
    let (upstream, downstream) = match record.direction {
        Direction::Inbound => (Some(record.destination), peer),
        Direction::Outbound => (peer, None),
    };
    let address = |address: Option<std::net::SocketAddr>| {
        address.map_or_else(|| "-".to_owned(), |address| address.to_string())
    };
    let trace_id = record.trace.as_ref().map(|trace| format!("{:032x}", trace.trace_id));
    let mut line = String::with_capacity(TYPICAL);
    // Into memory: it cannot fail.
    let _ = writeln!(
        line,
        "[{}] \"{} {} {protocol}\" {} {} {} - \"-\" {} {} {} - \"-\" \"{}\" \"{}\" \"{}\" \"{}\" {cluster} - {} {} {} -",
        rfc3339(lasted.from),
        text(record.method.as_ref().map(http::Method::as_str)),
        text(record.path.as_deref()),
        record.status.unwrap_or_default(),
        flags::of(record),
        record.refusal.unwrap_or(if record.status.is_some() { "via_upstream" } else { "-" }),
        record.bytes_in,
        record.bytes_out,
        lasted.length.as_millis(),
        text(record.user_agent.as_deref()),
        text(record.request_id.as_deref().or(trace_id.as_deref())),
        text(record.authority.as_deref()),
        address(upstream),
        record.destination,
        address(downstream),
        text(record.sni.as_deref()),
    );
    out.extend_from_slice(line.as_bytes());
}

// Bytes.
const TYPICAL: usize = 384;

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn told(record: &Record) -> String {
        let mut out = Vec::new();
        envoy_line(&mut out, record, Lasted { from: UNIX_EPOCH, length: Duration::from_millis(7) });
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_request_reads_as_in_istio() {
        let mut record = Record::new(Direction::Outbound, "10.96.0.7:80".parse().unwrap());
        (record.method, record.path) = (Some(http::Method::GET), Some("/orders".to_owned()));
        (record.authority, record.service) = (Some("orders.shop".to_owned()), Some("shop/orders".into()));
        (record.status, record.protocol, record.bytes_out) = (Some(200), "http/1.1", 12);
        record.peer_address = Some("10.77.0.5:8080".parse().unwrap());

        assert_eq!(
            told(&record),
            "[1970-01-01T00:00:00.000000Z] \"GET /orders HTTP/1.1\" 200 - via_upstream - \"-\" 0 12 7 - \"-\" \"-\" \"-\" \
             \"orders.shop\" \"10.77.0.5:8080\" outbound|80||orders.shop.svc.cluster.local - 10.96.0.7:80 - - -\n"
        );
    }

    #[test]
    fn what_a_peer_chose_is_one_line_and_closes_no_quotation() {
        let mut record = Record::new(Direction::Inbound, "10.77.0.5:8080".parse().unwrap());
        (record.method, record.path) = (Some(http::Method::GET), Some("/a\" 200\n[forged]".to_owned()));
        (record.status, record.refusal) = (Some(403), Some("denied"));

        let line = told(&record);

        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.contains("\"GET /a\\\" 200\\n[forged] -\" 403 UAEX denied"), "{line}");
    }
}
