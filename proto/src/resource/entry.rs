//! `WorkloadEntry`: something that runs outside of Kubernetes and is part of the mesh all the same, such as a virtual machine
//! with one of Istio's sidecars. What else Istio knows of it is refused by name until it is implemented.

use std::{collections::BTreeMap, net::IpAddr};

use crate::yaml::{Cursor, Fields, Flaw, Located};

/// A `WorkloadEntry`. Its labels stand among those of its metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadEntry {
    /// Where it is.
    pub address: Located<IpAddr>,
    /// Its ports by the names that services call them.
    pub ports: BTreeMap<String, u16>,
    /// Its service account; `default` where none is written.
    pub service_account: String,
}

impl WorkloadEntry {
    /// Reads it, and the labels of its spec.
    pub(super) fn read(document: &Fields<'_>) -> Result<(Self, BTreeMap<String, String>), Flaw> {
        let fields = document.required("spec")?.fields()?;
        for key in ["network", "locality", "weight"] {
            if let Some(at) = fields.optional(key)? {
                return Err(at.unsupported(format!("spec.{key} is not implemented yet"), "remove it"));
            }
        }
        let address = fields.required("address")?;
        let port = |(name, at): (&str, Cursor<'_>)| Ok((name.to_owned(), at.port()?));
        let account = fields.optional("serviceAccount")?.map(|at| at.object_name()).transpose()?;
        let entry = Self {
            address: address.address().map_err(|flaw| {
                address
                    .unsupported(flaw.what, "write an IP address: names and sockets are not implemented yet")
            })?,
            ports: fields.read("ports", |at| at.entries()?.into_iter().map(port).collect())?,
            service_account: account.unwrap_or_else(|| "default".to_owned()),
        };
        let labels = fields.read("labels", |at| at.text_map())?;
        fields.end()?;
        Ok((entry, labels))
    }
}
