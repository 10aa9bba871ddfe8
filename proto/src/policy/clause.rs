//! One field of a rule: an attribute of the request, what it must be, and what it must not be.

use std::net::IpAddr;

use http::{HeaderName, Method, header::HOST};
use ipnet::IpNet;

use super::{
    pattern::{Case, Glob, Pattern},
    template::Template,
};
use crate::{
    facts::{Facts, RequestFacts},
    id::WorkloadId,
};

/// What a field looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attribute {
    Principal,
    Namespace,
    ServiceAccount,
    TrustDomain,
    SourceIp,
    DestinationIp,
    DestinationPort,
    Host,
    Method,
    Path,
    Header(HeaderName),
    Sni,
}

/// What one value of a field matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Matcher {
    Text(Pattern),
    Glob(Glob),
    Account { namespace: Box<str>, name: Box<str> },
    Net(IpNet),
    Port(u16),
    Template(Template),
}

/// A field: one of `any_of` must match where there are some, none of `none_of` may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clause {
    pub(super) attribute: Attribute,
    pub(super) any_of: Values,
    pub(super) none_of: Values,
}

/// The values of a field, and as they were written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Values {
    pub(super) matchers: Vec<Matcher>,
    pub(super) words: Vec<String>,
}

/// Which way is the safe one when a field can be read in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// The field must hold in every reading.
    Allow,
    /// The field holds if it does in any reading.
    Deny,
}

impl Attribute {
    /// Can only a parsed request show it?
    pub(super) fn is_http(&self) -> bool {
        matches!(self, Self::Host | Self::Method | Self::Path | Self::Header(_))
    }
}

impl Values {
    pub(super) fn is_empty(&self) -> bool {
        self.matchers.is_empty()
    }

    fn any(&self, matches: impl Fn(&Matcher) -> bool) -> bool {
        self.matchers.iter().any(matches)
    }
}

impl Clause {
    /// Does the field hold? Without a request, an HTTP field holds for a DENY rule (it is dropped) and not for an ALLOW rule.
    pub(super) fn holds(&self, facts: &Facts, effect: Effect) -> bool {
        if !self.attribute.is_http() {
            return self.holds_by(|matcher| matches_connection(&self.attribute, matcher, facts));
        }
        let Some(request) = &facts.request else { return effect == Effect::Deny };
        match &self.attribute {
            // A CONNECT has no path: no rule on paths may let it pass, any may stop it.
            Attribute::Path if request.method == Method::CONNECT && request.target.path.is_empty() => {
                effect == Effect::Deny
            }
            Attribute::Header(name) if *name != HOST => self.holds_for_header(name, request, effect),
            attribute => self.holds_by(|matcher| matches_request(attribute, matcher, request)),
        }
    }

    /// Can the field hold on this port? Fields that do not look at the port can.
    pub(super) fn may_hold_on(&self, port: u16) -> bool {
        self.attribute != Attribute::DestinationPort
            || self.holds_by(|matcher| matches!(matcher, Matcher::Port(own) if *own == port))
    }

    fn holds_by(&self, matches: impl Fn(&Matcher) -> bool) -> bool {
        (self.any_of.is_empty() || self.any_of.any(&matches)) && !self.none_of.any(&matches)
    }

    // A repeated header can be read value by value, or joined by commas; applications do either.
    fn holds_for_header(&self, name: &HeaderName, request: &RequestFacts, effect: Effect) -> bool {
        let all = || request.headers.get_all(name).iter();
        let one = |values: &Values, value: &[u8]| {
            values.any(|matcher| matches_text(matcher, |pattern| pattern.matches(value, Case::Sensitive)))
        };
        let joined = |values: &Values| {
            values.any(|matcher| {
                matches_text(matcher, |pattern| {
                    let comma = |value| {
                        std::iter::once(b',').chain(http::HeaderValue::as_bytes(value).iter().copied())
                    };
                    let mut text = all().flat_map(comma);
                    text.next();
                    pattern.matches_pieces(text, Case::Sensitive)
                })
            })
        };
        let present = all().next().is_some();
        match effect {
            Effect::Allow => {
                (self.any_of.is_empty() || present && all().all(|value| one(&self.any_of, value.as_bytes())))
                    && !all().any(|value| one(&self.none_of, value.as_bytes()))
                    && !(present && joined(&self.none_of))
            }
            Effect::Deny => {
                let wanted = || {
                    all().any(|value| one(&self.any_of, value.as_bytes())) || present && joined(&self.any_of)
                };
                let unwanted_missing = || {
                    !present
                        || all().any(|value| !one(&self.none_of, value.as_bytes()))
                        || !joined(&self.none_of)
                };
                (self.any_of.is_empty() || wanted()) && (self.none_of.is_empty() || unwanted_missing())
            }
        }
    }
}

fn matches_connection(attribute: &Attribute, matcher: &Matcher, facts: &Facts) -> bool {
    let address =
        |address: IpAddr| matches!(matcher, Matcher::Net(net) if net.contains(&address.to_canonical()));
    match attribute {
        Attribute::SourceIp => address(facts.source),
        Attribute::DestinationIp => address(facts.destination.ip()),
        Attribute::DestinationPort => {
            matches!(matcher, Matcher::Port(port) if *port == facts.destination.port())
        }
        Attribute::Sni => facts.sni.as_ref().is_some_and(|name| {
            matches_text(matcher, |pattern| pattern.matches(name.as_bytes(), Case::Sensitive))
        }),
        _ => facts.peer.as_ref().is_some_and(|peer| matches_peer(attribute, matcher, peer)),
    }
}

fn matches_peer(attribute: &Attribute, matcher: &Matcher, peer: &WorkloadId) -> bool {
    match (attribute, matcher) {
        (Attribute::Principal, Matcher::Text(pattern)) => {
            let (domain, namespace, account) =
                (peer.trust_domain().as_str(), peer.namespace(), peer.service_account());
            let pieces = [domain, "/ns/", namespace, "/sa/", account];
            pattern.matches_pieces(pieces.into_iter().flat_map(str::bytes), Case::Sensitive)
        }
        (Attribute::Namespace, Matcher::Glob(glob)) => glob.matches(peer.namespace()),
        (Attribute::ServiceAccount, Matcher::Account { namespace, name }) => {
            **namespace == *peer.namespace() && **name == *peer.service_account()
        }
        (Attribute::TrustDomain, Matcher::Text(pattern)) => {
            pattern.matches(peer.trust_domain().as_str().as_bytes(), Case::Sensitive)
        }
        _ => false,
    }
}

fn matches_request(attribute: &Attribute, matcher: &Matcher, request: &RequestFacts) -> bool {
    let target = &request.target;
    match (attribute, matcher) {
        (Attribute::Host | Attribute::Header(_), Matcher::Text(pattern)) => {
            pattern.matches(target.authority.as_bytes(), Case::Insensitive)
        }
        (Attribute::Method, Matcher::Text(pattern)) => {
            pattern.matches(request.method.as_str().as_bytes(), Case::Sensitive)
        }
        (Attribute::Path, Matcher::Text(pattern)) => pattern.matches(target.path.as_bytes(), Case::Sensitive),
        (Attribute::Path, Matcher::Template(template)) => template.matches(&target.path),
        _ => false,
    }
}

fn matches_text(matcher: &Matcher, matches: impl FnOnce(&Pattern) -> bool) -> bool {
    match matcher {
        Matcher::Text(pattern) => matches(pattern),
        _ => false,
    }
}
