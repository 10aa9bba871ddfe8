//! One value of a policy's field: from its text to what it matches, or what is wrong with it.

use std::fmt::Write as _;

use ipnet::IpNet;

use super::{
    attribute::Attribute,
    matcher::Matcher,
    pattern::{Glob, Pattern},
    template::Template,
    trust::Trust,
    wrong::{Wrong, bounded, wrong},
};

/// Istio's bound for an entry of `serviceAccounts`.
const MAX_ACCOUNT_CHARS: usize = 320;

/// What a value is read for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    /// The policy's namespace.
    pub(super) namespace: &'a str,
    /// The names of the mesh's trust domain; `None` where a policy is only validated.
    pub(super) trust: Option<Trust<'a>>,
}

/// The matchers of a value; more than one where it has several meanings.
pub(super) fn parse(attribute: &Attribute, text: &str, context: Context<'_>) -> Result<Vec<Matcher>, Wrong> {
    if text.is_empty() {
        return Err(wrong("the value is empty".to_owned(), "remove it; for \"present\" write \"*\""));
    }
    let one = |matcher| Ok(vec![matcher]);
    match attribute {
        // The scheme is put before each value, so that one with a scheme never matches.
        Attribute::Principal if has_scheme(text) => one(Matcher::Never),
        Attribute::Principal => Ok(texts(match context.trust {
            Some(trust) => trust.principals(text),
            None => vec![Pattern::parse(text)],
        })),
        Attribute::TrustDomain => {
            check_trust_domain(text)?;
            Ok(texts(match context.trust {
                Some(trust) => trust.domains(text),
                None => vec![Pattern::parse(text)],
            }))
        }
        Attribute::Namespace => one(Matcher::Glob(Glob::parse(text))),
        Attribute::ServiceAccount => one(account(text, context.namespace)?),
        Attribute::SourceIp | Attribute::RemoteIp | Attribute::DestinationIp => one(Matcher::Net(net(text)?)),
        Attribute::DestinationPort => one(Matcher::Port(port(text)?)),
        Attribute::RequestPrincipal => one(token_principal(text)),
        Attribute::Host => one(Matcher::Text(Pattern::parse(&host(text)))),
        Attribute::Path if Template::is_one(text) => path_template(text),
        Attribute::Path | Attribute::PathAndQuery => {
            Ok(spellings(text).iter().map(|text| Matcher::Text(Pattern::parse(text))).collect())
        }
        Attribute::Method | Attribute::Header(_) | Attribute::Sni | Attribute::Claim(_) => {
            one(Matcher::Text(Pattern::parse(text)))
        }
    }
}

/// Is it written with a scheme, so that it matches nobody?
pub(super) fn has_scheme(principal: &str) -> bool {
    principal.starts_with("spiffe://")
}

/// Can no normalized path look like this? It has a query, a fragment, or bytes that are always escaped.
pub(super) fn is_unreachable_path(text: &str) -> bool {
    text.bytes().any(|byte| b"?#\\ ".contains(&byte) || byte.is_ascii_control())
}

fn texts(patterns: Vec<Pattern>) -> Vec<Matcher> {
    patterns.into_iter().map(Matcher::Text).collect()
}

fn path_template(text: &str) -> Result<Vec<Matcher>, Wrong> {
    match Template::parse(text) {
        Ok(template) => Ok(vec![Matcher::Template(template)]),
        Err(rule) => Err(wrong(format!("{:?} is no path template", bounded(text)), rule)),
    }
}

// A path as written and, where it holds bytes outside of ASCII, as normalization spells it. Else a DENY of such a path
// would let it pass.
fn spellings(text: &str) -> Vec<String> {
    if text.is_ascii() {
        return vec![text.to_owned()];
    }
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii() {
            escaped.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    vec![text.to_owned(), escaped]
}

// Hosts are compared without case, and without the dot that ends an absolute name.
fn host(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    if let Some(absolute) = lower.strip_suffix('.').filter(|rest| !rest.is_empty() && *rest != "*") {
        return absolute.to_owned();
    }
    match lower.rsplit_once(".:") {
        Some((name, port)) if !name.is_empty() => format!("{name}:{port}"),
        _ => lower,
    }
}

// Issuer and subject, parted by the last slash. Without one, a star says which of them is meant (`*x`: the subject, `x*`:
// the issuer), and a text without a star names nobody.
fn token_principal(text: &str) -> Matcher {
    let (issuer, subject) = match text.rsplit_once('/') {
        Some((issuer, subject)) => (Pattern::parse(issuer), Pattern::parse(subject)),
        None if text.starts_with('*') => (Pattern::Present, Pattern::parse(text)),
        None if text.ends_with('*') => (Pattern::parse(text), Pattern::Present),
        None => return Matcher::Never,
    };
    Matcher::Token { issuer, subject }
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

fn check_trust_domain(text: &str) -> Result<(), Wrong> {
    let inner = text.strip_prefix('*').or_else(|| text.strip_suffix('*')).unwrap_or(text);
    if inner.contains(['*', '/']) {
        let what = format!("{:?} is no trust domain", bounded(text));
        return Err(wrong(what, "write a name, with a star first or last at most"));
    }
    Ok(())
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
