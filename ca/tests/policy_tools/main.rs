//! The operator's commands for policies and manifests, as an operator runs them: the real binary, files in, text or JSON and an exit code
//! out.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ask;
mod desk;
mod forms;
mod inject;
mod inject_properties;
mod lint;
mod recorded;
mod streams;
mod trial;
