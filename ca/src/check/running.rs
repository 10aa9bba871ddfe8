//! Does what is installed do its work?

use base64::{Engine as _, engine::general_purpose::STANDARD};
use douane_proto::svid;
use serde_json::Value;

use super::{
    Finding,
    facts::{Facts, Kind, at, few, label, list, name, namespace, text},
};
use crate::{
    authority::pem_certificates,
    config::{Config, OWN_ACCOUNT, OWN_NAMESPACE},
    inject::{INJECT, Outcome, ROOT_CONFIG_MAP, ROOT_KEY, Terms, Tree, kubernetes::WEBHOOKS},
};

/// The sidecar's container.
const SIDECAR: &str = "douane-proxy";
/// The next root is prepared at half of the life of the one before it, 45 days by default: one that ends this soon was not
/// replaced.
const ROOT_WARNS: i64 = 14 * 24 * 3600;
/// A new namespace has its roots within seconds.
const APPLY: &str = "douane install | kubectl apply --server-side -f -";
const LOG: &str = "kubectl logs -n douane-system deployment/douane-ca";

/// Findings of an installed mesh.
pub(super) fn of_mesh(facts: &Facts) -> Vec<Finding> {
    let mut all = control_plane(facts);
    all.extend(lease(facts));
    all.extend(roots(facts));
    all.extend(webhooks(facts));
    all.extend(rehearsal(facts));
    all.extend(pods(facts));
    all.extend(skew(facts));
    all.extend(policies(facts));
    all
}

fn deployment(facts: &Facts) -> Option<&Value> {
    facts.of(Kind::Deployments).iter().find(|it| name(it) == OWN_ACCOUNT)
}

fn control_plane(facts: &Facts) -> Vec<Finding> {
    if facts.objects.get(&Kind::Deployments).is_none_or(Result::is_err) {
        return Vec::new();
    }
    let Some(deployment) = deployment(facts) else {
        return vec![
            Finding::error("control-plane.ready", "there is no control plane in douane-system")
                .because("no pod gets a certificate, and none a sidecar")
                .mended_by(APPLY),
        ];
    };
    let count = |path: &[&str]| at(deployment, path).as_i64().unwrap_or(0);
    let (wanted, ready) = (count(&["spec", "replicas"]), count(&["status", "readyReplicas"]));
    let what = format!("{ready} of {wanted} replicas of the control plane are ready");
    vec![if ready == 0 {
        Finding::error("control-plane.ready", what)
            .because("no pod gets a certificate; those that have one live as long as it does")
            .mended_by(format!("kubectl describe pods -n {OWN_NAMESPACE}; {LOG}"))
    } else if ready < wanted {
        Finding::warning("control-plane.ready", what)
            .because("when the next one fails there is none")
            .mended_by(format!("kubectl describe pods -n {OWN_NAMESPACE}"))
    } else {
        Finding::ok("control-plane.ready", what)
    }]
}

// The pod that may change the roots.
fn leader(facts: &Facts) -> &str {
    let lease = facts.of(Kind::Leases).iter().find(|it| name(it) == "douane-authority");
    lease.map_or("", |lease| text(lease, &["spec", "holderIdentity"]))
}

fn lease(facts: &Facts) -> Option<Finding> {
    facts.of(Kind::Leases).iter().find(|it| name(it) == "douane-authority")?;
    let holder = leader(facts);
    Some(if holder.is_empty() {
        Finding::warning("control-plane.lease", "no replica leads")
            .because("roots are not rotated until one does; a running one takes its turn within seconds")
            .mended_by(LOG)
    } else {
        Finding::ok("control-plane.lease", format!("{holder} leads"))
    })
}

fn known_roots(facts: &Facts) -> Option<&str> {
    // Each namespace has the same; ours is written first.
    let mut maps = facts.of(Kind::Roots).iter().map(|it| text(it, &["data", ROOT_KEY]));
    maps.find(|roots| !roots.is_empty())
}

fn roots(facts: &Facts) -> Vec<Finding> {
    if facts.objects.get(&Kind::Roots).is_none_or(Result::is_err) {
        return Vec::new();
    }
    let Some(roots) = known_roots(facts) else {
        return vec![
            Finding::error("roots.published", format!("no namespace has the ConfigMap {ROOT_CONFIG_MAP}"))
                .because("sidecars would not know the control plane on first contact")
                .mended_by(LOG),
        ];
    };
    let ends = pem_certificates(roots.as_bytes()).unwrap_or_default();
    let ends: Option<Vec<i64>> = ends.iter().map(|der| svid::ends(der)).collect();
    // The last one is what signs, or will.
    let Some(last) = ends.and_then(|ends| ends.into_iter().max()) else {
        return vec![
            Finding::error(
                "roots.published",
                format!("the ConfigMap {ROOT_CONFIG_MAP} holds no certificates"),
            )
            .because("sidecars would not know the control plane on first contact")
            .mended_by(format!(
                "kubectl delete configmap -A --field-selector metadata.name={ROOT_CONFIG_MAP}"
            )),
        ];
    };
    let days = (last - facts.now) / (24 * 3600);
    vec![if last <= facts.now {
        Finding::error("roots.expiry", "the root has ended")
            .because("no certificate of the mesh is valid any more")
            .mended_by(LOG)
    } else if last - facts.now < ROOT_WARNS {
        Finding::warning(
            "roots.expiry",
            format!("the root ends in {days} days, and no other one is published"),
        )
        .because("it should have been replaced at half of its life")
        .mended_by(format!("kubectl exec -n {OWN_NAMESPACE} {} -- douane ca rotate root", leader(facts)))
    } else {
        Finding::ok("roots.expiry", format!("the root ends in {days} days"))
    }]
}

fn webhooks(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (kind, word) in [(Kind::Mutating, "mutating"), (Kind::Validating, "validating")] {
        if facts.objects.get(&kind).is_none_or(Result::is_err) {
            continue;
        }
        let Some(found) = facts.of(kind).iter().find(|it| name(it) == WEBHOOKS) else {
            findings.push(
                Finding::error("webhook.installed", format!("the {word} webhook is missing"))
                    .because("pods get no sidecar, or bad policies are not stopped")
                    .mended_by(APPLY),
            );
            continue;
        };
        let wanted = known_roots(facts).map(|roots| STANDARD.encode(roots));
        let strange = list(found, &["webhooks"])
            .iter()
            .filter(|it| Some(text(it, &["clientConfig", "caBundle"])) != wanted.as_deref());
        findings.push(match strange.count() {
            0 => Finding::ok("webhook.roots", format!("the {word} webhook is known by the roots of now")),
            many => {
                let what = format!("{many} of the {word} webhooks do not have the roots of now as caBundle");
                Finding::error("webhook.roots", what)
                    .because("the API server cannot verify us: pods of the mesh cannot be created")
                    .mended_by(format!("{LOG}  (it writes them every 10 s, and says why it cannot)"))
            }
        });
    }
    findings
}

fn rehearsal(facts: &Facts) -> Option<Finding> {
    Some(match facts.rehearsal.as_ref()? {
        Ok(pod) if has_sidecar(pod) => {
            Finding::ok("webhook.answers", "a pod that asks for a sidecar would get one (dry run)")
        }
        Ok(_) => Finding::error("webhook.answers", "a pod that asks for a sidecar would get none (dry run)")
            .because(
                "the webhook was not asked, or passed it over (as it must where the namespace `default`, in which this is tried, \
                 is labelled douane.io/inject=disabled)",
            )
            .mended_by(APPLY),
        Err(why) => {
            Finding::error("webhook.answers", format!("a pod that asks for a sidecar is refused: {why}"))
                .because("pods of the mesh cannot be created")
                .mended_by(LOG)
        }
    })
}

fn pods(facts: &Facts) -> Vec<Finding> {
    if facts.objects.get(&Kind::Pods).is_none_or(Result::is_err) {
        return Vec::new();
    }
    let terms = Terms::of(&Config::default());
    let (mut missed, mut refused, mut meshed) = (Vec::new(), Vec::new(), 0_usize);
    for pod in facts.of(Kind::Pods).iter().filter(|pod| is_wanted(facts, pod)) {
        let full = format!("{}/{}", namespace(pod), name(pod));
        if has_sidecar(pod) {
            meshed += 1;
            continue;
        }
        let Ok(tree) = serde_json::from_value::<Tree>(pod.clone()) else { continue };
        match terms.inject(&tree, namespace(pod)) {
            Outcome::Injected(_) => missed.push(full),
            Outcome::Refused(why) => refused.push(format!("{full}: {why}")),
            Outcome::Skipped(_) => {}
        }
    }
    let mut findings = Vec::new();
    if !missed.is_empty() {
        let what = format!("{} pods should be in the mesh and are not: {}", missed.len(), few(&missed));
        findings.push(
            Finding::warning("pods.missing", what)
                .because("they were created before their namespace opted in, or while we were away: no mutual TLS, no law")
                .mended_by(restarts(&missed)),
        );
    }
    if !refused.is_empty() {
        findings.push(
            Finding::warning(
                "pods.unfit",
                format!("{} pods cannot have a sidecar: {}", refused.len(), few(&refused)),
            )
            .because("they run outside of the mesh although their namespace opted in")
            .mended_by(format!("mend what is named, or label them {INJECT}=disabled")),
        );
    }
    if findings.is_empty() {
        findings.push(Finding::ok("pods.missing", format!("{meshed} pods have a sidecar, none lacks one")));
    }
    findings
}

// One command for each namespace: what they belong to is started anew.
fn restarts(missed: &[String]) -> String {
    let mut spaces: Vec<&str> = missed.iter().filter_map(|full| Some(full.split_once('/')?.0)).collect();
    spaces.dedup();
    let commands: Vec<String> = spaces
        .iter()
        .map(|space| format!("kubectl rollout restart -n {space} deployment,statefulset"))
        .collect();
    commands.join("; ")
}

// Its own word counts before that of its namespace; who has ended needs nothing any more.
fn is_wanted(facts: &Facts, pod: &Value) -> bool {
    if ["Succeeded", "Failed"].contains(&text(pod, &["status", "phase"])) {
        return false;
    }
    let space = facts.of(Kind::Namespaces).iter().find(|it| name(it) == namespace(pod));
    let says = label(pod, INJECT).or_else(|| space.and_then(|space| label(space, INJECT)));
    says == Some("enabled")
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    let of = |field: &str| list(pod, &["spec", field]).iter();
    of("initContainers").chain(of("containers"))
}

fn has_sidecar(pod: &Value) -> bool {
    containers(pod).any(|it| text(it, &["name"]) == SIDECAR)
}

fn skew(facts: &Facts) -> Option<Finding> {
    let own = label(deployment(facts)?, "app.kubernetes.io/version")?;
    let other: Vec<String> = facts
        .of(Kind::Pods)
        .iter()
        .filter_map(|pod| {
            let sidecar = containers(pod).find(|it| text(it, &["name"]) == SIDECAR)?;
            let (_, tag) = text(sidecar, &["image"]).rsplit_once(':')?;
            (tag != own).then(|| format!("{}/{} ({tag})", namespace(pod), name(pod)))
        })
        .collect();
    Some(if other.is_empty() {
        Finding::ok("versions.skew", format!("all sidecars are of the control plane's version {own}"))
    } else {
        let what =
            format!("{} sidecars are not of the control plane's version {own}: {}", other.len(), few(&other));
        Finding::warning("versions.skew", what)
            .because("laws that need a newer sidecar are void or widened there")
            .mended_by("kubectl rollout restart deployment, in their namespaces")
    })
}

// As the control plane has written it on them.
fn policies(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = facts
        .of(Kind::Policies)
        .iter()
        .filter_map(|policy| {
            let conditions = list(policy, &["status", "conditions"]);
            let bad = conditions.iter().find(|it| text(it, &["status"]) == "False")?;
            let kind = text(policy, &["kind"]);
            let full = format!("{kind} {}/{}", namespace(policy), name(policy));
            Some(
                Finding::warning("policies.status", format!("{full}: {}", text(bad, &["message"])))
                    .because("it does not say what its author meant")
                    .mended_by(format!(
                        "kubectl describe {} -n {} {}",
                        kind.to_lowercase(),
                        namespace(policy),
                        name(policy)
                    )),
            )
        })
        .collect();
    if findings.is_empty() && facts.objects.get(&Kind::Policies).is_some_and(Result::is_ok) {
        findings.push(Finding::ok(
            "policies.status",
            format!("{} policies, none with a fault", facts.of(Kind::Policies).len()),
        ));
    }
    findings
}
