//! What the mesh is made of: workloads, services with their endpoints, and hosts outside, with their wire conversions.
//!
//! Knows neither YAML (see [`crate::resource`]) nor how a sidecar chooses among them (`proxy/outbound`).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use crate::{
    id::{IdError, TrustDomain, WorkloadId},
    mtls::MtlsModes,
    wire,
};

/// A port's application protocol, as its declaration says (`appProtocol`, or the port's name).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Protocol {
    /// Nobody said; the receiver sniffs.
    #[default]
    Undeclared,
    /// Opaque bytes.
    Tcp,
    /// HTTP/1.0 and 1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// gRPC over HTTP/2.
    Grpc,
}

/// How a workload can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// It has no sidecar: its own bytes, without TLS of ours.
    Plain,
    /// `douane/1`: streams of one HTTP/2 connection under mutual TLS.
    Douane1,
    /// As the sidecars of an Istio mesh speak to each other: mutual TLS, and inside it what the application speaks.
    Istio,
}

/// A declared port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// 1 to 65535.
    pub number: u16,
    /// What it speaks.
    pub protocol: Protocol,
    /// Its name in the declaration, or empty.
    pub name: String,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// What it must prove to be.
    pub id: WorkloadId,
    /// The pod's name.
    pub name: String,
    /// Its IPv4 and IPv6 addresses.
    pub addresses: Vec<IpAddr>,
    /// With or without a sidecar.
    pub dialect: Dialect,
    /// Declared ports of its containers and of the services that select it.
    pub ports: Vec<Port>,
    /// What telemetry calls it: the Deployment's name, or the pod's.
    pub service_name: String,
    /// May it receive new traffic through a service?
    pub ready: bool,
    /// The pod's labels.
    pub labels: BTreeMap<String, String>,
    /// What its sidecar demands of connections.
    pub mtls: MtlsModes,
    /// What its sidecar has seen undeclared ports speak: a hint that saves time. No law looks at it.
    pub learned: BTreeMap<u16, Protocol>,
    /// Ports whose HTTP/1 requests and answers keep the names of headers as they were sent.
    pub preserve_case: BTreeSet<u16>,
}

/// A service: names and virtual addresses in front of endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// All names it is known by, the fully qualified one first, lower case, without port.
    pub hosts: Vec<String>,
    /// Cluster IPs; none when headless.
    pub addresses: Vec<IpAddr>,
    /// Its own ports.
    pub ports: Vec<Port>,
    /// The pods behind it, ready or not.
    pub endpoints: Vec<Endpoint>,
}

/// A pod behind a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The pod.
    pub workload: Arc<Workload>,
    /// Service port to pod port.
    pub targets: BTreeMap<u16, u16>,
}

/// A host outside the mesh that a `ServiceEntry` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// The entry's namespace.
    pub namespace: String,
    /// The entry's name.
    pub name: String,
    /// Its hosts, lower case, without port.
    pub hosts: Vec<String>,
    /// Its addresses; the original destination selects by them.
    pub addresses: Vec<IpAddr>,
    /// The ports that may be used.
    pub ports: Vec<Port>,
}

/// Why a message is no mesh value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MeshError {
    /// Not 4 or 16 bytes.
    #[error("an address of {0} bytes")]
    Address(usize),
    /// Not 1 to 65535.
    #[error("port {0} is out of range")]
    Port(u32),
    /// An enum value this version does not know.
    #[error("unknown {what} {value}")]
    Unknown {
        /// Which enum.
        what: &'static str,
        /// Its number on the wire.
        value: i32,
    },
    /// A required part is absent.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// No valid identity.
    #[error("identity of workload {workload:?}")]
    Identity {
        /// The pod's name.
        workload: String,
        /// What is wrong with it.
        source: IdError,
    },
}

impl Protocol {
    /// Does its declaration promise HTTP?
    #[must_use]
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http1 | Self::Http2 | Self::Grpc)
    }
}

impl Workload {
    /// `namespace/pod`, as the hello and logs name it.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.id.namespace(), self.name)
    }

    /// What its port speaks.
    #[must_use]
    pub fn protocol(&self, port: u16) -> Protocol {
        protocol_of(&self.ports, port)
    }

    /// What its port was seen to speak, where nobody declared it.
    #[must_use]
    pub fn learned(&self, port: u16) -> Protocol {
        match self.protocol(port) {
            Protocol::Undeclared => self.learned.get(&port).copied().unwrap_or_default(),
            _ => Protocol::Undeclared,
        }
    }
}

impl Service {
    /// What its port speaks; `None` when it has no such port.
    #[must_use]
    pub fn port(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|port| port.number == number)
    }
}

impl External {
    /// What its port speaks; `None` when the entry does not name the port.
    #[must_use]
    pub fn port(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|port| port.number == number)
    }
}

fn protocol_of(ports: &[Port], number: u16) -> Protocol {
    ports.iter().find(|port| port.number == number).map(|port| port.protocol).unwrap_or_default()
}

/// An address as the wire carries it.
#[must_use]
pub fn address_to_wire(address: IpAddr) -> Vec<u8> {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// An address from the wire, in canonical form (an IPv4-mapped IPv6 address is IPv4).
///
/// # Errors
/// [`MeshError::Address`] when it is not 4 or 16 bytes long.
pub fn address_from_wire(bytes: &[u8]) -> Result<IpAddr, MeshError> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(Ipv4Addr::from(v4).into());
    }
    let v6 = <[u8; 16]>::try_from(bytes).map_err(|_| MeshError::Address(bytes.len()))?;
    Ok(IpAddr::from(Ipv6Addr::from(v6)).to_canonical())
}

fn addresses_from_wire(list: &[Vec<u8>]) -> Result<Vec<IpAddr>, MeshError> {
    list.iter().map(|bytes| address_from_wire(bytes)).collect()
}

fn addresses_to_wire(list: &[IpAddr]) -> Vec<Vec<u8>> {
    list.iter().copied().map(address_to_wire).collect()
}

fn port_number(number: u32) -> Result<u16, MeshError> {
    u16::try_from(number).ok().filter(|port| *port != 0).ok_or(MeshError::Port(number))
}

impl From<Protocol> for wire::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Undeclared => Self::Undeclared,
            Protocol::Tcp => Self::Tcp,
            Protocol::Http1 => Self::Http1,
            Protocol::Http2 => Self::Http2,
            Protocol::Grpc => Self::Grpc,
        }
    }
}

impl From<&Port> for wire::Port {
    fn from(port: &Port) -> Self {
        Self {
            number: port.number.into(),
            protocol: wire::Protocol::from(port.protocol).into(),
            name: port.name.clone(),
        }
    }
}

impl TryFrom<wire::Port> for Port {
    type Error = MeshError;

    fn try_from(port: wire::Port) -> Result<Self, MeshError> {
        let protocol = protocol_from_wire(port.protocol)?;
        Ok(Self { number: port_number(port.number)?, protocol, name: port.name })
    }
}

fn ports_from_wire(ports: Vec<wire::Port>) -> Result<Vec<Port>, MeshError> {
    ports.into_iter().map(Port::try_from).collect()
}

/// What ports were seen to speak, as the wire carries it.
#[must_use]
pub fn learned_to_wire(learned: &BTreeMap<u16, Protocol>) -> Vec<wire::LearnedProtocol> {
    let one = |(port, protocol): (&u16, &Protocol)| wire::LearnedProtocol {
        port: (*port).into(),
        protocol: wire::Protocol::from(*protocol).into(),
    };
    learned.iter().map(one).collect()
}

/// What ports were seen to speak. What makes no sense is passed over: it is only a hint.
pub fn learned_from_wire(learned: &[wire::LearnedProtocol]) -> impl Iterator<Item = (u16, Protocol)> {
    learned
        .iter()
        .filter_map(|one| Some((port_number(one.port).ok()?, protocol_from_wire(one.protocol).ok()?)))
}

fn protocol_from_wire(protocol: i32) -> Result<Protocol, MeshError> {
    match wire::Protocol::try_from(protocol) {
        Ok(wire::Protocol::Undeclared) => Ok(Protocol::Undeclared),
        Ok(wire::Protocol::Tcp) => Ok(Protocol::Tcp),
        Ok(wire::Protocol::Http1) => Ok(Protocol::Http1),
        Ok(wire::Protocol::Http2) => Ok(Protocol::Http2),
        Ok(wire::Protocol::Grpc) => Ok(Protocol::Grpc),
        Err(_) => Err(MeshError::Unknown { what: "protocol", value: protocol }),
    }
}

impl From<&Workload> for wire::Workload {
    fn from(workload: &Workload) -> Self {
        Self {
            namespace: workload.id.namespace().to_owned(),
            name: workload.name.clone(),
            service_account: workload.id.service_account().to_owned(),
            trust_domain: workload.id.trust_domain().to_string(),
            addresses: addresses_to_wire(&workload.addresses),
            dialect: match workload.dialect {
                Dialect::Plain => wire::Dialect::Plain,
                Dialect::Douane1 => wire::Dialect::Douane1,
                Dialect::Istio => wire::Dialect::Istio,
            }
            .into(),
            ports: workload.ports.iter().map(Into::into).collect(),
            service_name: workload.service_name.clone(),
            ready: workload.ready,
            labels: workload.labels.clone(),
            mtls: Some((&workload.mtls).into()),
            learned: learned_to_wire(&workload.learned),
            preserve_case: workload.preserve_case.iter().copied().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::Workload> for Workload {
    type Error = MeshError;

    fn try_from(workload: wire::Workload) -> Result<Self, MeshError> {
        let id = TrustDomain::parse(&workload.trust_domain)
            .and_then(|domain| WorkloadId::new(&domain, &workload.namespace, &workload.service_account))
            .map_err(|source| MeshError::Identity { workload: workload.name.clone(), source })?;
        let dialect = match wire::Dialect::try_from(workload.dialect) {
            Ok(wire::Dialect::Plain) => Dialect::Plain,
            Ok(wire::Dialect::Istio) => Dialect::Istio,
            // A dialect we do not speak must not become plaintext, nor cost what else was told: ours is all that is
            // offered, and whoever does not speak it is refused.
            Ok(wire::Dialect::Douane1) | Err(_) => Dialect::Douane1,
        };
        Ok(Self {
            id,
            name: workload.name,
            addresses: addresses_from_wire(&workload.addresses)?,
            dialect,
            ports: ports_from_wire(workload.ports)?,
            service_name: workload.service_name,
            ready: workload.ready,
            labels: workload.labels,
            mtls: workload.mtls.map(Into::into).unwrap_or_default(),
            learned: learned_from_wire(&workload.learned).collect(),
            preserve_case: workload.preserve_case.into_iter().map(port_number).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&Service> for wire::Service {
    fn from(service: &Service) -> Self {
        let endpoints = service.endpoints.iter().map(|endpoint| wire::Endpoint {
            workload: Some((&*endpoint.workload).into()),
            targets: endpoint.targets.iter().map(|(from, to)| ((*from).into(), (*to).into())).collect(),
        });
        Self {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
            hosts: service.hosts.clone(),
            addresses: addresses_to_wire(&service.addresses),
            ports: service.ports.iter().map(Into::into).collect(),
            endpoints: endpoints.collect(),
        }
    }
}

impl TryFrom<wire::Service> for Service {
    type Error = MeshError;

    fn try_from(service: wire::Service) -> Result<Self, MeshError> {
        let endpoints = service.endpoints.into_iter().map(|endpoint| {
            let workload = endpoint.workload.ok_or(MeshError::Missing("an endpoint's workload"))?;
            let targets = endpoint.targets.into_iter();
            Ok(Endpoint {
                workload: Arc::new(workload.try_into()?),
                targets: targets
                    .map(|(from, to)| Ok((port_number(from)?, port_number(to)?)))
                    .collect::<Result<_, MeshError>>()?,
            })
        });
        Ok(Self {
            namespace: service.namespace,
            name: service.name,
            hosts: service.hosts,
            addresses: addresses_from_wire(&service.addresses)?,
            ports: ports_from_wire(service.ports)?,
            endpoints: endpoints.collect::<Result<_, MeshError>>()?,
        })
    }
}

impl From<&External> for wire::External {
    fn from(external: &External) -> Self {
        Self {
            namespace: external.namespace.clone(),
            name: external.name.clone(),
            hosts: external.hosts.clone(),
            addresses: addresses_to_wire(&external.addresses),
            ports: external.ports.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::External> for External {
    type Error = MeshError;

    fn try_from(external: wire::External) -> Result<Self, MeshError> {
        Ok(Self {
            namespace: external.namespace,
            name: external.name,
            hosts: external.hosts,
            addresses: addresses_from_wire(&external.addresses)?,
            ports: ports_from_wire(external.ports)?,
        })
    }
}
