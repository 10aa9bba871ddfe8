//! Who tells: the names that stand on every log line and in the resource of every span.

use std::rc::Rc;

/// The workload beside which this sidecar stands.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// What telemetry calls the workload: never the sidecar's own name, or every hop would look like one service.
    pub service: Rc<str>,
    /// Nobody said so: the service's name was read off the pod's, and the control plane may say better.
    pub guessed: bool,
    /// `deployment.environment.name`.
    pub environment: Rc<str>,
    /// The pod's namespace.
    pub namespace: Rc<str>,
    /// The pod's name.
    pub pod: Rc<str>,
}

/// The workload's name as the pod's name lets it be guessed: without the suffixes that a Deployment's pods get. Holds
/// until the control plane says better.
///
/// ```
/// use douane_proxy::telemetry::origin::service_of_pod;
/// assert_eq!(service_of_pod("orders-7c9f5d6b8-x2x9k"), "orders");
/// assert_eq!(service_of_pod("orders"), "orders");
/// assert_eq!(service_of_pod("order-desk"), "order-desk");
/// ```
#[must_use]
pub fn service_of_pod(pod: &str) -> &str {
    let mut parts = pod.rsplitn(3, '-');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(random), Some(template), Some(name))
            if random.len() == 5 && is_generated(random) && template.len() >= 6 && is_generated(template) =>
        {
            name
        }
        _ => pod,
    }
}

// Kubernetes draws them from letters and digits that form no words.
fn is_generated(part: &str) -> bool {
    part.bytes().all(|byte| b"bcdfghjklmnpqrstvwxz0123456789".contains(&byte))
}
