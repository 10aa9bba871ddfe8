//! Which pods get a sidecar: some are passed over, which is no fault of theirs; some must not run as they are.

use super::{
    annotations::{INJECT, Wishes},
    tree::Tree,
};
use crate::config::{Injection, Order, SYSTEM_NAMESPACES};

/// The sidecar's container.
pub(super) const PROXY: &str = "douane-proxy";
/// The init container that installs the redirection.
pub(super) const REDIRECT: &str = "douane-redirect";
/// Our volumes.
pub(super) const VOLUMES: [&str; 2] = ["douane-credentials", "douane-run"];
/// Ports of the sidecar.
pub(super) const OWN_PORTS: [u64; 3] = [15001, 15006, HEALTH_PORT];
/// Health, probes and metrics.
pub(super) const HEALTH_PORT: u64 = 15020;

/// Sidecars of other meshes: two redirections would fight.
const OTHERS: [&str; 6] =
    ["istio-proxy", "linkerd-proxy", "kuma-sidecar", "consul-dataplane", "envoy-sidecar", "osm-proxy"];
/// What the kubelet makes of a file on its node; it was never asked for by anybody.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Why there will be no sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unfit {
    /// The pod runs as it is.
    Skipped(String),
    /// It must not.
    Refused(String),
}

/// May the pod have a sidecar, as far as is known without its annotations?
///
/// # Errors
/// [`Unfit`] with the reason.
pub(super) fn check(pod: &Tree, namespace: &str, settings: &Injection) -> Result<(), Unfit> {
    let skip = |why: String| Err(Unfit::Skipped(why));
    let Some(spec) = pod.get("spec").filter(|spec| spec.as_map().is_some()) else {
        return Err(Unfit::Refused("the pod has no spec".to_owned()));
    };
    match wanted(pod) {
        Some("enabled") | None => {}
        Some("disabled") => return skip(format!("{INJECT} is disabled")),
        Some(other) => {
            return Err(Unfit::Refused(format!("{INJECT} is {other:?}; write enabled or disabled")));
        }
    }
    if SYSTEM_NAMESPACES.contains(&namespace) || settings.excluded_namespaces.iter().any(|it| it == namespace)
    {
        return skip(format!("pods of the namespace {namespace} are never injected"));
    }
    match spec.get("hostNetwork") {
        Some(Tree::Bool(true)) => {
            return skip("it shares the host's network (hostNetwork), which cannot be redirected".to_owned());
        }
        Some(Tree::Bool(false) | Tree::Null) | None => {}
        Some(_) => return Err(Unfit::Refused("hostNetwork is neither true nor false".to_owned())),
    }
    let windows = [&["os", "name"][..], &["nodeSelector", "kubernetes.io/os"]];
    if windows.iter().any(|path| spec.at(path).and_then(Tree::text) == Some("windows")) {
        return skip("it runs on Windows, which has no nf_tables".to_owned());
    }
    if pod.at(&["metadata", "annotations", MIRROR]).is_some() {
        return skip("it mirrors a pod that a node started by itself".to_owned());
    }
    let other = containers(spec).find_map(|(_, it)| name(it).filter(|name| OTHERS.contains(name)));
    if let Some(other) = other {
        return skip(format!("it has the sidecar of another mesh ({other})"));
    }
    Ok(())
}

/// Must the pod be refused, now that its wishes are known?
///
/// # Errors
/// [`Unfit::Refused`] with the reason.
pub(super) fn demand(spec: &Tree, wishes: &Wishes, settings: &Injection) -> Result<(), Unfit> {
    let refuse = |why: String| Err(Unfit::Refused(why));
    if spec.items_at("containers").is_empty() {
        return refuse("the pod has no containers".to_owned());
    }
    let uid = wishes.uid.unwrap_or(settings.uid);
    let is_ours = |security: Option<&Tree>| {
        security.and_then(|it| it.get("runAsUser")).and_then(Tree::number) == Some(u64::from(uid))
    };
    if is_ours(spec.get("securityContext")) {
        return refuse(format!(
            "its securityContext runs every container as uid {uid}, which is the sidecar's: what that uid sends is not \
             redirected; choose another"
        ));
    }
    for (_, container) in containers(spec) {
        let Some(name) = name(container) else { return refuse("a container has no name".to_owned()) };
        if [PROXY, REDIRECT].contains(&name) {
            return refuse(format!(
                "a container is called {name} already, and not by us; give it another name"
            ));
        }
        if is_ours(container.get("securityContext")) {
            return refuse(format!(
                "container {name} runs as uid {uid}, which is the sidecar's: what that uid sends is not redirected; \
                 choose another"
            ));
        }
        let mut ports = container.items_at("ports").iter();
        if let Some(port) =
            ports.find_map(|it| it.get("containerPort")?.number().filter(|it| OWN_PORTS.contains(it)))
        {
            return refuse(format!(
                "container {name} declares port {port}, which is the sidecar's; choose another"
            ));
        }
    }
    if let Some(volume) =
        spec.items_at("volumes").iter().find_map(|it| name(it).filter(|it| VOLUMES.contains(it)))
    {
        return refuse(format!("a volume is called {volume} already, and not by us; give it another name"));
    }
    let ends = matches!(spec.get("restartPolicy").and_then(Tree::text), Some("Never" | "OnFailure"));
    if ends && wishes.order.unwrap_or(settings.order) == Order::Classic {
        return refuse(
            "it ends by itself (a Job), and in the classic order its sidecar never would; use native sidecars, or set \
             douane.io/inject: disabled"
                .to_owned(),
        );
    }
    Ok(())
}

/// What of the pod weakens the mesh, for whoever reads it.
#[must_use]
pub(super) fn warnings(spec: &Tree) -> Vec<String> {
    let mut all = Vec::new();
    if spec.get("shareProcessNamespace").is_some_and(Tree::is_true) {
        all.push(
            "shareProcessNamespace: a container that runs as root can end the sidecar, or look into it"
                .to_owned(),
        );
    }
    for (_, container) in containers(spec) {
        let name = name(container).unwrap_or_default();
        let Some(security) = container.get("securityContext") else { continue };
        if security.get("privileged").is_some_and(Tree::is_true) {
            all.push(format!("container {name} is privileged: it can remove the redirection"));
        }
        let added = security.at(&["capabilities", "add"]).map_or(&[][..], Tree::items);
        let strong = |it: &&str| matches!(it.trim_start_matches("CAP_"), "NET_ADMIN" | "SYS_ADMIN" | "ALL");
        if let Some(capability) = added.iter().filter_map(Tree::text).find(strong) {
            all.push(format!("container {name} has {capability}: it can remove the redirection"));
        }
    }
    all
}

/// All containers of a pod, with the list that each stands in.
pub(super) fn containers(spec: &Tree) -> impl Iterator<Item = (&'static str, &Tree)> {
    ["initContainers", "containers"]
        .into_iter()
        .flat_map(move |list| spec.items_at(list).iter().map(move |container| (list, container)))
}

/// Its name.
#[must_use]
pub(super) fn name(object: &Tree) -> Option<&str> {
    object.get("name")?.text()
}

// The label counts before the annotation, since the API server selects by it.
fn wanted(pod: &Tree) -> Option<&str> {
    let metadata = pod.get("metadata")?;
    let written = |place| metadata.get(place)?.get(INJECT)?.text();
    match (written("labels"), written("annotations")) {
        (_, Some("disabled")) | (Some("disabled"), _) => Some("disabled"),
        (Some(label), _) => Some(label),
        (None, annotation) => annotation,
    }
}
