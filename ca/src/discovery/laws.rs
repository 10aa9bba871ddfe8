//! All laws of a mesh, by namespace, and what of them governs one workload: so that a thousand workloads under a thousand
//! laws cost little more than the laws that select them.
//!
//! Pure. Knows not what a law means ([`douane_proto::law`] says who is governed), nor where one comes from (`folder`).

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use douane_proto::{
    law::{self, LawSettings},
    mtls::MtlsModes,
    policy::{Policy, Scope, Trust},
    resource::{Doubt, DoubtedLaw, Kind, Resource},
    wire,
};

/// All laws of a mesh.
pub(crate) struct Laws<'a> {
    settings: &'a LawSettings,
    by_namespace: BTreeMap<&'a str, Vec<&'a Resource>>,
    /// Of laws in doubt: who is denied everything, and who takes no connection without a certificate.
    denied: Vec<(Scope, wire::Policy)>,
    strict: Vec<Scope>,
    /// Labels that some law selects by; workloads that differ in others only are governed alike.
    labels: BTreeSet<&'a str>,
    governed: RefCell<HashMap<Alike, Lawful>>,
    warnings: RefCell<BTreeSet<String>>,
}

/// What governs a workload.
#[derive(Debug, Clone)]
pub(crate) struct Lawful {
    pub(crate) policies: Arc<wire::PolicySet>,
    pub(crate) mtls: MtlsModes,
}

/// A namespace, and the labels that some law selects by.
#[derive(PartialEq, Eq, Hash)]
struct Alike {
    namespace: String,
    labels: Vec<(String, String)>,
}

impl<'a> Laws<'a> {
    /// The laws among `objects`, and those in doubt.
    pub(crate) fn new(
        objects: &[&'a Resource],
        doubts: &'a [Doubt],
        settings: &'a LawSettings,
        trust: Trust<'_>,
    ) -> Self {
        let mut laws = Self {
            settings,
            by_namespace: BTreeMap::new(),
            denied: Vec::new(),
            strict: Vec::new(),
            labels: BTreeSet::new(),
            governed: RefCell::default(),
            warnings: RefCell::default(),
        };
        for resource in objects {
            let Some(scope) = scope(resource) else { continue };
            laws.labels.extend(scope.selector.keys().map(String::as_str));
            laws.by_namespace.entry(&resource.metadata.namespace).or_default().push(resource);
            laws.warn(resource, trust);
        }
        for doubt in doubts {
            laws.labels
                .extend(doubt.selector.iter().flat_map(|selector| selector.keys().map(String::as_str)));
            laws.doubt(doubt);
        }
        laws
    }

    /// What governs a workload of `namespace` with `labels`.
    pub(crate) fn of(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Lawful {
        let telling = labels.iter().filter(|(key, _)| self.labels.contains(key.as_str()));
        let alike = Alike {
            namespace: namespace.to_owned(),
            labels: telling.map(|(key, value)| (key.clone(), value.clone())).collect(),
        };
        if let Some(known) = self.governed.borrow().get(&alike) {
            return known.clone();
        }
        let lawful = self.govern(namespace, labels);
        self.governed.borrow_mut().insert(alike, lawful.clone());
        lawful
    }

    /// What works otherwise than its author may expect, one line each, by file and line.
    pub(crate) fn into_warnings(self) -> Vec<String> {
        self.warnings.into_inner().into_iter().collect()
    }

    fn govern(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Lawful {
        let root = self.settings.root_namespace.as_str();
        let of = |namespace: &str| self.by_namespace.get(namespace).into_iter().flatten().copied();
        let own = of(namespace).filter(|_| namespace != root);
        let mut governing = law::govern(of(root).chain(own), namespace, labels, self.settings);
        let denied = self.denied.iter().filter(|(scope, _)| scope.selects(namespace, labels, root));
        governing.policies.policies.extend(denied.map(|(_, policy)| policy.clone()));
        if self.strict.iter().any(|scope| scope.selects(namespace, labels, root)) {
            governing.mtls = MtlsModes::default();
        }
        self.warnings.borrow_mut().extend(governing.warnings.iter().map(ToString::to_string));
        Lawful { policies: Arc::new(governing.policies), mtls: governing.mtls }
    }

    fn warn(&self, resource: &Resource, trust: Trust<'_>) {
        let mut warnings = self.warnings.borrow_mut();
        warnings.extend(law::of_one(resource, self.settings).iter().map(ToString::to_string));
        if let Kind::AuthorizationPolicy(law) = &resource.kind
            && let Ok(policy) = Policy::from_wire(law.policy.clone())
        {
            let said = policy.warnings(trust);
            warnings.extend(said.iter().map(|warning| format!("{}: {warning}", resource.location)));
        }
    }

    fn doubt(&mut self, doubt: &Doubt) {
        let namespace = match (&doubt.namespace, doubt.law) {
            (Some(namespace), _) => namespace,
            // It may be anybody's.
            (None, DoubtedLaw::Connections) => &self.settings.root_namespace,
            // Then nothing is served at all.
            (None, DoubtedLaw::Requests) => return,
        };
        let selector = doubt.selector.clone().unwrap_or_default();
        let scope = Scope { namespace: namespace.clone(), selector };
        match doubt.law {
            DoubtedLaw::Requests => {
                let name = doubt.name.as_deref().unwrap_or("unreadable");
                self.denied.push((scope, Policy::deny_everything(namespace, name).to_wire()));
            }
            DoubtedLaw::Connections => self.strict.push(scope),
        }
    }
}

fn scope(resource: &Resource) -> Option<&Scope> {
    match &resource.kind {
        Kind::AuthorizationPolicy(law) => Some(&law.attachment.scope),
        Kind::RequestAuthentication(law) => Some(&law.attachment.scope),
        Kind::PeerAuthentication(law) => Some(&law.scope),
        _ => None,
    }
}
