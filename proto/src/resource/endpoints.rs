//! `EndpointSlice`: addresses behind a service that names no pods itself, such as the API server's own. Kubernetes makes them
//! for services that do, too; those say what the pods say already.

use std::net::IpAddr;

use super::service::Transport;
use crate::yaml::{Cursor, Fields, Flaw, Located, bounded};

/// Kubernetes' own bound.
const MAX_ENDPOINTS: usize = 1000;

/// An `EndpointSlice`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Its addresses; none where they are names (`addressType: FQDN`), which Kubernetes itself does not resolve either.
    pub endpoints: Vec<SliceEndpoint>,
    /// The ports of them all.
    pub ports: Vec<SlicePort>,
}

/// Who takes what is sent to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Where. Kubernetes reads the first one only.
    pub address: Located<IpAddr>,
    /// Does it take new traffic?
    pub ready: bool,
    /// Does it still answer, though it is about to end?
    pub ending: bool,
}

/// A port of the endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    /// As the service's port is called; or empty.
    pub name: String,
    /// Its number.
    pub number: u16,
    /// TCP, or what else.
    pub transport: Transport,
}

impl EndpointSlice {
    pub(super) fn read(document: &Fields<'_>) -> Result<Self, Flaw> {
        let at = document.required("addressType")?;
        let has_addresses = match at.text()?.as_str() {
            "IPv4" | "IPv6" => true,
            "FQDN" => false,
            other => {
                return Err(at.flaw(format!("addressType is {:?}", bounded(other)), "write IPv4 or IPv6"));
            }
        };
        let endpoints = document.read("endpoints", |at| at.list())?;
        if let Some(at) = endpoints.get(MAX_ENDPOINTS) {
            let what = format!("{} endpoints are too many", endpoints.len());
            return Err(at.flaw(what, "1000 are the most; write several slices"));
        }
        let endpoints = endpoints.iter().filter(|_| has_addresses).map(SliceEndpoint::read);
        Ok(Self {
            endpoints: endpoints.collect::<Result<_, _>>()?,
            ports: document.read("ports", |at| {
                let ports = at.list()?;
                ports.iter().filter_map(|at| SlicePort::read(at).transpose()).collect()
            })?,
        })
    }
}

impl SliceEndpoint {
    fn read(at: &Cursor<'_>) -> Result<Self, Flaw> {
        let fields = at.fields()?;
        let addresses = fields.required("addresses")?;
        let all = addresses.list()?;
        let first = all.first().ok_or_else(|| addresses.flaw("there is no address", "write one"))?;
        let address = first.address()?;
        refuse_own(first, address.value)?;
        let conditions = fields.optional("conditions")?.map(|at| at.fields()).transpose()?;
        let says = |key: &'static str| -> Result<Option<bool>, Flaw> {
            let Some(conditions) = &conditions else { return Ok(None) };
            // Kubernetes writes null where it does not know.
            conditions.optional(key)?.map(|at| at.boolean()).transpose()
        };
        // Unknown is ready, and ready is serving, as Kubernetes reads it.
        let ready = says("ready")?.unwrap_or(true);
        let serving = says("serving")?.unwrap_or(ready);
        let ending = says("terminating")?.unwrap_or(false);
        Ok(Self { address, ready: ready && !ending, ending: serving && ending })
    }
}

impl SlicePort {
    // A port without a number means all of them, which nobody can be told of.
    fn read(at: &Cursor<'_>) -> Result<Option<Self>, Flaw> {
        let fields = at.fields()?;
        let Some(number) = fields.optional("port")? else { return Ok(None) };
        Ok(Some(Self {
            name: fields.read("name", |at| at.text())?,
            number: number.port()?,
            transport: fields.read("protocol", |at| Transport::read(&at))?,
        }))
    }
}

// Kubernetes refuses them as well: whoever may write endpoints would reach what listens for its own machine only.
fn refuse_own(at: &Cursor<'_>, address: IpAddr) -> Result<(), Flaw> {
    let address = address.to_canonical();
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    if is_link_local || address.is_loopback() || address.is_unspecified() || address.is_multicast() {
        let what = format!("{address} leads to one's own machine or link, or to many");
        return Err(at.flaw(what, "write the address of one other machine"));
    }
    Ok(())
}
