//! What the injector writes down in the pod of its own work (`douane.io/status`), so that it can be brought up to newer
//! settings, or taken back without a trace.

use super::{
    annotations::{INJECT, STATUS},
    eligible::{PROXY, REDIRECT, VOLUMES, name},
    probes::{self, Rewritten},
    tree::Tree,
};
use serde::{Deserialize, Serialize};

/// Which container kubectl means when none is named.
pub(super) const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// What was done to a pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Status {
    /// Which version of ours.
    pub(super) version: String,
    /// Of what was put in: the same for the same sidecar.
    pub(super) hash: String,
    /// What was made that was not there: `metadata`, `annotations`, `labels`, `initContainers`, `volumes`, and
    /// `label`, `default-container`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) made: Vec<Made>,
    /// Probes and hooks as they were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) probes: Vec<Original>,
}

/// Something that was not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Made {
    /// `metadata`
    Metadata,
    /// `metadata.annotations`
    Annotations,
    /// `metadata.labels`
    Labels,
    /// `spec.initContainers`
    InitContainers,
    /// `spec.volumes`
    Volumes,
    /// The label that says that the pod is of the mesh.
    Label,
    /// The annotation of kubectl's default container.
    DefaultContainer,
}

/// A probe or hook as it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Original {
    container: String,
    place: String,
    handler: String,
    was: Tree,
}

impl From<&Rewritten> for Original {
    fn from(probe: &Rewritten) -> Self {
        Self {
            container: probe.container.clone(),
            place: probe.place.clone(),
            handler: probe.handler.clone(),
            was: probe.original.clone(),
        }
    }
}

/// What a pod says of our work; `None` where we have not been.
///
/// # Errors
/// What stands there is none of ours.
pub(super) fn read(pod: &Tree) -> Result<Option<Status>, String> {
    let Some(written) = pod.at(&["metadata", "annotations", STATUS]) else { return Ok(None) };
    let read = written.text().and_then(|text| serde_json::from_str(text).ok());
    read.map(Some).ok_or_else(|| {
        format!("the annotation {STATUS} is not what the injector writes; remove it with everything of ours")
    })
}

/// Takes everything back that we put into a pod.
///
/// # Errors
/// The annotation cannot be read.
pub(super) fn undo(pod: &Tree) -> Result<Option<Tree>, String> {
    let Some(status) = read(pod)? else { return Ok(None) };
    let mut pod = pod.clone();
    let made = |what| status.made.contains(&what);
    if let Some(metadata) = pod.get_mut("metadata") {
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Tree::as_map_mut) {
            annotations.remove(STATUS);
            if made(Made::DefaultContainer) {
                annotations.remove(DEFAULT_CONTAINER);
            }
        }
        if made(Made::Label)
            && let Some(labels) = metadata.get_mut("labels").and_then(Tree::as_map_mut)
        {
            labels.remove(INJECT);
        }
        for (field, what) in [("annotations", Made::Annotations), ("labels", Made::Labels)] {
            remove_if_empty(metadata, field, made(what));
        }
    }
    remove_if_empty(&mut pod, "metadata", made(Made::Metadata));
    if let Some(spec) = pod.get_mut("spec") {
        for list in ["initContainers", "containers"] {
            retain(spec, list, |name| ![PROXY, REDIRECT].contains(&name));
        }
        retain(spec, "volumes", |name| !VOLUMES.contains(&name));
        for (field, what) in [("initContainers", Made::InitContainers), ("volumes", Made::Volumes)] {
            remove_if_empty(spec, field, made(what));
        }
        for Original { container, place, handler, was } in &status.probes {
            for list in ["initContainers", "containers"] {
                let Some(Tree::List(containers)) = spec.get_mut(list) else { continue };
                for owner in containers.iter_mut().filter(|it| name(it) == Some(container)) {
                    probes::restore(owner, place, handler, was.clone());
                }
            }
        }
    }
    Ok(Some(pod))
}

fn retain(spec: &mut Tree, list: &str, keep: impl Fn(&str) -> bool) {
    if let Some(Tree::List(items)) = spec.get_mut(list) {
        items.retain(|item| name(item).is_none_or(&keep));
    }
}

fn remove_if_empty(tree: &mut Tree, field: &str, made: bool) {
    if made
        && tree.get(field).is_some_and(Tree::is_empty)
        && let Some(map) = tree.as_map_mut()
    {
        map.remove(field);
    }
}
