//! From a destination and what the mesh knows of it to where it leads. Pure.
//!
//! Knows no sockets and chooses no endpoint: next is `balance`.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use douane_proto::{
    id::WorkloadId,
    mesh::{Dialect, Endpoint, External, Port, Protocol, Service, Workload},
    mtls::MtlsMode,
    snapshot::{Found, OutboundMode},
};

use crate::{exchange::names::Names, refusal::Refusal};

/// Where a destination leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// `namespace/name` of the service or entry.
    pub service: Option<Arc<str>>,
    /// What its port was declared to speak.
    pub protocol: Protocol,
    /// What its port was seen to speak, where nobody declared it.
    pub learned: Protocol,
    /// How one of its endpoints at least wants to hear the names of headers.
    pub names: Names,
    /// How it is reached.
    pub reach: Reach,
}

/// How a destination is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// To sidecars, each of which must prove its identity unless its port takes plaintext only; never empty.
    Mesh(Vec<Candidate>),
    /// Registered without a sidecar: the application's own bytes; never empty.
    Plain(Vec<SocketAddr>),
    /// Named by a `ServiceEntry`, or allowed by `ALLOW_ANY`.
    Outside(SocketAddr),
}

/// An endpoint in the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The pod's own address and port.
    pub address: SocketAddr,
    /// Who must answer there.
    pub id: WorkloadId,
    /// Ours or another's.
    pub place: Place,
    /// The server name that an Istio sidecar hears, of the service that was asked for.
    pub server_name: Option<Arc<str>>,
}

/// Whose pod it is, and how its sidecar wants to be spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// Another pod: mutual TLS.
    Peer,
    /// Another pod, with a sidecar of an Istio mesh: mutual TLS, and Istio's dialect inside it.
    Istio,
    /// This pod: decided here, without TLS.
    Own,
    /// Another pod whose port takes plaintext only, as its `PeerAuthentication` (DISABLE) says.
    Open,
}

/// What this sidecar stands for.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The own pod.
    pub own: &'a Workload,
    /// What happens to destinations that no resource names.
    pub outbound: OutboundMode,
}

/// Where `destination` leads by what was `found` at its address.
///
/// # Errors
/// [`Refusal`]: unknown, no such port, nobody ready, or only plaintext left of a service in the mesh.
pub fn resolve(destination: SocketAddr, found: &Found, view: View<'_>) -> Result<Route, Refusal> {
    match found {
        Found::Workload(workload) => Ok(to_workload(destination, workload, view)),
        Found::Service(service) => to_service(destination, service, view),
        Found::External(external) => to_external(destination, external),
        Found::Unknown if view.outbound == OutboundMode::AllowAny => Ok(Route {
            service: None,
            protocol: Protocol::Undeclared,
            learned: Protocol::Undeclared,
            names: Names::Titled,
            reach: Reach::Outside(destination),
        }),
        Found::Unknown => Err(unknown(destination, None, view.own)),
    }
}

/// The refusal of a destination that nobody named, with the YAML that would.
#[must_use]
pub fn unknown(destination: SocketAddr, host: Option<&str>, own: &Workload) -> Refusal {
    let named = host.map_or_else(|| destination.to_string(), |host| format!("{host} ({destination})"));
    Refusal::UnknownDestination {
        destination: named,
        hint: service_entry(destination, host, own.id.namespace()),
    }
}

/// The port of an entry that a host or server name selected.
///
/// # Errors
/// [`Refusal::UnknownPort`].
pub fn external_port(external: &External, port: u16) -> Result<&Port, Refusal> {
    external.port(port).ok_or_else(|| Refusal::UnknownPort {
        owner: format!("ServiceEntry {}/{}", external.namespace, external.name),
        port,
    })
}

fn to_workload(destination: SocketAddr, workload: &Workload, view: View<'_>) -> Route {
    let address = asked(workload, destination);
    let reach = if is_meshed(workload, view.own) {
        Reach::Mesh(vec![to_candidate(workload, address, view.own)])
    } else {
        Reach::Plain(vec![address])
    };
    let port = destination.port();
    let (protocol, learned) = (workload.protocol(port), workload.learned(port));
    Route { service: None, protocol, learned, names: Names::at(workload, port), reach }
}

fn to_service(destination: SocketAddr, service: &Service, view: View<'_>) -> Result<Route, Refusal> {
    let name = format!("{}/{}", service.namespace, service.name);
    let port = service
        .port(destination.port())
        .ok_or_else(|| Refusal::UnknownPort { owner: format!("service {name}"), port: destination.port() })?;
    let behind = |endpoint: &&Endpoint| endpoint.targets.contains_key(&port.number);
    let meshed = service.endpoints.iter().any(|endpoint| is_meshed(&endpoint.workload, view.own));
    let ready: Vec<&Endpoint> =
        service.endpoints.iter().filter(|endpoint| endpoint.workload.ready).filter(behind).collect();
    let protocol = declared(port, &ready);
    let learned = learned(port, protocol, &ready);
    let names = names(port, &ready);
    let addressed = ready.iter().filter_map(|endpoint| {
        let target = *endpoint.targets.get(&port.number)?;
        let address = same_family(&endpoint.workload.addresses, destination.ip())?;
        Some((&endpoint.workload, SocketAddr::new(address, target)))
    });
    let reach = if meshed {
        // One meshed endpoint, ready or not, and plaintext is no choice any more.
        let candidates: Vec<Candidate> = addressed
            .filter(|(workload, _)| is_meshed(workload, view.own))
            .map(|(workload, address)| {
                let candidate = to_candidate(workload, address, view.own);
                let server_name = (candidate.place == Place::Istio).then(|| server_name(service, port));
                Candidate { server_name: server_name.flatten(), ..candidate }
            })
            .collect();
        match (candidates.is_empty(), ready.is_empty()) {
            (false, _) => Reach::Mesh(candidates),
            (true, true) => return Err(Refusal::NoReadyEndpoint(name)),
            (true, false) => return Err(Refusal::UnmeshedFallback(name)),
        }
    } else {
        let addresses: Vec<SocketAddr> = addressed.map(|(_, address)| address).collect();
        if addresses.is_empty() {
            return Err(Refusal::NoReadyEndpoint(name));
        }
        Reach::Plain(addresses)
    };
    Ok(Route { service: Some(name.into()), protocol, learned, names, reach })
}

fn to_external(destination: SocketAddr, external: &External) -> Result<Route, Refusal> {
    let port = external_port(external, destination.port())?;
    Ok(Route {
        service: Some(format!("{}/{}", external.namespace, external.name).into()),
        protocol: port.protocol,
        learned: Protocol::Undeclared,
        names: Names::Titled,
        reach: Reach::Outside(destination),
    })
}

// The service's word first, then the pods'.
fn declared(port: &Port, ready: &[&Endpoint]) -> Protocol {
    if port.protocol != Protocol::Undeclared {
        return port.protocol;
    }
    ready
        .iter()
        .filter_map(|endpoint| Some(endpoint.workload.protocol(*endpoint.targets.get(&port.number)?)))
        .find(|protocol| *protocol != Protocol::Undeclared)
        .unwrap_or_default()
}

// What those speak that have been heard, if it is one thing: replicas are alike, also the one that is new.
fn learned(port: &Port, declared: Protocol, ready: &[&Endpoint]) -> Protocol {
    if declared != Protocol::Undeclared {
        return Protocol::Undeclared;
    }
    let mut heard = ready
        .iter()
        .filter_map(|endpoint| Some(endpoint.workload.learned(*endpoint.targets.get(&port.number)?)))
        .filter(|protocol| *protocol != Protocol::Undeclared);
    let first = heard.next().unwrap_or_default();
    if heard.all(|other| other == first) { first } else { Protocol::Undeclared }
}

fn names(port: &Port, ready: &[&Endpoint]) -> Names {
    let keeps = |endpoint: &&Endpoint| {
        let target = endpoint.targets.get(&port.number);
        target.is_some_and(|target| Names::at(&endpoint.workload, *target) == Names::AsSent)
    };
    if ready.iter().any(keeps) { Names::AsSent } else { Names::Titled }
}

fn asked(workload: &Workload, destination: SocketAddr) -> SocketAddr {
    let ip = destination.ip().to_canonical();
    // The address that was asked for; the pod has it, or it would not have been found.
    let asked = workload.addresses.iter().find(|address| **address == ip);
    SocketAddr::new(asked.copied().unwrap_or(ip), destination.port())
}

// Whatever is said of the own pod: it has a sidecar, and a plain connection to itself would pass by its own law.
fn is_meshed(workload: &Workload, own: &Workload) -> bool {
    let is_own = || workload.addresses.iter().any(|address| own.addresses.contains(address));
    workload.dialect != Dialect::Plain || is_own()
}

fn to_candidate(workload: &Workload, address: SocketAddr, own: &Workload) -> Candidate {
    let place = match workload.mtls.of(address.port()) {
        _ if own.addresses.contains(&address.ip()) => Place::Own,
        MtlsMode::Disable => Place::Open,
        MtlsMode::Strict | MtlsMode::Permissive if workload.dialect == Dialect::Istio => Place::Istio,
        MtlsMode::Strict | MtlsMode::Permissive => Place::Peer,
    };
    Candidate { address, id: workload.id.clone(), place, server_name: None }
}

// As Istio's clients name their clusters. Whoever answers is known by its identity, never by this.
fn server_name(service: &Service, port: &Port) -> Option<Arc<str>> {
    let host = service.hosts.first()?;
    Some(format!("outbound_.{}_._.{host}", port.number).into())
}

fn same_family(addresses: &[IpAddr], like: IpAddr) -> Option<IpAddr> {
    let like = like.to_canonical();
    let same = addresses.iter().find(|address| address.is_ipv4() == like.is_ipv4());
    same.or(addresses.first()).copied()
}

fn service_entry(destination: SocketAddr, host: Option<&str>, namespace: &str) -> String {
    let (ip, port) = (destination.ip(), destination.port());
    let name = host.map_or_else(|| ip.to_string(), str::to_owned).replace(['.', ':', '*'], "-");
    let host = host.map_or_else(|| format!("{name}.outside"), str::to_owned);
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata:\n  name: {name}\n  \
         namespace: {namespace}\nspec:\n  hosts: [\"{host}\"]\n  addresses: [\"{ip}\"]\n  \
         location: MESH_EXTERNAL\n  resolution: NONE\n  ports:\n  - {{number: {port}, name: tcp, protocol: TCP}}\n"
    )
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
