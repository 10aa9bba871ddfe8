//! A request of a case: what a client would send, from which connection, and what should become of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use douane_proto::{
    id::WorkloadId,
    policy::Answer,
    yaml::{Node, Value, bounded},
};

use super::{
    case::Request,
    fields::{Fields, list, scalar, text, wrong},
    token,
};
use crate::policy::{
    asked::{Asked, Head, Protocol, Verdict, Workload},
    issuer::Issuer,
    wrong::Wrong,
};

/// Where a request comes from that does not say (RFC 5737: addresses for documentation).
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// The workload's own address where a request does not say.
const DESTINATION: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

/// Reads a request; what is wrong with it is its own fault only, but it must say what it expects.
pub(super) fn read(node: &Node, workload: &Workload, issuer: &Issuer) -> Result<Request, Wrong> {
    let fields = Fields::of(node, "a request")?;
    let expected = expected(&fields, node)?;
    let why = fields.get("why").and_then(scalar);
    let asked = asked(fields, workload, issuer);
    Ok(Request { line: node.line, asked, expected, why })
}

fn expected(fields: &Fields<'_>, node: &Node) -> Result<Verdict, Wrong> {
    let choices = [
        ("allow", Verdict::Allow),
        ("deny", Verdict::Deny),
        ("401", Verdict::Unauthorized),
        ("400", Verdict::BadRequest),
        ("403", Verdict::Deny),
    ];
    let expected = fields.choice("expect", &choices)?;
    expected.ok_or_else(|| wrong(node, "a request must say what to expect: allow, deny, 401 or 400"))
}

fn asked(fields: Fields<'_>, workload: &Workload, issuer: &Issuer) -> Result<Asked, Wrong> {
    let empty = Node { line: 0, value: Value::Null };
    let source = Fields::of(fields.get("source").unwrap_or(&empty), "source")?;
    let peer = source.get("principal").map(principal).transpose()?.flatten();
    let ip = source.parsed("ip", "IP address")?.unwrap_or(SOURCE);
    let remote = source.parsed("remote_ip", "IP address")?.unwrap_or(ip);
    let sni = source.text("sni")?;
    source.end()?;

    let address = fields.parsed("dst_ip", "IP address")?.unwrap_or(DESTINATION);
    let port = fields.parsed("dst_port", "port")?.unwrap_or(workload.port);
    let answers = [
        ("allow", Answer::Allow),
        ("deny", Answer::Deny),
        ("error", Answer::Failed("the case says that it fails".to_owned())),
    ];
    let choices: Vec<(&str, &Answer)> = answers.iter().map(|(name, answer)| (*name, answer)).collect();
    let ext_authz = fields.choice("ext_authz", &choices)?.cloned();
    let head = head(&fields, workload, issuer)?;
    let _free = fields.written("name");
    fields.end()?;
    let destination = SocketAddr::new(address, port);
    Ok(Asked { peer, source: ip, remote, destination, sni, head, ext_authz })
}

fn principal(node: &Node) -> Result<Option<WorkloadId>, Wrong> {
    let written = text(node, "principal")?;
    if written.is_empty() {
        return Ok(None);
    }
    let bare = written.strip_prefix("spiffe://").unwrap_or(&written);
    let id = format!("spiffe://{bare}").parse().map_err(|_| {
        let written = bounded(&written);
        wrong(
            node,
            format!(
                "principal {written:?} is no identity; write trust.domain/ns/namespace/sa/account, or null"
            ),
        )
    })?;
    Ok(Some(id))
}

// The keys of HTTP are known on a TCP port, too, and mean nothing there: nobody looks at them.
fn head(fields: &Fields<'_>, workload: &Workload, issuer: &Issuer) -> Result<Option<Head>, Wrong> {
    let method = fields.text("method")?;
    let host = match fields.written("host") {
        None => {
            let Workload { service_account, namespace, .. } = workload;
            Some(format!("{service_account}.{namespace}.svc.cluster.local"))
        }
        Some(Node { value: Value::Null, .. }) => None,
        Some(node) => Some(text(node, "host")?),
    };
    let is_host_given = fields.written("host").is_some();
    let target = fields.text_or("path", "/")?;
    let mut headers = fields.get("headers").map(headers).transpose()?.unwrap_or_default();
    let jwt = fields.get("jwt");
    let Some(version) = workload.protocol.version() else { return Ok(None) };

    let host = settle_host(host, is_host_given, &mut headers);
    let usual = if workload.protocol == Protocol::Grpc { "POST" } else { "GET" };
    let is_typed = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    if workload.protocol == Protocol::Grpc && !is_typed {
        headers.push(("content-type".to_owned(), "application/grpc".to_owned()));
    }
    let method = method.unwrap_or_else(|| usual.to_owned());
    let mut head = Head { version, method, host, target, headers };
    if let Some(jwt) = jwt {
        token::put_all(jwt, &mut head, issuer)?;
    }
    Ok(Some(head))
}

// A Host among the headers takes the place of the default one, and repeats one that is written the same.
fn settle_host(host: Option<String>, is_given: bool, headers: &mut Vec<(String, String)>) -> Option<String> {
    let is_host = |(name, _): &&(String, String)| name.eq_ignore_ascii_case("host");
    let mut listed = headers.iter().filter(is_host).map(|(_, value)| value.clone());
    let (first, more) = (listed.next(), listed.next().is_some());
    let Some(first) = first else { return host };
    if !more && host.as_ref().is_some_and(|host| is_given && host.eq_ignore_ascii_case(&first)) {
        headers.retain(|header| !is_host(&header));
        return host;
    }
    if is_given && host.is_some() {
        return host;
    }
    let at = headers.iter().position(|header| is_host(&header));
    if let Some(at) = at {
        headers.remove(at);
    }
    Some(first)
}

// A map (a value may be a list of values), or a list of [name, value].
fn headers(node: &Node) -> Result<Vec<(String, String)>, Wrong> {
    let mut headers = Vec::new();
    match &node.value {
        Value::Map(entries) => {
            for entry in entries {
                match &entry.node.value {
                    Value::List(values) => {
                        for value in values {
                            headers.push((entry.key.clone(), header_value(value)?));
                        }
                    }
                    _ => headers.push((entry.key.clone(), header_value(&entry.node)?)),
                }
            }
        }
        _ => {
            for pair in list(node, "headers")? {
                match &pair.value {
                    Value::List(items) => match items.as_slice() {
                        [name, value] => headers.push((text(name, "a header's name")?, header_value(value)?)),
                        _ => return Err(wrong(pair, "a header is [name, value]")),
                    },
                    Value::Map(entries) => {
                        for entry in entries {
                            headers.push((entry.key.clone(), header_value(&entry.node)?));
                        }
                    }
                    _ => return Err(wrong(pair, "a header is [name, value]")),
                }
            }
        }
    }
    Ok(headers)
}

fn header_value(node: &Node) -> Result<String, Wrong> {
    match node.value {
        Value::Null => Ok(String::new()),
        _ => text(node, "a header's value"),
    }
}
