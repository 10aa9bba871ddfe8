//! One field of a rule: an attribute of the request, what it must be, and what it must not be.

use std::net::IpAddr;

use http::Method;

use super::{
    attribute::Attribute,
    matcher::{Effect, Matcher, Values},
    pattern::Case,
    repeated, token,
};
use crate::{
    facts::{Facts, RequestFacts},
    id::WorkloadId,
};

/// A field: one of `any_of` must match where there are some, none of `none_of` may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clause {
    pub(super) attribute: Attribute,
    pub(super) any_of: Values,
    pub(super) none_of: Values,
}

impl Clause {
    /// Would the field hold if nothing were excluded?
    pub(super) fn holds_positively(&self, facts: &Facts, effect: Effect) -> bool {
        self.holds_but_for(&Values::default(), facts, effect)
    }

    /// Does the field hold? Without a request, an HTTP field holds for a DENY rule (it is dropped) and not for an ALLOW rule.
    pub(super) fn holds(&self, facts: &Facts, effect: Effect) -> bool {
        self.holds_but_for(&self.none_of, facts, effect)
    }

    /// Can the field hold on this port? Fields that do not look at the port can.
    pub(super) fn may_hold_on(&self, port: u16) -> bool {
        self.attribute != Attribute::DestinationPort
            || self.holds_by(&self.none_of, |matcher| matches!(matcher, Matcher::Port(own) if *own == port))
    }

    // The field with these values excluded.
    fn holds_but_for(&self, none_of: &Values, facts: &Facts, effect: Effect) -> bool {
        if !self.attribute.is_http() {
            return self.holds_by(none_of, |matcher| matches_connection(&self.attribute, matcher, facts));
        }
        let Some(request) = &facts.request else { return effect == Effect::Deny };
        match &self.attribute {
            // A CONNECT has no path: no rule on paths may let it pass, any may stop it.
            Attribute::Path | Attribute::PathAndQuery if has_no_path(request) => effect == Effect::Deny,
            Attribute::Header(name) => repeated::holds(name, &request.headers, &self.any_of, none_of, effect),
            attribute => self.holds_by(none_of, |matcher| matches_request(attribute, matcher, request)),
        }
    }

    fn holds_by(&self, none_of: &Values, matches: impl Fn(&Matcher) -> bool) -> bool {
        (self.any_of.is_empty() || self.any_of.any(&matches)) && !none_of.any(&matches)
    }
}

/// Is it a CONNECT, which names only a host?
pub(super) fn has_no_path(request: &RequestFacts) -> bool {
    request.method == Method::CONNECT && request.target.path.is_empty()
}

fn matches_connection(attribute: &Attribute, matcher: &Matcher, facts: &Facts) -> bool {
    let address =
        |address: IpAddr| matches!(matcher, Matcher::Net(net) if net.contains(&address.to_canonical()));
    match attribute {
        Attribute::SourceIp => address(facts.source),
        Attribute::RemoteIp => address(facts.remote),
        Attribute::DestinationIp => address(facts.destination.ip()),
        Attribute::DestinationPort => {
            matches!(matcher, Matcher::Port(port) if *port == facts.destination.port())
        }
        Attribute::Sni => facts.sni.as_ref().is_some_and(|name| match matcher {
            Matcher::Text(pattern) => pattern.matches(name.as_bytes(), Case::Sensitive),
            _ => false,
        }),
        _ => facts.peer.as_ref().is_some_and(|peer| matches_peer(attribute, matcher, peer)),
    }
}

fn matches_peer(attribute: &Attribute, matcher: &Matcher, peer: &WorkloadId) -> bool {
    match (attribute, matcher) {
        (Attribute::Principal, Matcher::Text(pattern)) => {
            let (domain, namespace, account) =
                (peer.trust_domain().as_str(), peer.namespace(), peer.service_account());
            pattern.matches_parts(&[domain, "/ns/", namespace, "/sa/", account])
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
        (Attribute::Host, Matcher::Text(pattern)) => {
            pattern.matches(target.authority.as_bytes(), Case::Insensitive)
        }
        (Attribute::Method, Matcher::Text(pattern)) => {
            pattern.matches(request.method.as_str().as_bytes(), Case::Sensitive)
        }
        (Attribute::Path, Matcher::Text(pattern)) => pattern.matches_path(&target.path),
        (Attribute::Path, Matcher::Template(template)) => template.matches(&target.path),
        (Attribute::PathAndQuery, Matcher::Text(pattern)) => {
            let query = target.query.as_deref();
            let (mark, query) = query.map_or(("", ""), |query| ("?", query));
            pattern.matches_parts(&[&target.path, mark, query])
        }
        (Attribute::RequestPrincipal, Matcher::Token { issuer, subject }) => {
            let principal = request.token.as_ref().and_then(token::principal);
            principal.is_some_and(|(own_issuer, own_subject)| {
                issuer.matches(own_issuer.as_bytes(), Case::Sensitive)
                    && subject.matches(own_subject.as_bytes(), Case::Sensitive)
            })
        }
        (Attribute::Claim(names), Matcher::Text(pattern)) => {
            request.token.as_ref().is_some_and(|token| token::claim_matches(token, names, pattern))
        }
        _ => false,
    }
}
