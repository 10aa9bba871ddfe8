//! By what a pod shows that it asks for a sidecar, or has one.
//!
//! Knows not what follows from it (`written`, `missed`).

use douane_proto::resource::Pod;

/// Asks for a sidecar, as label or annotation.
pub(super) const INJECT: &str = "douane.io/inject";
/// Istio's control plane sets it on pods with one of its sidecars, and goes by it itself.
pub(super) const ISTIO_TLS_MODE: &str = "security.istio.io/tlsMode";
/// The name of our own container in a pod.
const SIDECAR: &str = "douane-proxy";

/// Is our own container in the pod?
pub(super) fn has_sidecar(pod: &Pod) -> bool {
    pod.spec.containers.iter().chain(&pod.spec.init_containers).any(|one| one.name.value == SIDECAR)
}
