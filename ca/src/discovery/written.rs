//! What becomes a workload: a pod, or an entry that names something outside of Kubernetes; where each is reached, on which
//! ports, and in which dialect.
//!
//! Pure. Knows not what contradicts it (`assemble` does), nor which law governs it (`laws`).

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use douane_proto::{
    id::{IdError, WorkloadId},
    mesh::{Dialect, Port, Protocol, Workload},
    mtls::MtlsModes,
    policy::Trust,
    resource::{
        self, Located, Metadata, Phase, Pod, Resource, ServicePort, TargetPort, Transport, WorkloadEntry,
    },
    wire,
};

use crate::discovery::{
    index::Governed,
    marks::{INJECT, ISTIO_TLS_MODE, has_sidecar},
    protocols,
    settings::{Marked, Settings},
};

/// Kubernetes puts a Deployment's pods under a ReplicaSet whose name ends in this label's value.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// As what it was written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Written<'a> {
    Pod(&'a Pod),
    Entry(&'a WorkloadEntry),
}

/// A part of the mesh, and where it was written.
pub(super) struct Built<'a> {
    pub(super) resource: &'a Resource,
    pub(super) written: Written<'a>,
    pub(super) workload: Arc<Workload>,
    pub(super) policies: Arc<wire::PolicySet>,
}

impl Built<'_> {
    pub(super) fn governed(&self) -> Governed {
        Governed { workload: Arc::clone(&self.workload), policies: Arc::clone(&self.policies) }
    }
}

impl<'a> Written<'a> {
    /// Its addresses; none where it takes no part (any more).
    pub(super) fn addresses(self) -> Vec<Located<IpAddr>> {
        match self {
            Self::Pod(pod) if matches!(pod.status.phase, Some(Phase::Succeeded | Phase::Failed)) => {
                Vec::new()
            }
            Self::Pod(pod) => pod.status.addresses.clone(),
            Self::Entry(entry) => vec![entry.address.clone()],
        }
    }

    /// The port that `port` of a service leads to.
    pub(super) fn target(self, port: &ServicePort) -> Option<u16> {
        match (self, &port.target) {
            (Self::Pod(_), TargetPort::Number(number)) => Some(*number),
            (Self::Pod(pod), TargetPort::Name(name)) => {
                let mut ports = pod.spec.containers.iter().flat_map(|container| &container.ports);
                let found = ports.find(|port| port.name == *name && port.transport == Transport::Tcp)?;
                Some(found.number.value)
            }
            // Its own word for the service's port goes before the service's.
            (Self::Entry(entry), target) => entry.ports.get(&port.name).copied().or(match target {
                TargetPort::Number(number) => Some(*number),
                TargetPort::Name(name) => entry.ports.get(name).copied(),
            }),
        }
    }

    /// What it is in the mesh; `services` may lead to it.
    ///
    /// # Errors
    /// Its namespace or its account is no part of an identity, or it takes one of ours by name.
    pub(super) fn workload(
        self,
        metadata: &Metadata,
        settings: &Settings,
        services: &[(&Resource, &resource::Service)],
    ) -> Result<Workload, IdError> {
        let trust = settings.mesh.trust();
        let (account, ready) = match self {
            Self::Pod(pod) => (&pod.spec.service_account, is_ready(pod, metadata, settings.marked)),
            Self::Entry(entry) => (&entry.service_account, true),
        };
        let named = metadata.identity().filter(|_| matches!(self, Self::Entry(_)));
        Ok(Workload {
            id: match named {
                Some(id) => foreign(id, trust)?,
                None => WorkloadId::new(trust.local, &metadata.namespace, account)?,
            },
            name: metadata.name.clone(),
            addresses: self.addresses().iter().map(|address| address.value.to_canonical()).collect(),
            dialect: self.dialect(metadata, settings.marked),
            ports: self.ports(metadata, services),
            service_name: service_name(metadata),
            ready,
            labels: metadata.labels.clone(),
            mtls: MtlsModes::default(),
            learned: BTreeMap::new(),
            preserve_case: metadata.preserve_case(),
        })
    }

    /// Has it no network of its own?
    pub(super) fn shares_its_node(self) -> bool {
        matches!(self, Self::Pod(pod) if pod.spec.host_network.is_some())
    }

    // Our own sidecar first: it answers Istio's dialect as well.
    fn dialect(self, metadata: &Metadata, marked: Marked) -> Dialect {
        let is_ours = match (self, marked) {
            (Self::Pod(pod), Marked::ByContainer) => {
                // Rules of redirection in a node's own network would be the node's: no sidecar stands there.
                pod.spec.host_network.is_none() && has_sidecar(pod)
            }
            _ => metadata.label_or_annotation(INJECT) == Some("enabled"),
        };
        if is_ours {
            Dialect::Douane1
        } else if metadata.labels.get(ISTIO_TLS_MODE).is_some_and(|mode| mode == "istio") {
            Dialect::Istio
        } else {
            Dialect::Plain
        }
    }

    // What it declares itself, and what the services that lead here say of the same ports.
    fn ports(self, metadata: &Metadata, services: &[(&Resource, &resource::Service)]) -> Vec<Port> {
        let mut ports: BTreeMap<u16, (String, Vec<Protocol>)> = BTreeMap::new();
        let mut declare = |number: u16, protocol: Protocol, name: &str| {
            ports.entry(number).or_insert_with(|| (name.to_owned(), Vec::new())).1.push(protocol);
        };
        match self {
            Self::Pod(pod) => {
                let declared = pod.spec.containers.iter().flat_map(|container| &container.ports);
                for port in declared.filter(|port| port.transport == Transport::Tcp) {
                    declare(port.number.value, protocols::declared(None, &port.name), &port.name);
                }
            }
            Self::Entry(entry) => {
                for (name, number) in &entry.ports {
                    declare(*number, protocols::declared(None, name), name);
                }
            }
        }
        for (resource, service) in services {
            if !selects(service, &resource.metadata.namespace, metadata) {
                continue;
            }
            for port in service.ports.iter().filter(|port| port.transport == Transport::Tcp) {
                if let Some(number) = self.target(port) {
                    let protocol = protocols::declared(port.app_protocol.as_deref(), &port.name);
                    declare(number, protocol, &port.name);
                }
            }
        }
        let port = |(number, (name, said)): (u16, (String, Vec<Protocol>))| Port {
            number,
            protocol: protocols::agreed(&said),
            name,
        };
        ports.into_iter().map(port).collect()
    }
}

/// Does the service in `namespace` lead to whoever is described so?
pub(super) fn selects(service: &resource::Service, namespace: &str, pod: &Metadata) -> bool {
    !service.selector.is_empty()
        && pod.namespace == namespace
        && service.selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
}

// A file rarely says; Kubernetes says it of every pod, once it is.
fn is_ready(pod: &Pod, metadata: &Metadata, marked: Marked) -> bool {
    match marked {
        Marked::ByLabel => pod.status.ready() != Some(false),
        Marked::ByContainer => pod.status.ready() == Some(true) && !metadata.ending,
    }
}

fn service_name(metadata: &Metadata) -> String {
    let owner = |kind: &str| metadata.owners.iter().find(|owner| owner.kind == kind);
    if let Some(deployment) = owner("Deployment") {
        return deployment.name.clone();
    }
    let hash = metadata.labels.get(TEMPLATE_HASH);
    let by_set =
        owner("ReplicaSet").zip(hash).and_then(|(set, hash)| set.name.strip_suffix(hash)?.strip_suffix('-'));
    by_set.unwrap_or(&metadata.name).to_owned()
}

// Within the mesh an identity lies in its own namespace: whoever may write there must not name another's.
fn foreign(id: WorkloadId, trust: Trust<'_>) -> Result<WorkloadId, IdError> {
    let domain = id.trust_domain();
    if domain != trust.local && !trust.aliases.contains(domain) {
        return Ok(id);
    }
    let reason =
        "douane.io/identity is for other trust domains; in ours, namespace and serviceAccount say who it is";
    Err(IdError::NotSpiffe { text: id.to_string(), reason: reason.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use douane_proto::{
        mesh::{Dialect, Protocol, Workload},
        mtls::MtlsMode,
        resource::parse_file,
        snapshot::{Found, Question},
    };

    use crate::{
        config::Config,
        discovery::{
            assemble::{Assembled, assemble},
            learned::Known,
            settings::{Marked, Settings},
        },
    };

    const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: orders, namespace: shop}
spec:
  clusterIP: 10.96.0.7
  selector: {app: orders}
  ports: [{name: http, port: 80, targetPort: web}, {name: tcp-raw, port: 70, targetPort: 7000}]
---
";
    const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: orders-1, namespace: shop, labels: {app: orders, douane.io/inject: enabled}}
spec:
  serviceAccountName: orders
  containers: [{name: c, image: x, ports: [{name: web, containerPort: 8080}]}]
status: {phase: Running, podIP: 10.77.0.1}
---
";

    fn entry(name: &str, address: &str, label: &str) -> String {
        format!(
            "
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: {name}, namespace: shop}}
spec:
  address: {address}
  ports: {{http: 9080, metrics: 9100}}
  labels: {{app: orders, {label}}}
  serviceAccount: machine
---
"
        )
    }

    fn mesh(text: &str) -> Assembled {
        let resources = parse_file(Path::new("mesh.yaml"), text).unwrap();
        let config = Config::default();
        let settings = Settings {
            mesh: config.mesh(),
            law: config.law(),
            cluster_domain: config.cluster_domain,
            marked: Marked::ByLabel,
        };
        assemble(&[resources], &[], &Known::default(), &settings)
    }

    fn at(mesh: &Assembled, address: &str) -> Found {
        mesh.index.answer(&Question::Address(address.parse().unwrap()), "shop")
    }

    fn workload(mesh: &Assembled, address: &str) -> Workload {
        let Found::Workload(found) = at(mesh, address) else { panic!("{address}: {:?}", at(mesh, address)) };
        Workload::clone(&found)
    }

    #[test]
    fn an_entry_stands_behind_the_service_that_selects_it_beside_the_pods() {
        let istio = "security.istio.io/tlsMode: istio";
        let mesh = mesh(&[SERVICE, POD, &entry("vm", "10.9.0.7", istio)].concat());
        assert!(mesh.errors().is_empty(), "{:?}", mesh.errors());

        let found = workload(&mesh, "10.9.0.7");
        // Its identity lies in its own namespace.
        assert_eq!(found.id.to_string(), "spiffe://cluster.local/ns/shop/sa/machine");
        assert_eq!((found.dialect, found.ready), (Dialect::Istio, true));
        assert_eq!((found.protocol(9080), found.protocol(7000)), (Protocol::Http1, Protocol::Tcp));
        assert_eq!(found.protocol(9100), Protocol::Undeclared);
        let Found::Service(service) = at(&mesh, "10.96.0.7") else { panic!("a service") };
        let targets: Vec<_> = service
            .endpoints
            .iter()
            .map(|endpoint| (endpoint.workload.name.as_str(), endpoint.targets[&80], endpoint.targets[&70]))
            .collect();
        assert_eq!(targets, [("orders-1", 8080, 7000), ("vm", 9080, 7000)]);
    }

    #[test]
    fn an_entry_may_be_somebody_of_another_trust_domain_and_nobody_else_of_ours() {
        let at_partner = |identity: &str| {
            let annotated = format!("namespace: shop, annotations: {{douane.io/identity: '{identity}'}}");
            entry("vm", "10.9.0.7", "douane.io/inject: enabled").replacen("namespace: shop", &annotated, 1)
        };
        let foreign = "spiffe://partner.example/ns/bank/sa/till";
        let found = workload(&mesh(&at_partner(foreign)), "10.9.0.7");
        assert_eq!((found.id.to_string().as_str(), found.dialect), (foreign, Dialect::Douane1));

        let ours = mesh(&at_partner("spiffe://cluster.local/ns/bank/sa/till"));
        assert!(matches!(at(&ours, "10.9.0.7"), Found::Unknown));
        assert!(ours.errors()[0].contains("for other trust domains"), "{:?}", ours.errors());
        let broken = parse_file(Path::new("mesh.yaml"), &at_partner("partner.example/till"));
        assert!(format!("{broken:?}").contains("spiffe://partner.example/ns/shop/sa/orders"), "{broken:?}");
    }

    #[test]
    fn labels_tell_whose_sidecar_an_entry_has_and_the_law_sees_them() {
        for (label, dialect) in [
            ("security.istio.io/tlsMode: istio", Dialect::Istio),
            ("douane.io/inject: enabled", Dialect::Douane1),
            ("tier: one", Dialect::Plain),
        ] {
            assert_eq!(workload(&mesh(&entry("vm", "10.9.0.7", label)), "10.9.0.7").dialect, dialect);
        }
        let law = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: open, namespace: shop}
spec: {selector: {matchLabels: {tier: one}}, mtls: {mode: PERMISSIVE}}
";
        let found = workload(&mesh(&(entry("vm", "10.9.0.7", "tier: one") + law)), "10.9.0.7");
        assert_eq!(found.mtls.of(9080), MtlsMode::Permissive);
    }

    #[test]
    fn an_entry_takes_no_address_of_a_pod_or_a_service_and_goes_before_a_service_entry() {
        let outside = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: out, namespace: shop}
spec: {hosts: [vm.example.com], addresses: [10.9.0.7], ports: [{number: 443, name: tls}], resolution: STATIC}
---
";
        let entries = ["10.77.0.1", "10.96.0.7", "10.9.0.7", "10.9.0.7"];
        let entries: Vec<_> =
            entries.iter().enumerate().map(|(at, ip)| entry(&format!("vm-{at}"), ip, "a: b")).collect();
        let mesh = mesh(&[&entries.concat(), outside, SERVICE, POD].concat());

        assert_eq!(workload(&mesh, "10.77.0.1").name, "orders-1");
        assert_eq!(workload(&mesh, "10.9.0.7").name, "vm-2");
        let Found::Service(service) = at(&mesh, "10.96.0.7") else { panic!("a service") };
        assert_eq!(service.endpoints.len(), 2, "the pod, and the one entry");
        assert_eq!(mesh.errors().len(), 4, "{:#?}", mesh.errors());
        for (error, line) in mesh.errors().iter().zip([6, 16, 36]) {
            assert!(error.starts_with(&format!("mesh.yaml:{line}: WorkloadEntry shop/vm-")), "{error}");
            assert!(error.contains("belongs to the mesh already, see mesh.yaml:"), "{error}");
        }
        assert!(mesh.errors()[3].contains("ServiceEntry shop/out"), "{}", mesh.errors()[3]);
    }
}
