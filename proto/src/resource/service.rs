//! `Service`: names, virtual addresses and ports in front of pods.

use std::{collections::BTreeMap, net::IpAddr};

use crate::yaml::{Cursor, Fields, Flaw, Located, bounded};

/// A `Service`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The labels of its pods; empty when it selects none by itself.
    pub selector: BTreeMap<String, String>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Its virtual addresses.
    pub cluster_ip: ClusterIp,
    /// Of type `ExternalName`: an alias in DNS of this name, and nothing else.
    pub alias_of: Option<String>,
}

/// The virtual addresses of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterIp {
    /// None is written; whoever runs the mesh allocates some.
    Unallocated,
    /// `None`: it has none and wants none.
    Headless,
    /// These.
    Given(Vec<Located<IpAddr>>),
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name, or empty.
    pub name: String,
    /// Its number.
    pub number: Located<u16>,
    /// The port of the pods.
    pub target: TargetPort,
    /// `appProtocol`.
    pub app_protocol: Option<String>,
    /// TCP, or what else.
    pub transport: Transport,
}

/// The port of the pods that a service port leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    /// By number.
    Number(u16),
    /// By the name of a container's port.
    Name(String),
}

/// The `protocol` of a Kubernetes port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// The default, and the only one that the mesh carries.
    #[default]
    Tcp,
    /// Datagrams; not the mesh's.
    Udp,
    /// Not the mesh's.
    Sctp,
}

impl Service {
    pub(super) fn read(document: &Fields<'_>) -> Result<Self, Flaw> {
        let fields = document.required("spec")?.fields()?;
        let alias_of = match fields.optional("type")? {
            Some(kind) => alias_of(&kind, &fields)?,
            None => None,
        };
        Ok(Self {
            alias_of,
            selector: fields.read("selector", |at| at.text_map())?,
            ports: fields.read("ports", |at| at.list()?.iter().map(ServicePort::read).collect())?,
            cluster_ip: ClusterIp::read(&fields)?,
        })
    }
}

fn alias_of(kind: &Cursor<'_>, spec: &Fields<'_>) -> Result<Option<String>, Flaw> {
    match kind.text()?.as_str() {
        "ClusterIP" | "NodePort" | "LoadBalancer" => Ok(None),
        "ExternalName" => spec.required("externalName")?.text().map(Some),
        other => Err(kind.flaw(
            format!("spec.type is {:?}", bounded(other)),
            "write ClusterIP, NodePort, LoadBalancer or ExternalName, or leave it out",
        )),
    }
}

impl ClusterIp {
    fn read(fields: &Fields<'_>) -> Result<Self, Flaw> {
        let mut written = Vec::new();
        written.extend(fields.optional("clusterIP")?);
        if let Some(all) = fields.optional("clusterIPs")? {
            written.extend(all.list()?);
        }
        let mut given: Vec<Located<IpAddr>> = Vec::new();
        for at in written {
            match at.text()?.as_str() {
                "None" => return Ok(Self::Headless),
                "" => {}
                _ => {
                    let address = at.address()?;
                    if !given.iter().any(|known| known.value == address.value) {
                        given.push(address);
                    }
                }
            }
        }
        Ok(if given.is_empty() { Self::Unallocated } else { Self::Given(given) })
    }
}

impl ServicePort {
    fn read(at: &Cursor<'_>) -> Result<Self, Flaw> {
        let fields = at.fields()?;
        let number_at = fields.required("port")?;
        let number = number_at.port()?;
        let target = match fields.optional("targetPort")? {
            None => TargetPort::Number(number),
            Some(at) => match at.text() {
                Ok(name) => TargetPort::Name(name),
                Err(_) => TargetPort::Number(at.port()?),
            },
        };
        Ok(Self {
            name: fields.read("name", |at| at.text())?,
            number: Located { value: number, line: number_at.line() },
            target,
            app_protocol: fields.optional("appProtocol")?.map(|at| at.text()).transpose()?,
            transport: fields.read("protocol", |at| Transport::read(&at))?,
        })
    }
}

impl Transport {
    pub(super) fn read(at: &Cursor<'_>) -> Result<Self, Flaw> {
        match at.text()?.as_str() {
            "TCP" => Ok(Self::Tcp),
            "UDP" => Ok(Self::Udp),
            "SCTP" => Ok(Self::Sctp),
            other => Err(at.flaw(
                format!("{} is {:?}", at.name(), bounded(other)),
                "write TCP, UDP or SCTP, or leave it out for TCP",
            )),
        }
    }
}
