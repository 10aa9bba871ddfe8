//! Sidecars into pods, by the same pure code for the admission webhook and for `douane inject`.
//!
//! Works on a tree that keeps what it does not know: fields of a newer Kubernetes survive. Knows no sockets, no files and no
//! Kubernetes client; what a sidecar is started with is written in `parts`, and read by `douane-proxy`.
//! - `pod`: one pod in, one pod out, or a reason; `eligible`: which pods; `annotations`: what a pod wishes
//! - `parts`: what is put in; `resources`: what it may take; `probes`: the kubelet's questions; `status`: how it is undone
//! - `manifest`: files of objects (`template`: where the pod stands in them), `write`: YAML, `difference`: what changed
//! - `patch`: the same as a JSON patch; `json`, `tree`: what all of them work on

mod annotations;
mod difference;
mod eligible;
mod json;
pub mod kubernetes;
mod manifest;
mod parts;
mod patch;
mod pod;
mod probes;
mod resources;
mod status;
mod template;
mod tree;
mod write;

pub use annotations::INJECT;
pub use difference::unified;
pub use manifest::{Document, Done, Fate, Task, Told, Unreadable, join, rewrite};
pub use parts::{ROOT_CONFIG_MAP, ROOT_KEY};
pub use patch::{Step, patch};
pub use pod::{Change, Injected, Outcome, Terms, uninject};
pub use tree::Tree;
pub use write::yaml;
