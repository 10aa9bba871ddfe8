//! What will run: pods, services and outside hosts with their addresses, made from an operator's objects. Pure but for
//! one question: is such a program on this machine?
//!
//! What the lab cannot honour is refused here, with file and line, before anything starts.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, RandomState},
    net::IpAddr,
};

use anyhow::Result;
use douane_proto::resource::{
    ClusterIp, Container, ContainerPort, EnvValue, Kind, Location, Metadata, PodSpec, Resource, Service,
};

use crate::lab::{
    addresses::{AddressPlan, PodAddresses},
    hosts::Host,
};

/// The label (or annotation) that asks for a sidecar.
const INJECT: &str = "douane.io/inject";
/// The namespace whose entries count everywhere.
const ROOT_NAMESPACE: &str = "istio-system";

/// What the lab cannot run.
#[derive(Debug, thiserror::Error)]
#[error("{location}: {what}")]
pub struct PlanError {
    /// Where it was written.
    pub location: Location,
    /// What is wrong, and what would be right.
    pub what: String,
}

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

/// One pod.
#[derive(Debug, Clone)]
pub struct PodPlan {
    /// Its names, labels and annotations.
    pub metadata: Metadata,
    /// Unique among all pods of all labs.
    pub uid: String,
    /// Its service account.
    pub service_account: String,
    /// Its Deployment, if one made it.
    pub deployment: Option<String>,
    /// Does it get a sidecar?
    pub injected: bool,
    /// Its addresses.
    pub addresses: PodAddresses,
    /// What runs in it.
    pub containers: Vec<ContainerPlan>,
}

/// One container.
#[derive(Debug, Clone)]
pub struct ContainerPlan {
    /// Its name.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// Where it starts.
    pub directory: String,
    /// Which user it asks to be.
    pub run_as_user: Option<u32>,
    /// Its declared ports.
    pub ports: Vec<ContainerPort>,
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

/// A pod before it has addresses.
struct Draft<'a> {
    location: &'a Location,
    metadata: Metadata,
    deployment: Option<String>,
    spec: &'a PodSpec,
}

impl<'a> Draft<'a> {
    fn of(resource: &'a Resource) -> Vec<Self> {
        let location = &resource.location;
        match &resource.kind {
            Kind::Pod(pod) => {
                vec![Self {
                    location,
                    metadata: resource.metadata.clone(),
                    deployment: None,
                    spec: &pod.spec,
                }]
            }
            Kind::Deployment(deployment) => {
                let name = &resource.metadata.name;
                let replica = |number| Self {
                    location,
                    metadata: Metadata {
                        namespace: resource.metadata.namespace.clone(),
                        name: format!("{name}-{number}"),
                        ..deployment.template.clone()
                    },
                    deployment: Some(name.clone()),
                    spec: &deployment.spec,
                };
                (1..=deployment.replicas.value).map(replica).collect()
            }
            _ => Vec::new(),
        }
    }

    fn plan(self, addresses: PodAddresses, exists: impl Fn(&str) -> bool) -> Result<PodPlan, PlanError> {
        let injected = self.metadata.label_or_annotation(INJECT) == Some("enabled");
        self.refuse_what_cannot_be_honoured()?;
        let mut pod = PodPlan {
            uid: uid(&self.metadata.key()),
            service_account: self.spec.service_account.clone(),
            deployment: self.deployment.clone(),
            injected,
            addresses,
            containers: Vec::new(),
            metadata: self.metadata.clone(),
        };
        let pod_user = self.spec.run_as_user.as_ref().map(|it| it.value);
        for container in &self.spec.containers {
            let planned = self.container(container, &pod, pod_user, &exists)?;
            if pod.containers.iter().any(|it| it.name == planned.name) {
                return Err(
                    self.at(container.name.line, format!("two containers are called {}", planned.name))
                );
            }
            pod.containers.push(planned);
        }
        Ok(pod)
    }

    fn refuse_what_cannot_be_honoured(&self) -> Result<(), PlanError> {
        if let Some(line) = self.spec.volumes {
            return Err(
                self.at(line, "the lab mounts no volumes; its pods see this machine's files".to_owned())
            );
        }
        if let Some(line) = self.spec.host_network {
            return Err(self.at(line, "a pod of the lab cannot share the host's network".to_owned()));
        }
        if let Some(first) = self.spec.init_containers.first() {
            return Err(self.at(first.name.line, "the lab runs no initContainers".to_owned()));
        }
        Ok(())
    }

    fn container(
        &self,
        container: &Container,
        pod: &PodPlan,
        pod_user: Option<u32>,
        exists: impl Fn(&str) -> bool,
    ) -> Result<ContainerPlan, PlanError> {
        let name = &container.name.value;
        let Some(program) = container.command.first() else {
            let what = format!(
                "container {name} has no command; the lab runs programs of this machine, not images: add command: [...]"
            );
            return Err(self.at(container.name.line, what));
        };
        let mut env = Vec::new();
        for variable in &container.env {
            let line = variable.name.line;
            let value = match &variable.value {
                EnvValue::Text(text) => expand(text, &env),
                EnvValue::Field(path) => field(pod, path).ok_or_else(|| {
                    self.at(
                        line,
                        format!("fieldRef {path} of variable {} is unknown to the lab", variable.name.value),
                    )
                })?,
                EnvValue::Elsewhere(line) => {
                    let what = format!(
                        "variable {} takes its value from elsewhere; the lab knows value and fieldRef",
                        variable.name.value
                    );
                    return Err(self.at(*line, what));
                }
            };
            env.push((variable.name.value.clone(), value));
        }
        let command: Vec<_> =
            container.command.iter().chain(&container.args).map(|it| expand(&it.value, &env)).collect();
        if !command.first().is_some_and(|it| exists(it)) {
            return Err(self.at(
                program.line,
                format!("container {name}: no program {} is on this machine", program.value),
            ));
        }
        Ok(ContainerPlan {
            name: name.clone(),
            command,
            env,
            directory: container.working_dir.as_ref().map_or_else(|| "/".to_owned(), |it| it.value.clone()),
            run_as_user: container.run_as_user.as_ref().map(|it| it.value).or(pod_user),
            ports: container.ports.clone(),
        })
    }

    fn at(&self, line: u32, what: String) -> PlanError {
        PlanError { location: Location { file: self.location.file.clone(), line }, what }
    }
}

fn given_pod_addresses(resource: &Resource) -> Vec<IpAddr> {
    match &resource.kind {
        Kind::Pod(pod) => pod.status.addresses.iter().map(|it| it.value).collect(),
        _ => Vec::new(),
    }
}

/// The usual fields of the downward API.
fn field(pod: &PodPlan, path: &str) -> Option<String> {
    let metadata = &pod.metadata;
    let keyed = |prefix: &str| path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']");
    if let Some(key) = keyed("metadata.labels") {
        return Some(metadata.labels.get(key).cloned().unwrap_or_default());
    }
    if let Some(key) = keyed("metadata.annotations") {
        return Some(metadata.annotations.get(key).cloned().unwrap_or_default());
    }
    Some(match path {
        "metadata.name" => metadata.name.clone(),
        "metadata.namespace" => metadata.namespace.clone(),
        "metadata.uid" => pod.uid.clone(),
        "spec.serviceAccountName" => pod.service_account.clone(),
        "spec.nodeName" => "lab".to_owned(),
        "status.podIP" => pod.addresses.v4.to_string(),
        "status.podIPs" => format!("{},{}", pod.addresses.v4, pod.addresses.v6),
        "status.hostIP" => crate::lab::addresses::GATEWAY_V4.to_string(),
        _ => return None,
    })
}

/// Kubernetes' `$(NAME)`; an unknown name stays as it is, `$$` is one `$`.
fn expand(text: &str, env: &[(String, String)]) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            rest = after;
            continue;
        }
        let named = after.strip_prefix('(').and_then(|it| it.split_once(')'));
        let value = named
            .and_then(|(name, after)| Some((env.iter().rev().find(|(it, _)| it == name)?.1.as_str(), after)));
        match value {
            Some((value, after)) => {
                expanded.push_str(value);
                rest = after;
            }
            None => {
                expanded.push('$');
                rest = after;
            }
        }
    }
    expanded.push_str(rest);
    expanded
}

/// In the form of a UUID; unique enough for pods.
fn uid(name: &str) -> String {
    let (high, low) = (RandomState::new().hash_one(name), RandomState::new().hash_one(name));
    let digits = format!("{high:016x}{low:016x}");
    let mut parts = [8, 4, 4, 4, 12].into_iter().scan(digits.as_str(), |rest, length| {
        let (part, after) = rest.split_at_checked(length)?;
        *rest = after;
        Some(part)
    });
    parts.by_ref().collect::<Vec<_>>().join("-")
}
