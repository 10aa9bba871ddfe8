//! The compiled set of all policies that select one workload.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    book::Book,
    compile::{compile, effect},
    matcher::Effect,
    provider::{Provider, ProviderProtocol},
    rule::Compiled,
    trust::Trust,
    value::Context,
    warn::warnings,
    written::Policy,
};
use crate::{authentication::Authentication, features, wire};

/// More policies that select one workload are refused.
const MAX_POLICIES: usize = 4096;

/// All policies that select one workload, compiled. An empty one allows everything.
#[derive(Debug, Clone)]
pub struct PolicySet {
    /// By the name of the provider.
    pub(super) custom: BTreeMap<String, Custom>,
    pub(super) deny: Book,
    pub(super) allow: Book,
    pub(super) audit: Book,
    /// Decided for the record only.
    pub(super) dry_deny: Book,
    /// Decided for the record only.
    pub(super) dry_allow: Book,
    authentication: Authentication,
    complaints: Vec<String>,
}

/// The CUSTOM policies of one provider.
#[derive(Debug, Clone)]
pub(super) struct Custom {
    /// `None` when the mesh defines none of that name.
    pub(super) provider: Option<Arc<Provider>>,
    pub(super) book: Book,
}

impl Custom {
    /// Can its authorizer judge nothing but HTTP?
    pub(super) fn is_http(&self) -> bool {
        self.provider.as_ref().is_some_and(|provider| matches!(provider.protocol, ProviderProtocol::Http(_)))
    }

    fn shows_http_alone(&self, port: u16) -> bool {
        self.is_http() && self.book.rules.iter().any(|rule| rule.may_hold_on(port))
    }
}

/// Why the policies of the wire cannot be understood at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// More than a workload can have.
    #[error("{0} policies for one workload are too many")]
    TooMany(usize),
}

impl Default for PolicySet {
    fn default() -> Self {
        Self {
            custom: BTreeMap::new(),
            deny: Book::new(Effect::Deny),
            allow: Book::new(Effect::Allow),
            audit: Book::new(Effect::Deny),
            dry_deny: Book::new(Effect::Deny),
            dry_allow: Book::new(Effect::Allow),
            authentication: Authentication::default(),
            complaints: Vec::new(),
        }
    }
}

impl PolicySet {
    /// Compiles what the control plane sent. What of a rule cannot be compiled makes it void in an ALLOW policy, and is
    /// dropped from it in any other; a policy that cannot be understood as a whole, or requires an unknown feature, allows
    /// nothing, or denies everything. `complaints` then says so.
    ///
    /// # Errors
    /// [`PolicyError`] when there are too many.
    pub fn from_wire(set: wire::PolicySet, trust: Trust<'_>) -> Result<Self, PolicyError> {
        if set.policies.len() > MAX_POLICIES {
            return Err(PolicyError::TooMany(set.policies.len()));
        }
        let authentication = Authentication::from_wire(&set.authentications);
        let complaints = authentication.complaints().to_vec();
        let providers: Vec<_> =
            set.providers.into_iter().filter_map(Provider::from_wire).map(Arc::new).collect();
        let mut compiled = Self { authentication, complaints, ..Self::default() };
        set.policies.iter().for_each(|policy| compiled.add(policy, &providers, trust));
        compiled.close();
        Ok(compiled)
    }

    /// Compiles policies without providers and token rules, as a sidecar of the trust domain does with what it receives.
    #[must_use]
    pub fn compile<'a>(policies: impl IntoIterator<Item = &'a Policy>, trust: Trust<'_>) -> Self {
        let mut compiled = Self::default();
        for policy in policies {
            compiled.add(policy.message(), &[], trust);
        }
        compiled.close();
        compiled
    }

    /// `namespace/name` of each DENY policy, in the order in which they are asked.
    pub fn denying(&self) -> impl Iterator<Item = &str> {
        self.deny.policies.iter().map(|key| &**key)
    }

    /// `namespace/name` of each ALLOW policy, in the order in which they are asked.
    pub fn allowing(&self) -> impl Iterator<Item = &str> {
        self.allow.policies.iter().map(|key| &**key)
    }

    /// The authorizer that CUSTOM policies call so, where the mesh defines it.
    #[must_use]
    pub fn provider(&self, name: &str) -> Option<&Arc<Provider>> {
        self.custom.get(name)?.provider.as_ref()
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
    /// looks at the request: then no opaque stream can ever pass. And where an authorizer would be asked that can be
    /// shown nothing but HTTP: else whoever sends odd bytes would choose not to be judged by it.
    #[must_use]
    pub fn needs_http(&self, port: u16) -> bool {
        let rules = self.allow.rules.iter().filter(|rule| !rule.is_void());
        let mut possible = rules.filter(|rule| rule.may_hold_on(port)).peekable();
        let allows_http_alone = possible.peek().is_some() && possible.all(|rule| rule.needs_http);
        allows_http_alone || self.custom.values().any(|custom| custom.shows_http_alone(port))
    }

    /// The rules of every kind with what they do, in the order in which they are asked; those of dry runs last.
    pub(super) fn books(&self) -> impl Iterator<Item = (wire::Action, bool, &Book)> {
        let custom = self.custom.values().map(|custom| (wire::Action::Custom, false, &custom.book));
        custom.chain([
            (wire::Action::Deny, false, &self.deny),
            (wire::Action::Allow, false, &self.allow),
            (wire::Action::Audit, false, &self.audit),
            (wire::Action::Deny, true, &self.dry_deny),
            (wire::Action::Allow, true, &self.dry_allow),
        ])
    }

    fn add(&mut self, policy: &wire::Policy, providers: &[Arc<Provider>], trust: Trust<'_>) {
        let context = Context { namespace: &policy.namespace, trust: Some(trust) };
        let action = known_action(policy);
        // What an action of a later version forbids nobody knows: it is one that denies.
        let compilation = compile(policy, action.unwrap_or(wire::Action::Deny), context);
        let key = Arc::clone(&compilation.compiled.key);
        for problem in &compilation.problems {
            self.complaints.push(format!("policy {key}: {}", problem.flaw()));
        }
        let unknown = unknown_part(policy);
        // Parts that cannot be read were told with the other flaws.
        if let Some(what) = unknown.as_ref().filter(|_| policy.unreadable.is_empty()) {
            self.complaints.push(format!("policy {key}: {what}"));
        }
        let compiled = match (unknown, action.map(effect)) {
            (None, _) => compilation.compiled,
            (Some(what), Some(Effect::Allow)) => compilation.compiled.void(&what),
            (Some(what), _) => Compiled::of_everything(&key, &what),
        };
        self.complaints.extend(warnings(policy, trust));
        self.place(policy, compiled, providers);
    }

    fn close(&mut self) {
        let books =
            [&mut self.deny, &mut self.allow, &mut self.audit, &mut self.dry_deny, &mut self.dry_allow];
        books
            .into_iter()
            .chain(self.custom.values_mut().map(|custom| &mut custom.book))
            .for_each(Book::close);
    }

    fn place(&mut self, policy: &wire::Policy, compiled: Compiled, providers: &[Arc<Provider>]) {
        let book = match (known_action(policy), policy.dry_run) {
            (Some(wire::Action::Allow), false) => &mut self.allow,
            (Some(wire::Action::Allow), true) => &mut self.dry_allow,
            (Some(wire::Action::Deny), true) => &mut self.dry_deny,
            (Some(wire::Action::Audit), _) => &mut self.audit,
            (Some(wire::Action::Custom), _) if unknown_part(policy).is_none() => {
                &mut self.authorizer(&policy.provider, providers).book
            }
            // Whom a CUSTOM policy in doubt would ask, and for what, is not known either.
            _ => &mut self.deny,
        };
        book.add(compiled);
    }

    fn authorizer(&mut self, name: &str, providers: &[Arc<Provider>]) -> &mut Custom {
        self.custom.entry(name.to_owned()).or_insert_with(|| {
            let provider = providers.iter().find(|provider| provider.name == name).cloned();
            if provider.is_none() {
                let line =
                    format!("the mesh defines no extension provider {name:?}: what would ask it is denied");
                self.complaints.push(line);
            }
            Custom { provider, book: Book::new(Effect::Deny) }
        })
    }
}

// What of the policy as a whole is unknown, so that nothing of it can be trusted to mean what it says.
fn unknown_part(policy: &wire::Policy) -> Option<String> {
    let feature = policy.requires.iter().find(|feature| !features::ALL.contains(&feature.as_str()));
    if let Some(feature) = feature {
        return Some(format!("this sidecar does not know its feature {feature:?}; update the sidecar"));
    }
    if wire::Action::try_from(policy.action).is_err() {
        return Some(format!("this sidecar does not know its action {}; update the sidecar", policy.action));
    }
    policy.unreadable.first().map(|part| format!("its part {part:?} cannot be read"))
}

// `None` for one of a later version, and for one that could not be read where the policy was written.
fn known_action(policy: &wire::Policy) -> Option<wire::Action> {
    let is_action =
        |part: &String| part.split(|c: char| !c.is_ascii_alphabetic()).any(|word| word == "action");
    let is_unread = policy.unreadable.iter().any(is_action);
    wire::Action::try_from(policy.action).ok().filter(|_| !is_unread)
}
