//! What will run: pods, services and outside hosts with their addresses, made from an operator's objects. Pure but for
//! one question: is such a program on this machine?
//!
//! What the lab cannot honour is refused here, with file and line, before anything starts.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::Result;
use douane_proto::resource::{ClusterIp, Kind, Location, Metadata, Resource, Service};

use crate::lab::{
    addresses::AddressPlan,
    hosts::Host,
    pod_plan::{Draft, PlanError, PodPlan},
};

/// The namespace whose entries count everywhere.
const ROOT_NAMESPACE: &str = "istio-system";

/// Everything that will run.
#[derive(Debug, Default)]
pub struct Plan {
    /// Pods, each replica by itself.
    pub pods: Vec<PodPlan>,
    /// Services.
    pub services: Vec<ServicePlan>,
    /// Hosts outside.
    pub outside: Vec<OutsidePlan>,
    addresses: AddressPlan,
}

/// One service.
#[derive(Debug, Clone)]
pub struct ServicePlan {
    /// Its names.
    pub metadata: Metadata,
    /// As the operator wrote it.
    pub service: Service,
    /// Its virtual addresses; none when headless.
    pub addresses: Vec<IpAddr>,
}

/// Hosts outside the mesh.
#[derive(Debug, Clone)]
pub struct OutsidePlan {
    /// Where the entry counts.
    pub namespace: String,
    /// Names.
    pub hosts: Vec<String>,
    /// Where they lead.
    pub addresses: Vec<IpAddr>,
}

impl Plan {
    /// Plans pods, services and outside hosts. `exists` tells whether a pod could run a program.
    ///
    /// # Errors
    /// What the lab cannot honour, an address or a name given twice, a program that does not exist.
    pub fn make(resources: &[Resource], exists: impl Fn(&str) -> bool) -> Result<Self> {
        let mut plan = Self::default();
        // What is given by hand first, so that nothing allocated is in its way.
        plan.change_services(resources)?;
        let mut written: Vec<(Draft<'_>, &[IpAddr])> = Vec::new();
        let given: Vec<Vec<IpAddr>> = resources.iter().map(given_pod_addresses).collect();
        for (resource, given) in resources.iter().zip(&given) {
            written.extend(Draft::of(resource).into_iter().map(|draft| (draft, given.as_slice())));
        }
        written.sort_by_key(|(_, given)| given.is_empty());
        let mut names = BTreeMap::new();
        for (draft, given) in written {
            if let Some(first) = names.insert(draft.metadata.key(), draft.location) {
                let what = format!("pod {} is already written at {first}", draft.metadata.key());
                return Err(PlanError { location: draft.location.clone(), what }.into());
            }
            let addresses = plan.addresses.pod(given, &draft.location.to_string())?;
            plan.pods.push(draft.plan(addresses, &exists)?);
        }
        plan.pods.sort_by_key(|it| it.metadata.key());
        Ok(plan)
    }

    /// Takes services and outside hosts from changed objects. Cluster IPs stay with the names that had them.
    ///
    /// # Errors
    /// An address or a name is given twice; then nothing changed.
    pub fn change_services(&mut self, resources: &[Resource]) -> Result<()> {
        let mut addresses = AddressPlan::default();
        for pod in &self.pods {
            for address in pod.addresses.both() {
                addresses.take(address, &format!("pod {}", pod.metadata.key()))?;
            }
        }
        let mut names = BTreeMap::new();
        let mut services = Vec::new();
        let mut unallocated = Vec::new();
        for (resource, service) in resources.iter().filter_map(|it| match &it.kind {
            Kind::Service(service) => Some((it, service)),
            _ => None,
        }) {
            let key = resource.metadata.key();
            if let Some(first) = names.insert(key.clone(), &resource.location) {
                let what = format!("service {key} is already written at {first}");
                return Err(PlanError { location: resource.location.clone(), what }.into());
            }
            let mut planned = ServicePlan {
                metadata: resource.metadata.clone(),
                service: service.clone(),
                addresses: vec![],
            };
            match &service.cluster_ip {
                ClusterIp::Headless => {}
                ClusterIp::Given(given) => {
                    for address in given {
                        let place = Location { file: resource.location.file.clone(), line: address.line };
                        addresses.take(address.value, &place.to_string())?;
                        planned.addresses.push(address.value);
                    }
                }
                ClusterIp::Unallocated => match self.services.iter().find(|it| it.metadata.key() == key) {
                    Some(known) if !known.addresses.is_empty() => {
                        for address in &known.addresses {
                            addresses.take(*address, &resource.location.to_string())?;
                        }
                        planned.addresses.clone_from(&known.addresses);
                    }
                    _ => unallocated.push((services.len(), resource.location.to_string())),
                },
            }
            services.push(planned);
        }
        for (index, place) in unallocated {
            let address = addresses.cluster(&place)?;
            if let Some(service) = services.get_mut(index) {
                service.addresses.push(address.into());
            }
        }
        self.outside = resources.iter().filter_map(OutsidePlan::of).collect();
        self.services = services;
        self.addresses = addresses;
        Ok(())
    }

    /// The names that `pod` can call.
    ///
    /// A service leads to its cluster IP where a sidecar carries it on to an endpoint. No other part of the lab serves
    /// cluster IPs, so that a pod without a sidecar gets the endpoints' own addresses.
    #[must_use]
    pub fn hosts(&self, pod: &PodPlan) -> Vec<Host> {
        let namespace = &pod.metadata.namespace;
        let mut hosts = Vec::new();
        for service in &self.services {
            let addresses = if pod.injected && !service.addresses.is_empty() {
                service.addresses.clone()
            } else {
                self.endpoints(service).flat_map(|it| it.addresses.both()).collect()
            };
            hosts.push(Host::service(
                &service.metadata.name,
                &service.metadata.namespace,
                namespace,
                addresses,
            ));
        }
        for outside in &self.outside {
            if outside.namespace == *namespace || outside.namespace == ROOT_NAMESPACE {
                hosts.push(Host { names: outside.hosts.clone(), addresses: outside.addresses.clone() });
            }
        }
        hosts
    }

    /// The names of the pods that objects describe, to tell whether pods came or went.
    #[must_use]
    pub fn pod_names(resources: &[Resource]) -> BTreeSet<String> {
        resources.iter().flat_map(Draft::of).map(|it| it.metadata.key()).collect()
    }

    fn endpoints<'a>(&'a self, service: &'a ServicePlan) -> impl Iterator<Item = &'a PodPlan> {
        let selector = &service.service.selector;
        self.pods.iter().filter(move |pod| {
            !selector.is_empty()
                && pod.metadata.namespace == service.metadata.namespace
                && selector.iter().all(|(key, value)| pod.metadata.labels.get(key) == Some(value))
        })
    }
}

impl OutsidePlan {
    fn of(resource: &Resource) -> Option<Self> {
        let Kind::ServiceEntry(entry) = &resource.kind else { return None };
        Some(Self {
            namespace: resource.metadata.namespace.clone(),
            hosts: entry.hosts.iter().map(|it| it.value.clone()).collect(),
            addresses: entry.addresses.iter().map(|it| it.value).collect(),
        })
    }
}

fn given_pod_addresses(resource: &Resource) -> Vec<IpAddr> {
    match &resource.kind {
        Kind::Pod(pod) => pod.status.addresses.iter().map(|it| it.value).collect(),
        _ => Vec::new(),
    }
}
