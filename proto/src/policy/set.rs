//! Policies as they travel, and the compiled set of those that select one workload.

use super::{
    clause::Effect,
    compile::compile,
    flaw::PolicyFlaw,
    rule::{Compiled, Rule},
    value::{self, Context},
};
use crate::{authentication::Authentication, features, id::TrustDomain, wire};

/// More policies that select one workload are refused.
const MAX_POLICIES: usize = 4096;

/// The names of the mesh's own trust domain. Policies that name one of them mean all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trust<'a> {
    /// Its name now.
    pub local: &'a TrustDomain,
    /// Its other names.
    pub aliases: &'a [TrustDomain],
}

/// An authorization policy as written. One that exists is valid.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy(wire::Policy);

/// All policies that select one workload, compiled. An empty one allows everything.
#[derive(Debug, Clone, Default)]
pub struct PolicySet {
    pub(super) deny: Vec<Compiled>,
    pub(super) allow: Vec<Compiled>,
    authentication: Authentication,
    complaints: Vec<String>,
}

/// Why the policies of the wire cannot be understood at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// More than a workload can have.
    #[error("{0} policies for one workload are too many")]
    TooMany(usize),
}

impl Policy {
    /// Takes a policy as written, if it is valid and all of it is implemented.
    ///
    /// # Errors
    /// Its first flaw.
    pub fn from_wire(policy: wire::Policy) -> Result<Self, PolicyFlaw> {
        let Ok(action) = wire::Action::try_from(policy.action) else {
            return Err(PolicyFlaw {
                path: vec![super::flaw::Step::Field("action")],
                what: format!("there is no action {}", policy.action),
                mend: "ALLOW and DENY are known".to_owned(),
                unsupported: true,
            });
        };
        let context = Context { namespace: &policy.namespace, local: None };
        match compile(&policy, effect(action), context).1.into_iter().next() {
            Some(flaw) => Err(flaw),
            None => Ok(Self(wire::Policy { requires: vec![features::POLICY_V1.to_owned()], ..policy })),
        }
    }

    /// A policy that denies everything: what stands in for one that cannot be read.
    #[must_use]
    pub fn deny_everything(namespace: &str, name: &str) -> Self {
        Self(wire::Policy {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            action: wire::Action::Deny.into(),
            rules: vec![wire::Rule::default()],
            requires: vec![features::POLICY_V1.to_owned()],
            ..wire::Policy::default()
        })
    }

    /// The message that carries it, with the features that it requires.
    #[must_use]
    pub fn to_wire(&self) -> wire::Policy {
        self.0.clone()
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What it does that its author may not expect, one line each.
    #[must_use]
    pub fn warnings(&self, trust: Trust<'_>) -> Vec<String> {
        warnings(&self.0, trust.local)
    }
}

impl PolicySet {
    /// Compiles what the control plane sent. A rule that cannot be compiled, and each rule of a policy that requires an
    /// unknown feature, is void in an ALLOW policy and denies everything in a DENY policy; so does a policy of an unknown
    /// action. `complaints` then says so.
    ///
    /// # Errors
    /// [`PolicyError`] when there are too many.
    pub fn from_wire(set: wire::PolicySet, trust: Trust<'_>) -> Result<Self, PolicyError> {
        if set.policies.len() > MAX_POLICIES {
            return Err(PolicyError::TooMany(set.policies.len()));
        }
        let authentication = Authentication::from_wire(&set.authentications);
        let complaints = authentication.complaints().to_vec();
        let mut compiled = Self { authentication, complaints, ..Self::default() };
        set.policies.into_iter().for_each(|policy| compiled.add(&policy, trust.local));
        Ok(compiled)
    }

    /// Compiles valid policies, as a sidecar of the trust domain does with what it receives.
    #[must_use]
    pub fn compile<'a>(policies: impl IntoIterator<Item = &'a Policy>, trust: Trust<'_>) -> Self {
        let mut compiled = Self::default();
        for policy in policies {
            compiled.add(&policy.0, trust.local);
        }
        compiled
    }

    /// `namespace/name` of each DENY policy, in the order in which they are asked.
    pub fn denying(&self) -> impl Iterator<Item = &str> {
        self.deny.iter().map(|policy| &*policy.key)
    }

    /// `namespace/name` of each ALLOW policy, in the order in which they are asked.
    pub fn allowing(&self) -> impl Iterator<Item = &str> {
        self.allow.iter().map(|policy| &*policy.key)
    }

    /// The token rules of the workload.
    #[must_use]
    pub fn authentication(&self) -> &Authentication {
        &self.authentication
    }

    /// What could not be applied as written, one line each, for the operator.
    #[must_use]
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// Must the receiver see HTTP to decide on this port? It must where every rule that could allow something there
    /// looks at the request: then no opaque stream can ever pass.
    #[must_use]
    pub fn needs_http(&self, port: u16) -> bool {
        let rules = self.allow.iter().flat_map(|policy| &policy.rules);
        let mut possible = rules.filter(|rule| rule.may_allow_on(port)).peekable();
        possible.peek().is_some() && possible.all(|rule| rule.needs_http)
    }

    fn add(&mut self, policy: &wire::Policy, local: &TrustDomain) {
        let key = format!("{}/{}", policy.namespace, policy.name);
        let unknown = policy.requires.iter().find(|feature| !features::ALL.contains(&feature.as_str()));
        // A later version's action: nobody knows what it forbids.
        let (effect, unknown) = match wire::Action::try_from(policy.action) {
            Ok(action) => (effect(action), unknown.map(|feature| format!("feature {feature:?}"))),
            Err(_) => (Effect::Deny, Some(format!("action {}", policy.action))),
        };
        let (mut compiled, flaws) =
            compile(policy, effect, Context { namespace: &policy.namespace, local: Some(local) });
        for flaw in flaws {
            self.complaints.push(format!("policy {key}: {flaw}"));
        }
        if let Some(unknown) = unknown {
            let what = format!("this sidecar does not know its {unknown}");
            self.complaints.push(format!("policy {key}: {what}; update the sidecar"));
            match effect {
                Effect::Allow => {
                    compiled
                        .rules
                        .iter_mut()
                        .for_each(|rule| rule.doubt = Some(format!("it is void, since {what}")));
                }
                Effect::Deny => {
                    let doubt = format!("it denies everything, since {what}");
                    compiled.rules = vec![Rule::of_everything(&format!("{key} rule 1"), doubt)];
                }
            }
        }
        match effect {
            Effect::Allow => self.allow.push(compiled),
            Effect::Deny => self.deny.push(compiled),
        }
        self.complaints.extend(warnings(policy, local));
    }
}

fn effect(action: wire::Action) -> Effect {
    match action {
        wire::Action::Allow => Effect::Allow,
        wire::Action::Deny | wire::Action::Custom | wire::Action::Audit => Effect::Deny,
    }
}

fn warnings(policy: &wire::Policy, local: &TrustDomain) -> Vec<String> {
    let key = format!("{}/{}", policy.namespace, policy.name);
    let sources = policy.rules.iter().flat_map(|rule| &rule.from);
    let unexpanded = sources
        .flat_map(|source| source.principals.iter().chain(&source.not_principals))
        .filter(|text| value::is_unexpanded(text, local))
        .map(|text| {
            let text = value::bounded(text);
            format!("policy {key}: {text:?} is matched as written, the trust domain is {local}")
        });
    let operations = policy.rules.iter().flat_map(|rule| &rule.to);
    let unreachable = operations
        .flat_map(|operation| operation.paths.iter().chain(&operation.not_paths))
        .filter(|path| value::is_unreachable_path(path))
        .map(|path| {
            let path = value::bounded(path);
            format!("policy {key}: the path {path:?} never matches: paths are compared in normal form, without query")
        });
    unexpanded.chain(unreachable).collect()
}
