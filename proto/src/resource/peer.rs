//! `PeerAuthentication` of `security.istio.io`: which connections a pod takes. Of several that say something about one
//! port, [`crate::law`] picks.
//!
//! What cannot be read is STRICT: nothing is taken that a sound object might have refused.

use std::collections::BTreeMap;

use super::{
    attachment,
    flaws::{Flaws, Part},
    metadata::Metadata,
};
use crate::{
    mtls::MtlsMode,
    policy::Scope,
    yaml::{Cursor, Flaw, bounded},
};

/// A `PeerAuthentication`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// Which pods it governs.
    pub scope: Scope,
    /// What it demands of connections to them; `None` (UNSET): what the next wider scope says.
    pub mode: Option<MtlsMode>,
    /// The same for ports of the pod; `None`: as the pod's other ports.
    pub ports: BTreeMap<u16, Option<MtlsMode>>,
    /// The line of the mode, or of the spec.
    pub line: u32,
}

impl PeerAuthentication {
    /// Reads what follows the metadata.
    pub(super) fn read(spec: &Cursor<'_>, metadata: &Metadata, flaws: &Flaws) -> Self {
        let part = Part::open(spec, flaws);
        let selector = part.read("selector", attachment::selector);
        let mtls_at = part.optional("mtls");
        let line = mtls_at.as_ref().map_or(spec.line(), Cursor::line);
        let mut mode = mtls_at.and_then(|at| mtls(&at, flaws));
        let mut ports = BTreeMap::new();
        if let Some(at) = part.optional("portLevelMtls") {
            ports = match part.kept("portLevelMtls", at.entries()) {
                Some(entries) => read_ports(&part, &entries, flaws),
                None => BTreeMap::new(),
            };
            refuse_ports(&part, &at, &selector, &mut ports);
        }
        if !part.end().is_empty() {
            mode = Some(MtlsMode::Strict);
            ports.retain(|_, mode| *mode == Some(MtlsMode::Strict));
        }
        Self { scope: Scope { namespace: metadata.namespace.clone(), selector }, mode, ports, line }
    }

    /// One that takes nothing without a certificate: what stands in for one that cannot be read.
    #[must_use]
    pub fn strict(scope: Scope) -> Self {
        Self { scope, mode: Some(MtlsMode::Strict), ports: BTreeMap::new(), line: 1 }
    }
}

fn read_ports(
    spec: &Part<'_, '_>,
    entries: &[(&str, Cursor<'_>)],
    flaws: &Flaws,
) -> BTreeMap<u16, Option<MtlsMode>> {
    let mut ports = BTreeMap::new();
    for (key, at) in entries {
        // `08080` beside `8080` would be the same port twice.
        let port = key.parse().ok().filter(|port: &u16| *port != 0 && port.to_string() == *key);
        match port {
            Some(port) => {
                ports.insert(port, mtls(at, flaws));
            }
            None => spec.refuse(
                "portLevelMtls",
                at.flaw(format!("{:?} is no port", bounded(key)), "write a port of the pod, 1 to 65535"),
            ),
        }
    }
    ports
}

// Istio passes over the ports of an object for a whole namespace; what was to be STRICT stays so.
fn refuse_ports(
    spec: &Part<'_, '_>,
    at: &Cursor<'_>,
    selector: &BTreeMap<String, String>,
    ports: &mut BTreeMap<u16, Option<MtlsMode>>,
) {
    if !spec.is_unreadable("portLevelMtls") && ports.is_empty() {
        return spec
            .flaws()
            .add(at.name(), at.flaw("spec.portLevelMtls is empty", "remove it, or name a port"));
    }
    if selector.is_empty() && !spec.is_unreadable("selector") {
        let what = "spec.portLevelMtls holds only for pods that a selector names";
        spec.flaws().add(at.name(), at.flaw(what, "add spec.selector.matchLabels, or remove the ports"));
        ports.retain(|_, mode| *mode == Some(MtlsMode::Strict));
    }
}

// Null, as in `mtls:`, is refused by the reading itself; `{}` is UNSET.
fn mtls(at: &Cursor<'_>, flaws: &Flaws) -> Option<MtlsMode> {
    let part = Part::open(at, flaws);
    let mode = part.read("mode", mode);
    if part.end().is_empty() { mode } else { Some(MtlsMode::Strict) }
}

fn mode(at: &Cursor<'_>) -> Result<Option<MtlsMode>, Flaw> {
    match at.text()?.as_str() {
        "UNSET" => Ok(None),
        "STRICT" => Ok(Some(MtlsMode::Strict)),
        "PERMISSIVE" => Ok(Some(MtlsMode::Permissive)),
        "DISABLE" => Ok(Some(MtlsMode::Disable)),
        other => Err(at.flaw(
            format!("there is no mode {:?}", bounded(other)),
            "write STRICT, PERMISSIVE, DISABLE or UNSET",
        )),
    }
}
