//! Which workloads a policy governs.

use std::collections::BTreeMap;

/// Namespace and labels by which a policy selects workloads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    /// The policy's own namespace.
    pub namespace: String,
    /// Labels that a workload must all have; empty selects every workload of the namespace.
    pub selector: BTreeMap<String, String>,
}

impl Scope {
    /// Does the policy govern a workload of `namespace` with `labels`? Policies of the root namespace select in every
    /// namespace.
    ///
    /// ```
    /// use douane_proto::policy::Scope;
    /// let scope = Scope { namespace: "shop".into(), selector: [("app".into(), "orders".into())].into() };
    /// let labels = [("app".to_owned(), "orders".to_owned()), ("tier".to_owned(), "2".to_owned())].into();
    /// assert!(scope.selects("shop", &labels, "istio-system"));
    /// assert!(!scope.selects("other", &labels, "istio-system"));
    /// ```
    #[must_use]
    pub fn selects(&self, namespace: &str, labels: &BTreeMap<String, String>, root_namespace: &str) -> bool {
        (self.namespace == namespace || self.namespace == root_namespace)
            && self.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}
