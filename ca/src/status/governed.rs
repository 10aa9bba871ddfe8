//! Whom a law governs, as far as the cluster has somebody.

use std::collections::{BTreeMap, HashMap};

use douane_proto::{
    mesh::{Dialect, Workload},
    policy::Scope,
    resource::{Kind, Resource},
};

/// All workloads, by namespace.
pub(super) struct Census<'a> {
    by_namespace: HashMap<&'a str, Vec<&'a Workload>>,
    /// Whose laws count everywhere.
    root: &'a str,
}

/// Whom a law governs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Governed {
    /// A gateway or a waypoint, which we are not.
    Elsewhere,
    /// So many workloads; of them so many without a sidecar of ours or Istio's.
    Workloads { all: usize, bare: usize },
}

impl<'a> Census<'a> {
    pub(super) fn new(workloads: impl Iterator<Item = &'a Workload>, root: &'a str) -> Self {
        let mut by_namespace: HashMap<&str, Vec<&Workload>> = HashMap::new();
        for workload in workloads {
            by_namespace.entry(workload.id.namespace()).or_default().push(workload);
        }
        Self { by_namespace, root }
    }

    /// Whom the law governs; `None` for what is no law.
    pub(super) fn of(&self, law: &Resource) -> Option<Governed> {
        let (scope, is_elsewhere) = match &law.kind {
            Kind::AuthorizationPolicy(law) => (&law.attachment.scope, !law.attachment.targets.is_empty()),
            Kind::RequestAuthentication(law) => (&law.attachment.scope, !law.attachment.targets.is_empty()),
            Kind::PeerAuthentication(law) => (&law.scope, false),
            _ => return None,
        };
        if is_elsewhere {
            return Some(Governed::Elsewhere);
        }
        let is_void = matches!(law.kind, Kind::PeerAuthentication(_))
            && scope.namespace == self.root
            && !scope.selector.is_empty();
        let (mut all, mut bare) = (0, 0);
        for workload in self.within(scope).filter(|it| !is_void && self.selects(scope, &it.labels, it)) {
            all += 1;
            bare += usize::from(workload.dialect == Dialect::Plain);
        }
        Some(Governed::Workloads { all, bare })
    }

    fn within<'s>(&'s self, scope: &'s Scope) -> impl Iterator<Item = &'a Workload> + 's {
        let everywhere = scope.namespace == self.root;
        let own = self.by_namespace.get(scope.namespace.as_str()).filter(|_| !everywhere);
        let all = self.by_namespace.values().filter(move |_| everywhere);
        own.into_iter().chain(all).flatten().copied()
    }

    fn selects(&self, scope: &Scope, labels: &BTreeMap<String, String>, workload: &Workload) -> bool {
        scope.selects(workload.id.namespace(), labels, self.root)
    }
}
