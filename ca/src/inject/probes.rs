//! The kubelet's probes and hooks: it speaks plaintext to the pod, which the sidecar refuses. So it asks the sidecar's health
//! port, and the sidecar asks the application.

use super::{eligible::HEALTH_PORT, tree::Tree};

/// A container's probes, by the name under which the sidecar answers.
const PROBES: [(&str, &str); 3] =
    [("livenessProbe", "livez"), ("readinessProbe", "readyz"), ("startupProbe", "startupz")];
/// A container's hooks.
const HOOKS: [(&str, &str); 2] = [("postStart", "poststart"), ("preStop", "prestop")];
/// What can be asked over the network; `exec` and `sleep` stay in the container.
const HANDLERS: [&str; 3] = ["httpGet", "tcpSocket", "grpc"];

/// One that was rewritten.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rewritten {
    /// Whose.
    pub(super) container: String,
    /// `readinessProbe`, `lifecycle.preStop`...
    pub(super) place: String,
    /// What stood there: `httpGet`, and its value.
    pub(super) handler: String,
    /// See [`Rewritten::handler`].
    pub(super) original: Tree,
    /// What the sidecar asks: the same with a port that is a number.
    pub(super) question: Tree,
    /// How the sidecar calls it: `web/readyz`.
    pub(super) name: String,
}

/// Rewrites a container's probes and hooks.
///
/// # Errors
/// A probe that names a port which the container does not declare.
pub(super) fn rewrite(container: &mut Tree) -> Result<Vec<Rewritten>, String> {
    let Some(owner) = container.get("name").and_then(Tree::text).map(str::to_owned) else {
        return Ok(Vec::new());
    };
    let ports = container.items_at("ports").to_vec();
    let probes = PROBES.map(|(field, name)| (vec![field], name, "app-health"));
    let hooks = HOOKS.map(|(field, name)| (vec!["lifecycle", field], name, "app-lifecycle"));
    let mut all = Vec::new();
    for (path, name, road) in probes.into_iter().chain(hooks) {
        let Some(probe) = container.at_mut(&path) else { continue };
        let timeout = probe.get("timeoutSeconds").cloned();
        let Some((handler, original)) = handler(probe) else { continue };
        // A hook of another kind than HTTP is nothing that Kubernetes does over the network.
        if path.len() > 1 && handler != "httpGet" {
            continue;
        }
        let port = original.get("port").and_then(|port| resolve(port, &ports));
        let place = path.join(".");
        let Some(port) = port else {
            return Err(format!(
                "{place} of container {owner} names a port that the container does not declare; add it to its ports"
            ));
        };
        let mut asked = original.clone();
        asked.map_here().put("port", Tree::from(port));
        let mut question = Tree::map([(handler, asked)]);
        if let Some(timeout) = timeout {
            question.map_here().put("timeoutSeconds", timeout);
        }
        let ours = Tree::map([
            ("path", Tree::from(format!("/{road}/{owner}/{name}"))),
            ("port", Tree::from(HEALTH_PORT)),
            ("scheme", "HTTP".into()),
        ]);
        probe.map_here().exchange(handler, "httpGet", ours);
        let name = format!("{owner}/{name}");
        all.push(Rewritten {
            container: owner.clone(),
            place,
            handler: handler.to_owned(),
            original,
            question,
            name,
        });
    }
    Ok(all)
}

/// Puts a probe back as it was, if it still is ours.
pub(super) fn restore(container: &mut Tree, place: &str, handler: &str, original: Tree) {
    let path: Vec<&str> = place.split('.').collect();
    let Some(probe) = container.at_mut(&path) else { return };
    if probe.at(&["httpGet", "port"]).and_then(Tree::number) == Some(HEALTH_PORT) {
        probe.map_here().exchange("httpGet", handler, original);
    }
}

fn handler(probe: &Tree) -> Option<(&'static str, Tree)> {
    let (handler, value) = HANDLERS.iter().find_map(|handler| Some((*handler, probe.get(handler)?)))?;
    // Asked of another host: it does not come through this pod's redirection.
    let elsewhere = value.get("host").and_then(Tree::text).is_some_and(|host| !host.is_empty());
    (!elsewhere && value.as_map().is_some()).then(|| (handler, value.clone()))
}

fn resolve(port: &Tree, ports: &[Tree]) -> Option<u64> {
    let number = match port {
        Tree::Text(name) => ports
            .iter()
            .find(|port| port.get("name").and_then(Tree::text) == Some(name))
            .and_then(|port| port.get("containerPort")?.number())
            .or_else(|| name.parse().ok()),
        number => number.number(),
    };
    number.filter(|number| (1..=65535).contains(number))
}
