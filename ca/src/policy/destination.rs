//! Which workload is asked: by a service and its port, by its own name, or as the question describes it.

use std::collections::BTreeMap;

use douane_proto::resource::{Kind, Metadata, PodSpec, Resource, Service, TargetPort};

use crate::policy::asked::{Protocol, Workload};

/// The names of protocols by which a port is known to carry HTTP (Istio's port names and `appProtocol`).
const HTTP: &[&str] = &["http", "http2", "grpc", "grpc-web", "kubernetes.io/h2c"];

/// What runs: a pod, or what makes pods.
#[derive(Debug, Clone)]
pub struct Running<'a> {
    /// `Pod` or `Deployment`.
    pub kind: &'static str,
    /// Its name.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// The labels of its pods.
    pub labels: &'a BTreeMap<String, String>,
    /// What runs in its pods.
    pub spec: &'a PodSpec,
}

/// A workload that was found, and how it is reached.
#[derive(Debug, Clone)]
pub struct Destination {
    /// It.
    pub workload: Workload,
    /// What it is called: `Deployment shop/orders`.
    pub name: String,
    /// The host by which a request names it.
    pub host: String,
}

/// Why no workload was found.
#[derive(Debug, thiserror::Error)]
pub enum NoDestination {
    /// It is written otherwise.
    #[error("{0:?} is no {1}")]
    Form(String, &'static str),
    /// No object of that name.
    #[error("there is no {0} among the resources")]
    Unknown(String),
    /// A service with several ports, or none.
    #[error("service {service} has the ports {ports:?}; say which: --to {service}:PORT")]
    Port {
        /// Which service.
        service: String,
        /// Its ports.
        ports: Vec<u16>,
    },
}

/// Everything that runs.
pub fn running(resources: &[Resource]) -> Vec<Running<'_>> {
    resources.iter().filter_map(Running::of).collect()
}

/// The workload behind `service:port`. The service is `name`, `name.namespace` or `name.namespace.svc...`; `namespace` is
/// where a bare name is looked for first.
///
/// # Errors
/// [`NoDestination`] when there is none, or it is not clear which.
pub fn of_service(resources: &[Resource], to: &str, namespace: &str) -> Result<Destination, NoDestination> {
    let (host, port) = match to.rsplit_once(':') {
        Some((host, port)) => {
            let number = port.parse::<u16>();
            (host, Some(number.map_err(|_| NoDestination::Form(to.to_owned(), "service:port"))?))
        }
        None => (to, None),
    };
    let (name, rest) = host.split_once('.').unwrap_or((host, ""));
    let wanted = rest.split('.').next().filter(|wanted| !wanted.is_empty());
    let unknown = || NoDestination::Unknown(format!("Service {host}"));
    let named: Vec<(&Resource, &Service)> = resources
        .iter()
        .filter_map(|resource| match &resource.kind {
            Kind::Service(service) if resource.metadata.name == name => Some((resource, service)),
            _ => None,
        })
        .collect();
    let within =
        |namespace: &str| named.iter().find(|(resource, _)| resource.metadata.namespace == namespace);
    let found = match wanted {
        Some(wanted) => within(wanted),
        None => within(namespace).or(named.first().filter(|_| named.len() == 1)),
    };
    let (resource, service) = found.ok_or_else(unknown)?;

    let listed: Vec<u16> = service.ports.iter().map(|port| port.number.value).collect();
    let wanted = port.or(listed.first().copied().filter(|_| listed.len() == 1));
    let port = service.ports.iter().find(|port| Some(port.number.value) == wanted);
    let port = port.ok_or_else(|| NoDestination::Port { service: name.to_owned(), ports: listed })?;

    let namespace = resource.metadata.namespace.as_str();
    let selected = running(resources).into_iter().find(|running| {
        running.namespace == namespace
            && !service.selector.is_empty()
            && service.selector.iter().all(|(key, value)| running.labels.get(key) == Some(value))
    });
    let number = match (&port.target, &selected) {
        (TargetPort::Number(number), _) => *number,
        (TargetPort::Name(name), Some(running)) => {
            named_port(running.spec, name).unwrap_or(port.number.value)
        }
        (TargetPort::Name(_), None) => port.number.value,
    };
    let declared = port.app_protocol.as_deref().or(port.name.split('-').next()).unwrap_or_default();
    let protocol = if declared == "tcp" { Protocol::Tcp } else { Protocol::Http };
    let workload = Workload {
        namespace: namespace.to_owned(),
        labels: selected.as_ref().map_or_else(|| service.selector.clone(), |running| running.labels.clone()),
        service_account: selected
            .as_ref()
            .map_or("default", |running| &running.spec.service_account)
            .to_owned(),
        port: number,
        protocol: if HTTP.contains(&declared) { Protocol::Http } else { protocol },
    };
    let name = match &selected {
        Some(running) => running.title(),
        None => format!("Service {}", resource.metadata.key()),
    };
    let host = format!("{}.{namespace}.svc.cluster.local", resource.metadata.name);
    Ok(Destination { workload, name, host })
}

/// The workload of this name, `namespace/name`. `port`: which of its ports; the first declared one otherwise.
///
/// # Errors
/// [`NoDestination`] when there is none.
pub fn of_name(resources: &[Resource], key: &str, port: Option<u16>) -> Result<Destination, NoDestination> {
    let (namespace, name) =
        key.split_once('/').ok_or_else(|| NoDestination::Form(key.to_owned(), "namespace/name"))?;
    let all = running(resources);
    let found = all.iter().find(|running| running.namespace == namespace && running.name == name);
    let running = found.ok_or_else(|| NoDestination::Unknown(format!("Pod or Deployment {key}")))?;
    Ok(running.destination(port))
}

impl<'a> Running<'a> {
    fn of(resource: &'a Resource) -> Option<Self> {
        let Resource { metadata, kind, .. } = resource;
        let Metadata { name, namespace, labels, .. } = metadata;
        match kind {
            Kind::Pod(pod) => Some(Self { kind: "Pod", name, namespace, labels, spec: &pod.spec }),
            Kind::Deployment(deployment) => Some(Self {
                kind: "Deployment",
                name,
                namespace,
                labels: &deployment.template.labels,
                spec: &deployment.spec,
            }),
            _ => None,
        }
    }

    /// `Deployment shop/orders`.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace, self.name)
    }

    /// As whom it is asked, at `port` or its first declared one.
    #[must_use]
    pub fn destination(&self, port: Option<u16>) -> Destination {
        let declared = self.spec.containers.iter().flat_map(|container| &container.ports).next();
        let port = port.or(declared.map(|port| port.number.value)).unwrap_or(8080);
        let workload = Workload {
            namespace: self.namespace.to_owned(),
            labels: self.labels.clone(),
            service_account: self.spec.service_account.clone(),
            port,
            protocol: Protocol::Http,
        };
        let host = format!("{}.{}.svc.cluster.local", self.name, self.namespace);
        Destination { workload, name: self.title(), host }
    }
}

fn named_port(spec: &PodSpec, name: &str) -> Option<u16> {
    let mut ports = spec.containers.iter().flat_map(|container| &container.ports);
    ports.find(|port| port.name == name).map(|port| port.number.value)
}
