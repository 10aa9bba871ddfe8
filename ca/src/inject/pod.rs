//! One pod in, one pod out: the injection itself. Pure, and the same for the webhook and for files.
//!
//! A pod that has our sidecar is brought up to the settings of now: what we put in is taken out first. So twice is once.

use aws_lc_rs::digest::{SHA256, digest};
use douane_proto::id::TrustDomain;

use super::{
    annotations::{self, INJECT, Probes, STATUS},
    eligible::{self, PROXY, REDIRECT, Unfit},
    parts::Plan,
    probes::{self, Rewritten},
    status::{self, DEFAULT_CONTAINER, Made, Original, Status},
    tree::Tree,
    write,
};
use crate::{
    config::{Config, Injection, Order},
    hex,
};

/// Bytes of the hash that are written down: enough to tell sidecars apart.
const HASH_BYTES: usize = 8;

/// What the mesh wants of every pod.
#[derive(Debug, Clone)]
pub struct Terms {
    /// What injected pods get.
    pub settings: Injection,
    /// The mesh's trust domain.
    pub trust_domain: TrustDomain,
    /// For whom tokens are made.
    pub audience: String,
}

/// What became of a pod.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It has a sidecar.
    Injected(Injected),
    /// It stays as it is, and why.
    Skipped(String),
    /// It must not run as it is, and why.
    Refused(String),
}

/// A pod with a sidecar.
#[derive(Debug, Clone, PartialEq)]
pub struct Injected {
    /// All of it.
    pub pod: Tree,
    /// What was changed.
    pub changes: Vec<Change>,
    /// What weakens the mesh.
    pub warnings: Vec<String>,
}

/// Something that was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where and what.
    pub what: String,
    /// What for.
    pub why: &'static str,
}

impl Terms {
    /// As a control plane of this configuration would have them.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let audience = config.tokens.as_ref().map(|tokens| tokens.audience.clone());
        Self {
            settings: config.injection.clone(),
            trust_domain: config.trust_domain.clone(),
            audience: audience.unwrap_or_else(crate::config::default_audience),
        }
    }

    /// Puts a sidecar into a pod, or a pod template, of a namespace.
    #[must_use]
    pub fn inject(&self, pod: &Tree, namespace: &str) -> Outcome {
        match self.injected(pod, namespace) {
            Ok(injected) => Outcome::Injected(injected),
            Err(Unfit::Skipped(why)) => Outcome::Skipped(why),
            Err(Unfit::Refused(why)) => Outcome::Refused(why),
        }
    }

    fn injected(&self, given: &Tree, namespace: &str) -> Result<Injected, Unfit> {
        let bare = status::undo(given).map_err(Unfit::Refused)?;
        let bare = bare.as_ref().unwrap_or(given);
        eligible::check(bare, namespace, &self.settings)?;
        let wishes = annotations::read(bare.at(&["metadata", "annotations"]), &self.settings);
        let wishes = wishes.map_err(Unfit::Refused)?;
        let mut pod = bare.clone();
        let Some(spec) = pod.get_mut("spec") else {
            return Err(Unfit::Refused("the pod has no spec".to_owned()));
        };
        eligible::demand(spec, &wishes, &self.settings)?;
        let mut warnings = eligible::warnings(spec);
        let classic = wishes.order.unwrap_or(self.settings.order) == Order::Classic;
        if classic && !spec.items_at("initContainers").is_empty() {
            warnings.push("in the classic order its init containers have no network".to_owned());
        }
        let mut rewritten = Vec::new();
        match wishes.probes {
            Probes::Rewrite => rewritten = rewrite(spec)?,
            Probes::Leave => warnings.push(
                "rewrite-probes is false: where mutual TLS is STRICT, the kubelet's probes over the network fail"
                    .to_owned(),
            ),
        }
        let plan = Plan {
            pod: bare,
            wishes: &wishes,
            settings: &self.settings,
            trust_domain: &self.trust_domain,
            audience: &self.audience,
            probes: &rewritten,
        };
        let mut work = Work { made: Vec::new(), changes: Vec::new() };
        let hash = work.furnish(&mut pod, &plan);
        work.tell_probes(&rewritten);
        work.mark(&mut pod, &rewritten, hash);
        Ok(Injected { pod, changes: work.changes, warnings })
    }
}

/// Takes our sidecar out of a pod; `None` where there is none.
///
/// # Errors
/// What we wrote down cannot be read.
pub fn uninject(pod: &Tree) -> Result<Option<Tree>, String> {
    status::undo(pod)
}

fn rewrite(spec: &mut Tree) -> Result<Vec<Rewritten>, Unfit> {
    let mut all = Vec::new();
    for list in ["initContainers", "containers"] {
        let Some(Tree::List(containers)) = spec.get_mut(list) else { continue };
        for container in containers {
            all.extend(probes::rewrite(container).map_err(Unfit::Refused)?);
        }
    }
    Ok(all)
}

struct Work {
    made: Vec<Made>,
    changes: Vec<Change>,
}

impl Work {
    fn say(&mut self, what: impl Into<String>, why: &'static str) {
        self.changes.push(Change { what: what.into(), why });
    }

    // Containers and volumes; returns their hash.
    fn furnish(&mut self, pod: &mut Tree, plan: &Plan<'_>) -> String {
        let (redirect, sidecar, volumes) = (plan.redirect(), plan.sidecar(), plan.volumes());
        let added = Tree::List([&[redirect.clone(), sidecar.clone()][..], &volumes].concat());
        let hash = digest(&SHA256, write::yaml(&added).as_bytes());
        let hash = hex::encode(hash.as_ref().get(..HASH_BYTES).unwrap_or_default());
        let spec = pod.map_here().or_null("spec").map_here();
        let has = |it: Option<&Tree>| it.is_some_and(|it| !matches!(it, Tree::Null));
        if !has(spec.get("initContainers")) {
            self.made.push(Made::InitContainers);
        }
        if !has(spec.get("volumes")) {
            self.made.push(Made::Volumes);
        }
        let first = spec.or_null("initContainers").list_here();
        first.insert(0, redirect);
        self.say(
            format!("init container {REDIRECT}, before all others"),
            "brings the pod's connections to the sidecar before anything else runs",
        );
        match plan.order() {
            Order::Native => {
                first.insert(1, sidecar);
                self.say(
                    format!("init container {PROXY} that stays (restartPolicy: Always)"),
                    "starts before the other containers and ends after them, so that init containers have a network, \
                     and Jobs finish",
                );
            }
            Order::Classic => {
                spec.or_null("containers").list_here().insert(0, sidecar);
                self.say(
                    format!("container {PROXY}, before all others, with a postStart hook"),
                    "the other containers start when the sidecar is ready; init containers have no network",
                );
            }
        }
        spec.or_null("volumes").list_here().extend(volumes);
        self.say(
            "volume douane-credentials (service account token, root certificates)",
            "the sidecar proves who it is, and knows the control plane",
        );
        self.say("volume douane-run (memory)", "the sidecar's sockets; its root file system is read-only");
        hash
    }

    fn tell_probes(&mut self, rewritten: &[Rewritten]) {
        for Rewritten { container, place, handler, name, .. } in rewritten {
            self.say(
                format!("{place} of container {container} ({handler}) asks the sidecar for {name}"),
                if place.starts_with("lifecycle") {
                    "the kubelet has no certificate; whoever reaches the pod can call the hook, as before"
                } else {
                    "the kubelet has no certificate; the sidecar asks the application"
                },
            );
        }
    }

    // Labels and annotations.
    fn mark(&mut self, pod: &mut Tree, rewritten: &[Rewritten], hash: String) {
        let first = pod.get("spec").and_then(|spec| {
            let mut apps = spec.items_at("containers").iter().filter_map(eligible::name);
            apps.find(|name| *name != PROXY).map(str::to_owned)
        });
        let has = |it: Option<&Tree>| it.is_some_and(|it| !matches!(it, Tree::Null));
        if !has(pod.get("metadata")) {
            self.made.push(Made::Metadata);
        }
        let metadata = pod.map_here().or_null("metadata").map_here();
        for (field, what) in [("labels", Made::Labels), ("annotations", Made::Annotations)] {
            if !has(metadata.get(field)) {
                self.made.push(what);
            }
        }
        let labels = metadata.or_null("labels").map_here();
        if labels.get(INJECT).is_none() {
            self.made.push(Made::Label);
            labels.put(INJECT, "enabled");
            self.say(format!("label {INJECT}: enabled"), "its peers learn that it has a sidecar");
        }
        let annotations = metadata.or_null("annotations").map_here();
        if let Some(first) = first
            && annotations.get(DEFAULT_CONTAINER).is_none()
        {
            self.made.push(Made::DefaultContainer);
            self.say(
                format!("annotation {DEFAULT_CONTAINER}: {first}"),
                "kubectl logs and exec mean the application",
            );
            annotations.put(DEFAULT_CONTAINER, first);
        }
        let status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            hash,
            made: std::mem::take(&mut self.made),
            probes: rewritten.iter().map(Original::from).collect(),
        };
        // A struct of texts and lists: it can be written.
        let written = serde_json::to_string(&status).unwrap_or_default();
        annotations.put(STATUS, written);
        self.say(format!("annotation {STATUS}"), "what was done, so that it can be undone");
    }
}
