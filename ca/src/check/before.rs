//! May we be installed here? What we need of any cluster, and what an installation must be allowed to do.

use serde_json::Value;

use super::{
    Finding,
    facts::{Facts, Kind, at, few, label, list, name, text},
};
use crate::inject::INJECT;

/// Native sidecars are on by default since 1.29.
const NATIVE_SIDECARS: (u32, u32) = (1, 29);
/// Redirection in an `inet` table of nf_tables came with Linux 5.2.
const REDIRECTS: (u32, u32) = (5, 2);
/// Certificates are backdated by a minute: a clock that is off by half of that is worth a look.
const SKEW_WARNS: i64 = 30;
/// Tokens and certificates of the one are not valid yet, or no more, for the other.
const SKEW_BREAKS: i64 = 60;
/// Whose law we read.
const READ: [&str; 5] = [
    "authorizationpolicies.security.istio.io",
    "peerauthentications.security.istio.io",
    "requestauthentications.security.istio.io",
    "serviceentries.networking.istio.io",
    "workloadentries.networking.istio.io",
];
const OUR_LABEL: (&str, &str) = ("app.kubernetes.io/part-of", "douane");
/// Labels by which other meshes take the pods of a namespace.
const OTHERS: [(&str, &str, &str); 4] = [
    ("istio-injection", "enabled", "Istio"),
    ("istio.io/rev", "", "Istio"),
    ("kuma.io/sidecar-injection", "enabled", "Kuma"),
    ("linkerd.io/inject", "enabled", "Linkerd"),
];
const NEVER: [&str; 4] = ["douane-system", "kube-system", "kube-public", "kube-node-lease"];
const ENFORCED: &str = "pod-security.kubernetes.io/enforce";

/// What holds before and after.
pub(super) fn of_cluster(facts: &Facts) -> Vec<Finding> {
    let mut all = vec![reachable(facts)];
    all.extend(clock(facts));
    all.extend(facts.unread().map(|(kind, why)| {
        Finding::warning("api.read", format!("{kind:?} cannot be read: {why}"))
            .because("what they say is not looked at")
            .mended_by("ask with a kubeconfig of somebody who may read the cluster")
    }));
    all.extend(definitions(facts));
    all.extend(nodes(facts));
    all.extend(namespaces(facts));
    all
}

/// What whoever installs us must be allowed to do.
pub(super) fn of_rights(facts: &Facts) -> Vec<Finding> {
    let missing: Vec<String> = facts
        .rights
        .iter()
        .filter(|right| !right.allowed)
        .map(|right| match right.group {
            "" => format!("{} {}", right.verb, right.resource),
            group => format!("{} {}.{group}", right.verb, right.resource),
        })
        .collect();
    if facts.rights.is_empty() {
        return Vec::new();
    }
    vec![match missing.as_slice() {
        [] => Finding::ok("rights.install", "you may create everything that `douane install` prints"),
        _ => Finding::error("rights.install", format!("you may not {}", few(&missing)))
            .because("`douane install | kubectl apply` would stop half way")
            .mended_by("ask with a kubeconfig of a cluster administrator"),
    }]
}

fn reachable(facts: &Facts) -> Finding {
    let version = match &facts.version {
        Some(Ok(version)) => version,
        Some(Err(why)) => {
            return Finding::error("api.reachable", format!("the API server does not answer: {why}"))
                .because("nothing else can be looked at")
                .mended_by("kubectl version");
        }
        None => return Finding::error("api.reachable", "the API server was not asked"),
    };
    match numbers(version) {
        Some(found) if found >= NATIVE_SIDECARS => {
            Finding::ok("api.version", format!("the API server answers, Kubernetes {version}"))
        }
        Some(_) => Finding::error("api.version", format!("Kubernetes {version} has no native sidecars"))
            .because("a sidecar that is no init container ends before or after its pod; they came with 1.29")
            .mended_by(
                "upgrade the cluster, or set `injection: {order: classic}` in the ConfigMap douane-mesh",
            ),
        None => Finding::warning("api.version", format!("the API server says version {version:?}"))
            .because("it cannot be told whether it has native sidecars (1.29)"),
    }
}

fn clock(facts: &Facts) -> Option<Finding> {
    let ahead = facts.now - facts.server_time?;
    let what = format!("this machine's clock and the API server's differ by {} s", ahead.abs());
    Some(match ahead.abs() {
        ..SKEW_WARNS => Finding::ok("api.clock", what),
        off => {
            let finding = if off < SKEW_BREAKS {
                Finding::warning("api.clock", what)
            } else {
                Finding::error("api.clock", what)
            };
            let why =
                "certificates are backdated by 60 s; where clocks differ by more they are not valid yet";
            finding.because(why).mended_by("timedatectl set-ntp true, on the one that is wrong")
        }
    })
}

fn definitions(facts: &Facts) -> Vec<Finding> {
    if facts.objects.get(&Kind::Definitions).is_none_or(Result::is_err) {
        return Vec::new();
    }
    let found: Vec<&Value> =
        facts.of(Kind::Definitions).iter().filter(|it| READ.contains(&name(it))).collect();
    let ours = found.iter().filter(|it| label(it, OUR_LABEL.0) == Some(OUR_LABEL.1)).count();
    let unserved: Vec<String> = found.iter().filter(|it| !serves(it)).map(|it| name(it).to_owned()).collect();
    vec![if !unserved.is_empty() {
        Finding::error("definitions.served", format!("{} serves neither v1 nor v1beta1", few(&unserved)))
            .because("policies of these kinds would not be read")
            .mended_by("douane install | kubectl apply --server-side -f -")
    } else if found.is_empty() {
        Finding::ok("definitions.served", "policies have no definitions yet; `douane install` brings them")
    } else if ours == found.len() && ours == READ.len() {
        Finding::ok("definitions.served", "all definitions are there, ours")
    } else if found.len() == READ.len() {
        Finding::ok("definitions.served", "Istio's definitions are there, and used as they are")
            .mended_by("douane install --no-crds leaves them alone")
    } else {
        let there = format!("{} of {} definitions are there", found.len(), READ.len());
        Finding::warning("definitions.served", there)
            .because("objects of the missing kinds cannot be stored")
            .mended_by("douane install | kubectl apply --server-side -f -")
    }]
}

fn serves(definition: &Value) -> bool {
    list(definition, &["spec", "versions"]).iter().any(|version| {
        ["v1", "v1beta1"].contains(&text(version, &["name"]))
            && at(version, &["served"]) == &Value::Bool(true)
    })
}

fn nodes(facts: &Facts) -> Vec<Finding> {
    let mut old = Vec::new();
    let mut foreign = Vec::new();
    let all = facts.of(Kind::Nodes);
    for node in all {
        let said = |what: &str| text(node, &["status", "nodeInfo", what]);
        let (system, kernel, machine) =
            (said("operatingSystem"), said("kernelVersion"), said("architecture"));
        if system != "linux" || !["amd64", "arm64"].contains(&machine) {
            foreign.push(format!("{} ({system}/{machine})", name(node)));
        } else if numbers(kernel).is_none_or(|found| found < REDIRECTS) {
            old.push(format!("{} ({kernel})", name(node)));
        }
    }
    let mut findings = Vec::new();
    if !old.is_empty() {
        findings.push(
            Finding::error("nodes.kernel", format!("the kernel of {} is older than 5.2", few(&old)))
                .because(
                    "its nf_tables cannot redirect in tables of both families: pods there would not start",
                )
                .mended_by("upgrade these nodes, or keep meshed pods off them (nodeSelector)"),
        );
    }
    if !foreign.is_empty() {
        findings.push(
            Finding::warning("nodes.kind", format!("there is no sidecar for {}", few(&foreign)))
                .because("our images are for linux/amd64 and linux/arm64")
                .mended_by("keep meshed pods off them: nodeSelector {kubernetes.io/os: linux}"),
        );
    }
    if findings.is_empty() && !all.is_empty() {
        findings
            .push(Finding::ok("nodes.kernel", format!("{} nodes can redirect, by what they say", all.len())));
    }
    findings
}

fn namespaces(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut enabled = 0;
    for namespace in facts.of(Kind::Namespaces) {
        let own = name(namespace);
        match label(namespace, INJECT) {
            Some("enabled") if NEVER.contains(&own) => findings.push(
                Finding::warning("namespaces.label", format!("{own} says {INJECT}=enabled"))
                    .because("its pods are never injected: the mesh needs them in order to live")
                    .mended_by(format!("kubectl label namespace {own} {INJECT}-")),
            ),
            Some("enabled") => {
                enabled += 1;
                findings.extend(other_mesh(namespace));
                findings.extend(too_strict(namespace));
            }
            Some("disabled") | None => {}
            Some(other) => findings.push(
                Finding::error("namespaces.label", format!("{own} says {INJECT}={other}"))
                    .because("only enabled and disabled mean something: its pods get no sidecar")
                    .mended_by(format!("kubectl label --overwrite namespace {own} {INJECT}=enabled")),
            ),
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok("namespaces.label", format!("{enabled} namespaces are in the mesh")));
    }
    findings
}

fn other_mesh(namespace: &Value) -> Option<Finding> {
    let annotated = |key: &str| at(namespace, &["metadata", "annotations", key]).as_str();
    let (key, _, mesh) = OTHERS.iter().find(|(key, value, _)| {
        let found = label(namespace, key).or_else(|| annotated(key));
        found.is_some_and(|found| value.is_empty() || found == *value)
    })?;
    let own = name(namespace);
    let mend = format!("kubectl label namespace {own} {key}-; kubectl annotate namespace {own} {key}-");
    Some(
        Finding::error("namespaces.injector", format!("{mesh} injects pods of {own} as well ({key})"))
            .because("two sidecars would redirect the same traffic")
            .mended_by(mend),
    )
}

fn too_strict(namespace: &Value) -> Option<Finding> {
    let level = label(namespace, ENFORCED).filter(|level| ["baseline", "restricted"].contains(level))?;
    let own = name(namespace);
    Some(
        Finding::error("namespaces.security", format!("{own} enforces Pod Security {level:?}"))
            .because(
                "the init container that installs the redirection needs NET_ADMIN: its pods would be refused",
            )
            .mended_by(format!("kubectl label --overwrite namespace {own} {ENFORCED}=privileged")),
    )
}

// The first two numbers of a version.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('v').split(['.', '-', '+']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
