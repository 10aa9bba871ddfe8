//! `ServiceEntry`: hosts outside the mesh that pods may talk to. Resolution `NONE`, and `STATIC` by addresses; what else
//! Istio knows is refused by name until it is implemented.

use std::net::IpAddr;

use crate::yaml::{Cursor, Fields, Flaw, Located, bounded};

/// A `ServiceEntry`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceEntry {
    /// Its hosts, lower case; one at least.
    pub hosts: Vec<Located<String>>,
    /// Its addresses; the original destination selects the entry by them.
    pub addresses: Vec<Located<IpAddr>>,
    /// Its ports; one at least.
    pub ports: Vec<EntryPort>,
}

/// A port of a `ServiceEntry`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryPort {
    /// Its name.
    pub name: String,
    /// Its number.
    pub number: Located<u16>,
    /// Its `protocol`, such as `HTTP` or `TLS`, as written.
    pub protocol: Option<String>,
}

impl ServiceEntry {
    pub(super) fn read(document: &Fields<'_>) -> Result<Self, Flaw> {
        let spec = document.required("spec")?;
        let fields = spec.fields()?;
        refuse_unimplemented(&fields)?;
        let hosts = fields.required("hosts")?;
        let ports = fields.required("ports")?;
        let mut entry = Self {
            hosts: hosts.list()?.iter().map(host).collect::<Result<_, _>>()?,
            addresses: fields.read("addresses", |at| at.list()?.iter().map(address).collect())?,
            ports: ports.list()?.iter().map(EntryPort::read).collect::<Result<_, _>>()?,
        };
        let resolution = fields.optional("resolution")?;
        let endpoints = fields.read("endpoints", |at| at.list()?.iter().map(endpoint).collect())?;
        fields.end()?;

        if entry.hosts.is_empty() {
            return Err(hosts.flaw("spec.hosts is empty", "name at least one host"));
        }
        if entry.ports.is_empty() {
            return Err(ports.flaw("spec.ports is empty", "name the ports that may be used"));
        }
        entry.addresses = resolve(&spec, resolution.as_ref(), entry.addresses, endpoints)?;
        Ok(entry)
    }
}

fn refuse_unimplemented(fields: &Fields<'_>) -> Result<(), Flaw> {
    if let Some(location) = fields.optional("location")? {
        match location.text()?.as_str() {
            "MESH_EXTERNAL" => {}
            other => {
                let what = format!("spec.location {:?} is not implemented yet", bounded(other));
                return Err(location.unsupported(what, "write MESH_EXTERNAL, or leave it out"));
            }
        }
    }
    if let Some(export) = fields.optional("exportTo")? {
        return Err(export.unsupported(
            "spec.exportTo is not implemented yet",
            "remove it: an entry counts in its own namespace, one of the root namespace everywhere",
        ));
    }
    for key in ["workloadSelector", "subjectAltNames"] {
        if let Some(at) = fields.optional(key)? {
            return Err(at.unsupported(format!("spec.{key} is not implemented yet"), "remove it"));
        }
    }
    Ok(())
}

// STATIC: the endpoints are where it leads to. They are dialled as the original destination, so that both must agree.
fn resolve(
    spec: &Cursor<'_>,
    resolution: Option<&Cursor<'_>>,
    addresses: Vec<Located<IpAddr>>,
    endpoints: Vec<Located<IpAddr>>,
) -> Result<Vec<Located<IpAddr>>, Flaw> {
    let at = resolution.unwrap_or(spec);
    match resolution.map(Cursor::text).transpose()?.as_deref() {
        None | Some("NONE") if !endpoints.is_empty() => Err(
            at.flaw("endpoints need spec.resolution STATIC", "write resolution: STATIC, or remove endpoints")
        ),
        None | Some("NONE") if addresses.is_empty() => Err(at.unsupported(
            "an entry of resolution NONE without addresses is not implemented yet",
            "add spec.addresses with the addresses of the host",
        )),
        None | Some("NONE") => Ok(addresses),
        Some("STATIC") if addresses.is_empty() && endpoints.is_empty() => {
            Err(at.flaw("resolution STATIC without any address", "add spec.addresses or spec.endpoints"))
        }
        Some("STATIC") if addresses.is_empty() => Ok(endpoints),
        Some("STATIC") => {
            match endpoints.iter().find(|end| !addresses.iter().any(|a| a.value == end.value)) {
                None => Ok(addresses),
                Some(end) => {
                    let what = format!(
                        "endpoint {} is none of spec.addresses, which is not implemented yet",
                        end.value
                    );
                    Err(Flaw {
                        line: end.line,
                        ..at.unsupported(what, "name the same addresses in both, or only one")
                    })
                }
            }
        }
        Some(other) => Err(at.unsupported(
            format!("spec.resolution {:?} is not implemented yet", bounded(other)),
            "write NONE or STATIC, with addresses",
        )),
    }
}

fn host(at: &Cursor<'_>) -> Result<Located<String>, Flaw> {
    let text = at.text()?.to_ascii_lowercase();
    if text.contains('*') {
        return Err(at.unsupported(
            format!("the wildcard host {:?} is not implemented yet", bounded(&text)),
            "name each host",
        ));
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if text.is_empty() || text.len() > 253 || !text.bytes().all(legal) {
        let what = format!("{} is {:?}, which is no host name", at.name(), bounded(&text));
        return Err(at.flaw(what, "write a name such as api.example.com, without scheme and port"));
    }
    Ok(Located { value: text, line: at.line() })
}

fn address(at: &Cursor<'_>) -> Result<Located<IpAddr>, Flaw> {
    let text = at.text()?;
    match text.split_once('/') {
        None => at.address(),
        Some(_) => Err(at.unsupported(
            format!("{} is the range {:?}; ranges are not implemented yet", at.name(), bounded(&text)),
            "name each address",
        )),
    }
}

fn endpoint(at: &Cursor<'_>) -> Result<Located<IpAddr>, Flaw> {
    let fields = at.fields()?;
    let address = fields.required("address")?;
    let read = address
        .address()
        .map_err(|flaw| address.unsupported(flaw.what, "an endpoint's address must be an IP address"))?;
    fields.end()?;
    Ok(read)
}

impl EntryPort {
    fn read(at: &Cursor<'_>) -> Result<Self, Flaw> {
        let fields = at.fields()?;
        let number = fields.required("number")?;
        if let Some(target) = fields.optional("targetPort")?
            && target.port()? != number.port()?
        {
            return Err(target.unsupported(
                format!("{} differs from its number, which is not implemented yet", target.name()),
                "remove targetPort",
            ));
        }
        let port = Self {
            name: fields.read("name", |at| at.text())?,
            number: Located { value: number.port()?, line: number.line() },
            protocol: fields.optional("protocol")?.map(|at| at.text()).transpose()?,
        };
        fields.end()?;
        Ok(port)
    }
}
