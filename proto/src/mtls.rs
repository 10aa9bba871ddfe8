//! What a sidecar demands of connections to its pod: mutual TLS, or, while a mesh is being migrated, plaintext as well.
//!
//! Knows not who says so ([`crate::law`] resolves `PeerAuthentication`), nor how it is enforced (`proxy/inbound`).

use std::collections::BTreeMap;

use crate::wire;

/// Who may connect to a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MtlsMode {
    /// A connection without a peer's certificate is refused; the default.
    #[default]
    Strict,
    /// Plaintext is taken as well; such a peer has no identity.
    Permissive,
    /// Plaintext only.
    Disable,
}

/// The mode of each port of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MtlsModes {
    /// Of ports that `ports` does not name.
    pub otherwise: MtlsMode,
    /// Of ports of the pod.
    pub ports: BTreeMap<u16, MtlsMode>,
}

impl MtlsMode {
    /// May a peer with this proof, or without one, connect?
    #[must_use]
    pub fn admits(self, is_mutual_tls: Proof) -> bool {
        match (self, is_mutual_tls) {
            (Self::Strict, Proof::Certificate)
            | (Self::Disable, Proof::Plaintext)
            | (Self::Permissive, _) => true,
            (Self::Strict, Proof::Plaintext) | (Self::Disable, Proof::Certificate) => false,
        }
    }

    /// As Istio writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Strict => "STRICT",
            Self::Permissive => "PERMISSIVE",
            Self::Disable => "DISABLE",
        }
    }
}

/// What a peer shows of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// A certificate, in a mutual TLS handshake.
    Certificate,
    /// Nothing.
    Plaintext,
}

impl MtlsModes {
    /// The mode of a port of the pod.
    #[must_use]
    pub fn of(&self, port: u16) -> MtlsMode {
        self.ports.get(&port).copied().unwrap_or(self.otherwise)
    }
}

impl From<MtlsMode> for wire::MtlsMode {
    fn from(mode: MtlsMode) -> Self {
        match mode {
            MtlsMode::Strict => Self::Strict,
            MtlsMode::Permissive => Self::Permissive,
            MtlsMode::Disable => Self::Disable,
        }
    }
}

impl From<&MtlsModes> for wire::MtlsModes {
    fn from(modes: &MtlsModes) -> Self {
        let ports =
            modes.ports.iter().map(|(port, mode)| (u32::from(*port), wire::MtlsMode::from(*mode).into()));
        Self { otherwise: wire::MtlsMode::from(modes.otherwise).into(), ports: ports.collect() }
    }
}

impl From<wire::MtlsModes> for MtlsModes {
    fn from(modes: wire::MtlsModes) -> Self {
        let ports = modes.ports.into_iter();
        let port = |(port, mode): (u32, i32)| Some((u16::try_from(port).ok()?, read(mode)));
        Self { otherwise: read(modes.otherwise), ports: ports.filter_map(port).collect() }
    }
}

// A mode of a later version: the strict one is the default of doubt.
fn read(mode: i32) -> MtlsMode {
    match wire::MtlsMode::try_from(mode) {
        Ok(wire::MtlsMode::Permissive) => MtlsMode::Permissive,
        Ok(wire::MtlsMode::Disable) => MtlsMode::Disable,
        Ok(wire::MtlsMode::Strict) | Err(_) => MtlsMode::Strict,
    }
}
