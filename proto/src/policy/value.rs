//! One value of a policy's field: from its text to what it matches, or what is wrong with it.

use http::HeaderName;
use ipnet::IpNet;

use super::{
    clause::{Attribute, Matcher},
    pattern::{Glob, Pattern},
    template::Template,
};
use crate::id::TrustDomain;

/// Istio's bound for an entry of `serviceAccounts`.
const MAX_ACCOUNT_CHARS: usize = 320;
/// The trust domain that stands for the local one, whatever that is called.
const ANY_LOCAL: &str = "cluster.local";

/// What is wrong with a value, and how to mend it.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) mend: &'static str,
    pub(super) unsupported: bool,
}

/// What a value is read for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    /// The policy's namespace.
    pub(super) namespace: &'a str,
    /// The trust domain of the mesh; `None` where a policy is only validated.
    pub(super) local: Option<&'a TrustDomain>,
}

/// The key of a condition: what it looks at.
pub(super) fn parse_key(key: &str) -> Result<Attribute, Wrong> {
    let name = match key {
        "source.ip" => return Ok(Attribute::SourceIp),
        "source.namespace" => return Ok(Attribute::Namespace),
        "source.principal" => return Ok(Attribute::Principal),
        "source.serviceAccount" => return Ok(Attribute::ServiceAccount),
        "source.trustDomain" => return Ok(Attribute::TrustDomain),
        "destination.ip" => return Ok(Attribute::DestinationIp),
        "destination.port" => return Ok(Attribute::DestinationPort),
        "connection.sni" => return Ok(Attribute::Sni),
        _ if key == "remote.ip" || key.starts_with("request.auth.") || key.starts_with("experimental.") => {
            return Err(Wrong {
                what: format!("the key {:?} is not implemented yet", bounded(key)),
                mend: "remove the condition, or the rule",
                unsupported: true,
            });
        }
        _ => key.strip_prefix("request.headers[").and_then(|rest| rest.strip_suffix(']')),
    };
    let Some(name) = name else {
        return Err(wrong(
            format!("there is no key {:?}", bounded(key)),
            "write request.headers[name], source.ip, source.namespace, source.principal, source.serviceAccount, \
             source.trustDomain, destination.ip, destination.port or connection.sni",
        ));
    };
    // Header names have no case; `HeaderName` wants the lower one.
    HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes()).map(Attribute::Header).map_err(|_| {
        wrong(
            format!("{:?} is no header name", bounded(name)),
            "write a header's name; for method, host and path there are fields of an operation",
        )
    })
}

/// The matchers of a value; more than one where a principal holds for several trust domains.
pub(super) fn parse(attribute: &Attribute, text: &str, context: Context<'_>) -> Result<Vec<Matcher>, Wrong> {
    if text.is_empty() {
        return Err(wrong("the value is empty".to_owned(), "remove it; for \"present\" write \"*\""));
    }
    match attribute {
        Attribute::Principal => principal(text, context.local),
        Attribute::Namespace => Ok(vec![Matcher::Glob(Glob::parse(text))]),
        Attribute::ServiceAccount => Ok(vec![account(text, context.namespace)?]),
        Attribute::TrustDomain => Ok(vec![trust_domain(text)?]),
        Attribute::SourceIp | Attribute::DestinationIp => Ok(vec![Matcher::Net(net(text)?)]),
        Attribute::DestinationPort => Ok(vec![Matcher::Port(port(text)?)]),
        Attribute::Path if Template::is_one(text) => match Template::parse(text) {
            Ok(template) => Ok(vec![Matcher::Template(template)]),
            Err(rule) => Err(wrong(format!("{:?} is no path template", bounded(text)), rule)),
        },
        Attribute::Host | Attribute::Method | Attribute::Path | Attribute::Header(_) | Attribute::Sni => {
            Ok(vec![Matcher::Text(Pattern::parse(text))])
        }
    }
}

// A whole principal of the local trust domain (by name, or as `cluster.local`) is one of the local trust domain.
fn principal(text: &str, local: Option<&TrustDomain>) -> Result<Vec<Matcher>, Wrong> {
    if text.starts_with("spiffe://") {
        return Err(wrong(
            format!("{:?} never matches: a principal is written without its scheme", bounded(text)),
            "remove spiffe://",
        ));
    }
    let as_written = Matcher::Text(Pattern::parse(text));
    let whole = text.split_once('/').filter(|(first, path)| is_whole(first, path));
    let Some(((domain, path), local)) = whole.zip(local) else { return Ok(vec![as_written]) };
    let is_pattern = domain.contains('*');
    let is_local = Pattern::parse(domain).matches(local.as_str().as_bytes(), super::pattern::Case::Sensitive);
    if !is_local && domain != ANY_LOCAL {
        return Ok(vec![as_written]);
    }
    let of_local = Matcher::Text(Pattern::parse(&format!("{local}/{path}")));
    Ok(if is_pattern { vec![as_written, of_local] } else { vec![of_local] })
}

fn is_whole(domain: &str, path: &str) -> bool {
    domain != "*" && path.split('/').count() == 4
}

/// Does the value look like a principal of `cluster.local` that is matched as written, since it is not a whole one?
pub(super) fn is_unexpanded(text: &str, local: &TrustDomain) -> bool {
    let whole = text.split_once('/').is_some_and(|(first, path)| is_whole(first, path));
    local.as_str() != ANY_LOCAL && !whole && text.split('/').next() == Some(ANY_LOCAL)
}

/// Can no normalized path look like this? It has a query, a fragment, or bytes that are always escaped.
pub(super) fn is_unreachable_path(text: &str) -> bool {
    !text.is_ascii() || text.bytes().any(|byte| b"?#\\ ".contains(&byte) || byte.is_ascii_control())
}

fn account(text: &str, own_namespace: &str) -> Result<Matcher, Wrong> {
    let mend = "write namespace/name, or name for the policy's own namespace";
    if text.chars().count() > MAX_ACCOUNT_CHARS || text.contains('*') {
        return Err(wrong(format!("{:?} is no service account", bounded(text)), mend));
    }
    let (namespace, name) = text.split_once('/').unwrap_or((own_namespace, text));
    if namespace.is_empty() || name.is_empty() || name.contains('/') {
        return Err(wrong(format!("{:?} is no service account", bounded(text)), mend));
    }
    Ok(Matcher::Account { namespace: namespace.into(), name: name.into() })
}

fn trust_domain(text: &str) -> Result<Matcher, Wrong> {
    let inner = text.strip_prefix('*').or_else(|| text.strip_suffix('*')).unwrap_or(text);
    if inner.contains(['*', '/']) {
        let what = format!("{:?} is no trust domain", bounded(text));
        return Err(wrong(what, "write a name, with a star first or last at most"));
    }
    Ok(Matcher::Text(Pattern::parse(text)))
}

fn net(text: &str) -> Result<IpNet, Wrong> {
    let net = match text.parse::<IpNet>() {
        Ok(net) => Some(net),
        Err(_) => text.parse().ok().map(|address: std::net::IpAddr| IpNet::from(address.to_canonical())),
    };
    net.map(canonical).ok_or_else(|| {
        let what = format!("{:?} is neither an IP address nor a range", bounded(text));
        wrong(what, "write one such as 10.0.0.1, 10.0.0.0/8 or fd00::/8")
    })
}

// A range inside ::ffff:0:0/96 is one of IPv4; facts hold canonical addresses.
fn canonical(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let mapped = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    let v4 = mapped.and_then(|(address, length)| ipnet::Ipv4Net::new(address, length).ok());
    v4.map_or(net, IpNet::V4)
}

fn port(text: &str) -> Result<u16, Wrong> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| {
        wrong(format!("{:?} is no port", bounded(text)), "write a number from 0 to 65535, in quotes")
    })
}

fn wrong(what: String, mend: &'static str) -> Wrong {
    Wrong { what, mend, unsupported: false }
}

/// What a policy said, cut to a length that fits a log line.
pub(super) fn bounded(text: &str) -> String {
    text.chars().take(100).collect()
}
