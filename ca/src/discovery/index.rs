//! The mesh as it is now, for exact look-ups. One value for all streams; a change makes a new one.
//!
//! Knows not how it came about (`assemble`), nor who may ask how often (`publish`).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use douane_proto::{
    id::WorkloadId,
    mesh::{Dialect, External, Service, Workload},
    resource::Location,
    snapshot::{Found, MeshSettings, Question},
    wire,
};

use crate::discovery::missed::Missed;

/// The mesh as it is now.
#[derive(Debug)]
pub struct Index {
    pub(crate) mesh: MeshSettings,
    pub(crate) cluster_domain: String,
    pub(crate) law: Law,
    /// By `namespace/pod`.
    pub(crate) workloads: HashMap<String, Governed>,
    pub(crate) addresses: HashMap<IpAddr, Resident>,
    /// By fully qualified name.
    pub(crate) services: HashMap<String, Arc<Service>>,
    /// Sorted by namespace and name.
    pub(crate) externals: Vec<Arc<External>>,
    pub(crate) externals_by_address: HashMap<IpAddr, Vec<usize>>,
    pub(crate) externals_by_host: HashMap<String, Vec<usize>>,
    /// Pods of a cluster that ought to have a sidecar and have none.
    pub(crate) missed: Vec<Missed>,
    /// Where policies were written, by `namespace/name`.
    pub(crate) policies: HashMap<String, PolicyPlace>,
}

/// Where a policy was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PolicyPlace {
    pub(crate) location: Location,
    /// Of each rule.
    pub(crate) rule_lines: Vec<u32>,
}

/// Can policies be served?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Law {
    /// All of them are known, or denied where they are in doubt.
    Known,
    /// Of a law that cannot be read it is not even known whom it governs: nothing becomes ready.
    Unknown,
}

/// A workload with the policies that select it.
#[derive(Debug, Clone)]
pub(crate) struct Governed {
    pub(crate) workload: Arc<Workload>,
    pub(crate) policies: Arc<wire::PolicySet>,
}

/// Who has an address.
#[derive(Debug, Clone)]
pub(crate) enum Resident {
    Workload(Arc<Workload>),
    Service(Arc<Service>),
}

impl Index {
    /// Pods of a cluster that ought to have a sidecar and have none, by namespace and name.
    #[must_use]
    pub fn missed(&self) -> &[Missed] {
        &self.missed
    }

    /// All workloads.
    pub(crate) fn residents(&self) -> impl Iterator<Item = &Workload> {
        self.workloads.values().map(|governed| &*governed.workload)
    }

    /// What `question` finds for somebody of `namespace`. Pods and services go before entries.
    pub(crate) fn answer(&self, question: &Question, namespace: &str) -> Found {
        match question {
            Question::Address(address) => self.at(address.to_canonical(), namespace),
            Question::Host(host) => self.named(host, namespace),
        }
    }

    /// Where a policy, or a rule of it, is written, `file:line`: of `shop/orders` or `shop/orders rule 2`.
    pub(crate) fn place(&self, policy: &str) -> Option<String> {
        let (name, rule) = match policy.rsplit_once(" rule ") {
            Some((name, rule)) => (name, rule.parse::<usize>().ok()),
            None => (policy, None),
        };
        let PolicyPlace { location, rule_lines } = self.policies.get(name)?;
        let line = rule.and_then(|rule| rule_lines.get(rule.checked_sub(1)?)).unwrap_or(&location.line);
        Some(Location { file: Arc::clone(&location.file), line: *line }.to_string())
    }

    /// The identities of the workloads of this name, `namespace/name` of workload, pod or account; or this SPIFFE ID.
    pub(crate) fn identities(&self, name: &str) -> BTreeSet<WorkloadId> {
        if let Ok(id) = name.parse() {
            return [id].into();
        }
        let Some((namespace, name)) = name.split_once('/') else { return BTreeSet::new() };
        let workloads = self.workloads.values().map(|governed| &governed.workload);
        let is_it = |workload: &&Arc<Workload>| {
            workload.id.namespace() == namespace
                && (workload.service_name == name
                    || workload.name == name
                    || workload.id.service_account() == name)
        };
        workloads.filter(is_it).map(|workload| workload.id.clone()).collect()
    }

    /// The identities behind a service, `namespace/name`; `None`: there is no such service.
    pub(crate) fn behind(&self, name: &str) -> Option<BTreeSet<WorkloadId>> {
        let (namespace, name) = name.split_once('/')?;
        let mut services = self.services.values();
        let service = services.find(|service| service.namespace == namespace && service.name == name)?;
        Some(service.endpoints.iter().map(|endpoint| endpoint.workload.id.clone()).collect())
    }

    /// How many sidecars of ours the mesh has, whichever replica of the control plane they are connected to.
    pub(crate) fn sidecars(&self) -> usize {
        let is_ours = |governed: &&Governed| governed.workload.dialect == Dialect::Douane1;
        self.workloads.values().filter(is_ours).count()
    }

    /// What the workloads of an identity are called, `namespace/name`; where it has several names, none.
    pub(crate) fn names(&self) -> HashMap<WorkloadId, String> {
        let mut names: HashMap<&WorkloadId, Option<&str>> = HashMap::new();
        for Governed { workload, .. } in self.workloads.values() {
            let name = names.entry(&workload.id).or_insert(Some(&workload.service_name));
            *name = name.filter(|name| *name == workload.service_name);
        }
        let named = names.into_iter();
        named.filter_map(|(id, name)| Some((id.clone(), format!("{}/{}", id.namespace(), name?)))).collect()
    }

    fn at(&self, address: IpAddr, namespace: &str) -> Found {
        match self.addresses.get(&address) {
            Some(Resident::Workload(workload)) => Found::Workload(Arc::clone(workload)),
            Some(Resident::Service(service)) => Found::Service(seen_from(service, namespace)),
            None => self.outside(self.externals_by_address.get(&address), namespace),
        }
    }

    fn named(&self, host: &str, namespace: &str) -> Found {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        match self.services.get(&qualified(&host, namespace, &self.cluster_domain)) {
            Some(service) => Found::Service(seen_from(service, namespace)),
            None => self.outside(self.externals_by_host.get(&host), namespace),
        }
    }

    // An entry counts in its own namespace, one of the root namespace everywhere; several are seen as one.
    fn outside(&self, found: Option<&Vec<usize>>, namespace: &str) -> Found {
        let indices = found.into_iter().flatten();
        let mut visible = indices.filter_map(|index| self.externals.get(*index)).filter(|external| {
            external.namespace == namespace || external.namespace == self.mesh.root_namespace
        });
        let Some(first) = visible.next() else { return Found::Unknown };
        let mut rest = visible.peekable();
        if rest.peek().is_none() {
            return Found::External(Arc::clone(first));
        }
        Found::External(Arc::new(rest.fold(External::clone(first), |all, one| joined(all, one))))
    }
}

/// The fully qualified name of a service called `host` by somebody of `namespace`.
pub(crate) fn qualified(host: &str, namespace: &str, cluster_domain: &str) -> String {
    let parts: Vec<&str> = host.splitn(4, '.').collect();
    match parts.as_slice() {
        [name] => format!("{name}.{namespace}.svc.{cluster_domain}"),
        [name, of] | [name, of, "svc"] => format!("{name}.{of}.svc.{cluster_domain}"),
        _ => host.to_owned(),
    }
}

// The bare name means this service to its own namespace only.
fn seen_from(service: &Arc<Service>, namespace: &str) -> Arc<Service> {
    if service.namespace == namespace {
        return Arc::clone(service);
    }
    let mut other = Service::clone(service);
    other.hosts.retain(|host| host.contains('.'));
    Arc::new(other)
}

fn joined(mut all: External, one: &External) -> External {
    for host in &one.hosts {
        if !all.hosts.contains(host) {
            all.hosts.push(host.clone());
        }
    }
    for address in &one.addresses {
        if !all.addresses.contains(address) {
            all.addresses.push(*address);
        }
    }
    let known: BTreeMap<u16, ()> = all.ports.iter().map(|port| (port.number, ())).collect();
    all.ports.extend(one.ports.iter().filter(|port| !known.contains_key(&port.number)).cloned());
    all
}

#[cfg(test)]
impl Index {
    /// The mesh of a file, for tests of other rooms.
    pub(crate) fn of_text(text: &str) -> Self {
        use crate::{
            config::Config,
            discovery::{
                assemble::assemble,
                learned::Known,
                settings::{Marked, Settings},
            },
        };
        let resources = douane_proto::resource::read_file(std::path::Path::new("mesh.yaml"), text).0;
        let config = Config::default();
        let settings = Settings {
            mesh: config.mesh(),
            law: config.law(),
            cluster_domain: config.cluster_domain,
            marked: Marked::ByLabel,
        };
        assemble(&[resources], &[], &Known::default(), &settings).index
    }
}
