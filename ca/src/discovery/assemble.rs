//! Resources become the mesh: pods with addresses, services in front of them, hosts outside, and the law for each pod.
//!
//! Pure. What contradicts something else is left out and named with both places; what is in doubt is denied. Knows not
//! where resources come from (`folder`), nor who asks (`publish`).

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use douane_proto::{
    mesh::{Endpoint, External, Port, Service},
    resource::{self, ClusterIp, Doubt, DoubtedLaw, Kind, Location, Metadata, Resource, Transport},
};

use crate::discovery::{
    index::{Index, Law, PolicyPlace, Resident, qualified},
    laws::{Lawful, Laws},
    learned::Known,
    missed::missed,
    notes::LeftOut,
    protocols,
    settings::{Marked, Settings},
    slices::Slices,
    written::{Built, Written, selects},
};

/// A mesh, and what of the resources is not in it.
#[derive(Debug)]
pub(crate) struct Assembled {
    pub(crate) index: Index,
    /// What was left out.
    pub(crate) left_out: Vec<LeftOut>,
    /// What works otherwise than its author may expect.
    pub(crate) warnings: Vec<String>,
    /// How many objects are in force.
    pub(crate) objects: usize,
}

/// Makes the mesh of resources (by folder, the last one wins), of what is in doubt, and of what sidecars have learned.
pub(crate) fn assemble(
    resources: &[Vec<Resource>],
    doubts: &[Doubt],
    learned: &Known,
    settings: &Settings,
) -> Assembled {
    let mut assembly = Assembly { settings, learned, left_out: Vec::new(), places: HashMap::new() };
    let mut doubts = doubts.to_vec();
    let objects = assembly.merge(resources, &mut doubts);
    let services: Vec<(&Resource, &resource::Service)> = of_kind(&objects, |kind| match kind {
        Kind::Service(service) => Some(service),
        _ => None,
    });
    let laws = Laws::new(&objects, &doubts, &settings.law, settings.mesh.trust());
    let (workloads, mut addresses) = assembly.workloads(&objects, &services, &laws);
    let slices = Slices::new(&objects, &workloads);
    let mut notes = Vec::new();
    let mut by_name = HashMap::new();
    for (resource, written) in &services {
        if let Some(host) = &written.alias_of {
            notes.push(alias(resource, host));
            continue;
        }
        let mut service = assembly.service(resource, written, &workloads);
        if written.selector.is_empty() {
            service.endpoints = slices.behind(&service, settings.mesh.trust());
        }
        let service = Arc::new(service);
        for address in &service.addresses {
            let resident = Resident::Service(Arc::clone(&service));
            assembly.settle(&mut addresses, *address, resident, &resource.location);
        }
        if let Some(host) = service.hosts.first() {
            assembly.places.insert(Place::Host(host.clone()), resource.location.clone());
            by_name.insert(host.clone(), service);
        }
    }
    // What has an address of its own keeps it; nobody else says who these are.
    for endpoint in by_name.values().flat_map(|service: &Arc<Service>| &service.endpoints) {
        for address in &endpoint.workload.addresses {
            addresses.entry(*address).or_insert_with(|| Resident::Workload(Arc::clone(&endpoint.workload)));
        }
    }
    let externals = assembly.externals(&objects);
    let is_known =
        doubts.iter().all(|doubt| doubt.namespace.is_some() || doubt.law == DoubtedLaw::Connections);
    let index = Index {
        mesh: settings.mesh.clone(),
        cluster_domain: settings.cluster_domain.clone(),
        law: if is_known { Law::Known } else { Law::Unknown },
        // Of two with one name the pod is the one that is known by it.
        workloads: workloads.iter().rev().map(|built| (built.workload.key(), built.governed())).collect(),
        addresses,
        services: by_name,
        externals_by_address: by(&externals, |external| external.addresses.clone()),
        externals_by_host: by(&externals, |external| external.hosts.clone()),
        externals,
        missed: match settings.marked {
            Marked::ByContainer => missed(&objects),
            // Whoever runs the files gives a sidecar to those that ask.
            Marked::ByLabel => Vec::new(),
        },
        policies: objects.iter().filter_map(|resource| policy_place(resource)).collect(),
    };
    let mut warnings = laws.into_warnings();
    warnings.extend(notes);
    Assembled { index, left_out: assembly.left_out, warnings, objects: objects.len() }
}

struct Assembly<'a> {
    settings: &'a Settings,
    learned: &'a Known,
    left_out: Vec<LeftOut>,
    /// Who was here first, to name both places of a contradiction.
    places: HashMap<Place, Location>,
}

#[derive(PartialEq, Eq, Hash)]
enum Place {
    Address(IpAddr),
    /// A fully qualified name of a service.
    Host(String),
}

type Key<'a> = (&'static str, &'a str, &'a str);

impl Assembled {
    /// What was left out, one line each, with its place.
    pub(crate) fn errors(&self) -> Vec<String> {
        self.left_out.iter().map(ToString::to_string).collect()
    }
}

impl Assembly<'_> {
    // Within one folder a name stands for one object; a later folder replaces what an earlier one says.
    // A law that is left out for another of its name may forbid what that one allows: it is in doubt.
    fn merge<'r>(&mut self, folders: &'r [Vec<Resource>], doubts: &mut Vec<Doubt>) -> Vec<&'r Resource> {
        let mut merged: BTreeMap<Key<'r>, &'r Resource> = BTreeMap::new();
        for folder in folders {
            let mut own: BTreeMap<Key<'r>, &'r Resource> = BTreeMap::new();
            for resource in folder {
                let metadata = &resource.metadata;
                let key = (resource.kind.name(), &*metadata.namespace, &*metadata.name);
                if let Some(first) = own.get(&key) {
                    let what = format!(
                        "{} {} is already at {}; this one is left out",
                        key.0,
                        metadata.key(),
                        first.location
                    );
                    self.left_out.push(LeftOut { place: resource.location.clone(), what });
                    if !resource.kind.agrees(&first.kind) {
                        doubts.extend(Doubt::about(resource));
                    }
                    continue;
                }
                own.insert(key, resource);
            }
            merged.extend(own);
        }
        merged.into_values().collect()
    }

    // Pods first: an entry takes no address that a pod or a service has. Pods of their node's network last: they share its
    // address, and none is the one that it leads to.
    fn workloads<'r>(
        &mut self,
        objects: &[&'r Resource],
        services: &[(&'r Resource, &'r resource::Service)],
        laws: &Laws<'_>,
    ) -> (Vec<Built<'r>>, HashMap<IpAddr, Resident>) {
        let pods = of_kind(objects, |kind| match kind {
            Kind::Pod(pod) => Some(Written::Pod(pod)),
            _ => None,
        });
        let (of_nodes, pods): (Vec<_>, Vec<_>) =
            pods.into_iter().partition(|(_, written)| written.shares_its_node());
        let entries = of_kind(objects, |kind| match kind {
            Kind::WorkloadEntry(entry) => Some(Written::Entry(entry)),
            _ => None,
        });
        let mut built = Vec::new();
        let mut addresses = HashMap::new();
        for (resource, written) in pods.into_iter().chain(entries).chain(of_nodes) {
            let own = written.addresses();
            if own.is_empty() {
                continue;
            }
            if let Some(clash) = self.clash_of_entry(resource, written, services) {
                self.left_out.push(clash);
                continue;
            }
            match written.workload(&resource.metadata, self.settings, services) {
                Ok(mut workload) => {
                    let Lawful { policies, mtls } = laws.of(&resource.metadata.namespace, &workload.labels);
                    workload.mtls = mtls;
                    workload.learned = self.learned.of(&workload);
                    let workload = Arc::new(workload);
                    for address in &workload.addresses {
                        let resident = Resident::Workload(Arc::clone(&workload));
                        if written.shares_its_node() {
                            addresses.entry(*address).or_insert(resident);
                        } else {
                            self.settle(&mut addresses, *address, resident, &resource.location);
                        }
                    }
                    built.push(Built { resource, written, workload, policies });
                }
                Err(error) => self.left_out.push(LeftOut {
                    place: resource.location.clone(),
                    what: format!(
                        "{} {}: {error}; it is left out",
                        resource.kind.name(),
                        resource.metadata.key()
                    ),
                }),
            }
        }
        (built, addresses)
    }

    fn clash_of_entry(
        &self,
        resource: &Resource,
        written: Written<'_>,
        services: &[(&Resource, &resource::Service)],
    ) -> Option<LeftOut> {
        let Written::Entry(entry) = written else { return None };
        let address = entry.address.value.to_canonical();
        let is_given = |service: &resource::Service| match &service.cluster_ip {
            ClusterIp::Given(all) => all.iter().any(|one| one.value.to_canonical() == address),
            ClusterIp::Unallocated | ClusterIp::Headless => false,
        };
        let service = || Some(&services.iter().find(|(_, service)| is_given(service))?.0.location);
        let other = self.places.get(&Place::Address(address)).or_else(service)?;
        let place = Location { line: entry.address.line, ..resource.location.clone() };
        let what = format!(
            "WorkloadEntry {}: its address {address} belongs to the mesh already, see {other}; the entry is left out",
            resource.metadata.key()
        );
        Some(LeftOut { place, what })
    }

    fn service(&self, resource: &Resource, service: &resource::Service, workloads: &[Built<'_>]) -> Service {
        let Metadata { namespace, name, .. } = &resource.metadata;
        let tcp = || service.ports.iter().filter(|port| port.transport == Transport::Tcp);
        let behind = workloads.iter().filter(|built| selects(service, namespace, &built.resource.metadata));
        let endpoint = |built: &Built<'_>| {
            let target =
                |port: &resource::ServicePort| Some((port.number.value, built.written.target(port)?));
            Endpoint { workload: Arc::clone(&built.workload), targets: tcp().filter_map(target).collect() }
        };
        Service {
            namespace: namespace.clone(),
            name: name.clone(),
            hosts: vec![
                format!("{name}.{namespace}.svc.{}", self.settings.cluster_domain),
                format!("{name}.{namespace}.svc"),
                format!("{name}.{namespace}"),
                name.clone(),
            ],
            addresses: match &service.cluster_ip {
                ClusterIp::Given(addresses) => addresses.iter().map(|one| one.value.to_canonical()).collect(),
                ClusterIp::Unallocated | ClusterIp::Headless => Vec::new(),
            },
            ports: tcp()
                .map(|port| Port {
                    number: port.number.value,
                    protocol: protocols::declared(port.app_protocol.as_deref(), &port.name),
                    name: port.name.clone(),
                })
                .collect(),
            endpoints: behind.map(endpoint).collect(),
        }
    }

    // The first one who has an address keeps it.
    fn settle(
        &mut self,
        addresses: &mut HashMap<IpAddr, Resident>,
        address: IpAddr,
        resident: Resident,
        location: &Location,
    ) {
        if let Some(first) = self.places.get(&Place::Address(address)) {
            let what = format!("the address {address} is already given at {first}; it leads there");
            self.left_out.push(LeftOut { place: location.clone(), what });
            return;
        }
        self.places.insert(Place::Address(address), location.clone());
        addresses.insert(address, resident);
    }

    fn externals(&mut self, objects: &[&Resource]) -> Vec<Arc<External>> {
        let mut externals = Vec::new();
        for resource in objects {
            let Kind::ServiceEntry(entry) = &resource.kind else { continue };
            if let Some(clash) = self.clash(resource, entry) {
                self.left_out.push(clash);
                continue;
            }
            let port = |port: &resource::EntryPort| Port {
                number: port.number.value,
                protocol: protocols::declared(port.protocol.as_deref(), &port.name),
                name: port.name.clone(),
            };
            externals.push(Arc::new(External {
                namespace: resource.metadata.namespace.clone(),
                name: resource.metadata.name.clone(),
                hosts: entry.hosts.iter().map(|host| host.value.clone()).collect(),
                addresses: entry.addresses.iter().map(|one| one.value.to_canonical()).collect(),
                ports: entry.ports.iter().map(port).collect(),
            }));
        }
        externals
    }

    // An entry must not take over what a pod or a service has (precedence: Pod > Service > WorkloadEntry > ServiceEntry).
    fn clash(&self, resource: &Resource, entry: &resource::ServiceEntry) -> Option<LeftOut> {
        let metadata = &resource.metadata;
        let domain = &self.settings.cluster_domain;
        let hosts = entry.hosts.iter().map(|host| {
            let place = Place::Host(qualified(&host.value, &metadata.namespace, domain));
            (host.line, format!("host {}", host.value), place)
        });
        let addresses = entry.addresses.iter().map(|address| {
            let place = Place::Address(address.value.to_canonical());
            (address.line, format!("address {}", address.value), place)
        });
        let (line, what, other) = hosts
            .chain(addresses)
            .find_map(|(line, what, place)| Some((line, what, self.places.get(&place)?)))?;
        let place = Location { line, ..resource.location.clone() };
        let what = format!(
            "ServiceEntry {}: its {what} belongs to the mesh already, see {other}; the entry is left out",
            metadata.key()
        );
        Some(LeftOut { place, what })
    }
}

// In DNS it is another name of an outside host, which only an entry lets in.
fn alias(resource: &Resource, host: &str) -> String {
    format!(
        "{}: Service {} is of type ExternalName and no part of the mesh: its clients reach {host} by a ServiceEntry that \
         names it, or not at all",
        resource.location,
        resource.metadata.key()
    )
}

fn policy_place(resource: &Resource) -> Option<(String, PolicyPlace)> {
    let Kind::AuthorizationPolicy(policy) = &resource.kind else { return None };
    let written = PolicyPlace { location: resource.location.clone(), rule_lines: policy.rule_lines.clone() };
    Some((resource.metadata.key(), written))
}

fn of_kind<'r, T>(objects: &[&'r Resource], pick: impl Fn(&'r Kind) -> Option<T>) -> Vec<(&'r Resource, T)> {
    objects.iter().filter_map(|resource| Some((*resource, pick(&resource.kind)?))).collect()
}

fn by<K: std::hash::Hash + Eq>(
    externals: &[Arc<External>],
    keys: impl Fn(&External) -> Vec<K>,
) -> HashMap<K, Vec<usize>> {
    let mut map: HashMap<K, Vec<usize>> = HashMap::new();
    for (index, external) in externals.iter().enumerate() {
        for key in keys(external) {
            map.entry(key).or_default().push(index);
        }
    }
    map
}
