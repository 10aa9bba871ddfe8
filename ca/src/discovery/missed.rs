//! Pods that ought to be in the mesh and are not: made before their namespace was labelled, or while nobody asked us.
//!
//! Pure. The webhook asks the same labels (`install/parts/webhooks.yaml`). Knows not who is told (`metrics`, `admin`).

use std::collections::{BTreeMap, HashMap};

use douane_proto::resource::{Kind, Metadata, Phase, Pod, Resource};
use serde::{Deserialize, Serialize};

use crate::{
    config::SYSTEM_NAMESPACES,
    discovery::marks::{INJECT, ISTIO_TLS_MODE, has_sidecar},
};

/// A pod that ought to have a sidecar and has none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Missed {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Why it has none.
    pub why: Why,
}

/// Why a pod has no sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// Nobody gave it one when it was made.
    NotInjected,
    /// It shares its node's network, which cannot be redirected.
    HostNetwork,
}

impl Why {
    /// As figures call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotInjected => "not-injected",
            Self::HostNetwork => "host-network",
        }
    }

    /// What it means, and what mends it.
    #[must_use]
    pub fn mend(self) -> &'static str {
        match self {
            Self::NotInjected => {
                "it was made before its namespace was labelled, or while no control plane answered the API server; make it \
                 anew: kubectl rollout restart of what it belongs to"
            }
            Self::HostNetwork => {
                "it shares its node's network, which cannot be redirected; do without hostNetwork, or label it \
                 douane.io/inject: disabled to say that it is meant so"
            }
        }
    }
}

/// All of them, by namespace and name.
pub(super) fn missed(objects: &[&Resource]) -> Vec<Missed> {
    let mut namespaces: HashMap<&str, &BTreeMap<String, String>> = HashMap::new();
    for resource in objects.iter().filter(|resource| resource.kind == Kind::Namespace) {
        namespaces.insert(&resource.metadata.name, &resource.metadata.labels);
    }
    let of = |resource: &&Resource| {
        let (Kind::Pod(pod), metadata) = (&resource.kind, &resource.metadata) else { return None };
        let labels = namespaces.get(metadata.namespace.as_str());
        let namespace = labels.and_then(|labels| labels.get(INJECT)).map(String::as_str);
        let why = missing(pod, metadata, namespace)?;
        Some(Missed { namespace: metadata.namespace.clone(), pod: metadata.name.clone(), why })
    };
    let mut all: Vec<_> = objects.iter().filter_map(of).collect();
    all.sort();
    all
}

fn missing(pod: &Pod, metadata: &Metadata, namespace: Option<&str>) -> Option<Why> {
    let is_over = metadata.ending || matches!(pod.status.phase, Some(Phase::Succeeded | Phase::Failed));
    // Another mesh's pod is no pod of ours.
    let is_elsewhere = metadata.labels.get(ISTIO_TLS_MODE).is_some_and(|mode| mode == "istio");
    if is_over || is_elsewhere || !is_wanted(metadata, namespace) || has_sidecar(pod) {
        return None;
    }
    Some(if pod.spec.host_network.is_some() { Why::HostNetwork } else { Why::NotInjected })
}

// As the API server selects whom it asks about, and as we answer.
fn is_wanted(metadata: &Metadata, namespace: Option<&str>) -> bool {
    let label = metadata.labels.get(INJECT).map(String::as_str);
    let annotation = metadata.annotations.get(INJECT).map(String::as_str);
    if SYSTEM_NAMESPACES.contains(&metadata.namespace.as_str())
        || [label, annotation].contains(&Some("disabled"))
    {
        return false;
    }
    match namespace {
        Some("enabled") => true,
        Some("disabled") => false,
        _ => label == Some("enabled"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use douane_proto::resource::read_file;

    use super::*;

    const NAMESPACES: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {douane.io/inject: enabled}}
---
apiVersion: v1
kind: Namespace
metadata: {name: other}
---
apiVersion: v1
kind: Namespace
metadata: {name: closed, labels: {douane.io/inject: disabled}}
---
apiVersion: v1
kind: Namespace
metadata: {name: kube-system, labels: {douane.io/inject: enabled}}
---
";

    fn pod(namespace: &str, name: &str, metadata: &str, spec: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, {metadata}}}\n\
             spec: {{containers: [{{name: app}}], {spec}}}\nstatus: {{phase: Running, podIP: 10.0.0.1}}\n---\n"
        )
    }

    fn found(pods: &[String]) -> Vec<(String, Why)> {
        let (resources, errors) =
            read_file(Path::new("mesh.yaml"), &(NAMESPACES.to_owned() + &pods.concat()));
        assert!(errors.is_empty(), "{errors:?}");
        let all = missed(&resources.iter().collect::<Vec<_>>());
        all.into_iter().map(|one| (format!("{}/{}", one.namespace, one.pod), one.why)).collect()
    }

    #[test]
    fn a_pod_that_was_there_before_the_label_is_missed_and_one_with_a_sidecar_is_not() {
        let sidecar = "initContainers: [{name: douane-proxy, restartPolicy: Always}]";
        let all = [
            pod("shop", "old", "", ""),
            pod("shop", "new", "", sidecar),
            pod("other", "asks", "labels: {douane.io/inject: enabled}", ""),
            pod("shop", "node", "", "hostNetwork: true"),
        ];
        let missed = [
            ("other/asks", Why::NotInjected),
            ("shop/node", Why::HostNetwork),
            ("shop/old", Why::NotInjected),
        ];
        assert_eq!(found(&all), missed.map(|(pod, why)| (pod.to_owned(), why)));
    }

    #[test]
    fn who_opted_out_or_is_over_or_belongs_to_another_mesh_is_not_missed() {
        let all = [
            pod("shop", "out", "labels: {douane.io/inject: disabled}", ""),
            pod("shop", "noted", "annotations: {douane.io/inject: disabled}", ""),
            pod("other", "silent", "", ""),
            pod("closed", "asks", "labels: {douane.io/inject: enabled}", ""),
            pod("kube-system", "dns", "", ""),
            pod("shop", "istio", "labels: {security.istio.io/tlsMode: istio}", ""),
            pod("shop", "ends", "deletionTimestamp: 2026-11-23T10:00:00Z", ""),
            pod("shop", "done", "", "").replace("Running", "Succeeded"),
        ];
        assert_eq!(found(&all), []);
    }
}
