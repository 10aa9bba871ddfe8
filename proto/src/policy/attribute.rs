//! What a field of a rule can look at, and the keys by which a condition names it.
//!
//! Knows not how it is compared (see `clause`).

use http::HeaderName;

use super::wrong::{Wrong, bounded, wrong};

/// What a field looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attribute {
    Principal,
    Namespace,
    ServiceAccount,
    TrustDomain,
    SourceIp,
    RemoteIp,
    DestinationIp,
    DestinationPort,
    Sni,
    Host,
    Method,
    /// The normalized path.
    Path,
    /// The normalized path and the query: `:path`.
    PathAndQuery,
    Header(HeaderName),
    /// Issuer and subject of the token that verified.
    RequestPrincipal,
    /// A claim of the token that verified, by the names that lead to it.
    Claim(Box<[String]>),
}

/// What the key of a condition names.
#[derive(Debug)]
pub(super) enum Key {
    Known(Attribute),
    /// Metadata of Envoy's filters, of which there are none here.
    Foreign,
}

impl Attribute {
    /// Can only a parsed request show it?
    pub(super) fn is_http(&self) -> bool {
        match self {
            Self::Host
            | Self::Method
            | Self::Path
            | Self::PathAndQuery
            | Self::Header(_)
            | Self::RequestPrincipal
            | Self::Claim(_) => true,
            Self::Principal
            | Self::Namespace
            | Self::ServiceAccount
            | Self::TrustDomain
            | Self::SourceIp
            | Self::RemoteIp
            | Self::DestinationIp
            | Self::DestinationPort
            | Self::Sni => false,
        }
    }

    /// Is it an identity, which a CUSTOM policy must not look at?
    pub(super) fn is_identity(&self) -> bool {
        matches!(
            self,
            Self::Principal
                | Self::Namespace
                | Self::ServiceAccount
                | Self::TrustDomain
                | Self::RequestPrincipal
        )
    }

    /// Did the first version know it?
    pub(super) fn is_of_first_version(&self) -> bool {
        !matches!(self, Self::RemoteIp | Self::PathAndQuery | Self::RequestPrincipal | Self::Claim(_))
    }
}

const KEYS: &str = "write source.ip, source.namespace, source.principal, source.serviceAccount, source.trustDomain, \
                    remote.ip, request.headers[name], request.auth.principal, request.auth.audiences, \
                    request.auth.presenter, request.auth.claims[name], destination.ip, destination.port or \
                    connection.sni";

/// The key of a condition: what it looks at.
pub(super) fn parse_key(key: &str) -> Result<Key, Wrong> {
    let attribute = match key {
        "source.ip" => Attribute::SourceIp,
        "remote.ip" => Attribute::RemoteIp,
        "source.namespace" => Attribute::Namespace,
        "source.principal" => Attribute::Principal,
        "source.serviceAccount" => Attribute::ServiceAccount,
        "source.trustDomain" => Attribute::TrustDomain,
        "destination.ip" => Attribute::DestinationIp,
        "destination.port" => Attribute::DestinationPort,
        "connection.sni" => Attribute::Sni,
        "request.auth.principal" => Attribute::RequestPrincipal,
        "request.auth.audiences" => claim("aud"),
        "request.auth.presenter" => claim("azp"),
        _ => return parse_map_key(key),
    };
    Ok(Key::Known(attribute))
}

fn parse_map_key(key: &str) -> Result<Key, Wrong> {
    let unknown = || wrong(format!("there is no key {:?}", bounded(key)), KEYS);
    let (map, names) = key.find('[').map(|at| key.split_at(at)).ok_or_else(unknown)?;
    let names = in_brackets(names);
    match (map, names.as_deref()) {
        ("request.headers", Some([name])) => header(name).map(Key::Known),
        ("request.auth.claims", Some(names)) => {
            Ok(Key::Known(Attribute::Claim(names.iter().map(|name| (*name).to_owned()).collect())))
        }
        (map, Some(_)) if map.starts_with("experimental.") => Ok(Key::Foreign),
        ("request.headers" | "request.auth.claims", _) => Err(wrong(
            format!("{:?} names no entry of {map}", bounded(key)),
            "write request.headers[name], request.auth.claims[name] or request.auth.claims[outer][inner]",
        )),
        _ => Err(unknown()),
    }
}

fn claim(name: &str) -> Attribute {
    Attribute::Claim([name.to_owned()].into())
}

// `[a][b]`: the names, of which there is at least one.
fn in_brackets(text: &str) -> Option<Vec<&str>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let names: Vec<&str> = inner.split("][").collect();
    names.iter().all(|name| !name.is_empty() && !name.contains(['[', ']'])).then_some(names)
}

fn header(name: &str) -> Result<Attribute, Wrong> {
    // Header names have no case; `HeaderName` wants the lower one.
    match name.to_ascii_lowercase().as_str() {
        ":authority" | "host" => Ok(Attribute::Host),
        ":method" => Ok(Attribute::Method),
        ":path" => Ok(Attribute::PathAndQuery),
        name => HeaderName::from_bytes(name.as_bytes()).map(Attribute::Header).map_err(|_| {
            wrong(
                format!("{:?} is no header name", bounded(name)),
                "write a header's name, :authority, :method or :path",
            )
        }),
    }
}
