//! Objects of the law as they stand in a tree of YAML, read as a sidecar would enforce them: what is wrong with one is said,
//! and it still counts.

use std::{path::Path, sync::Arc};

use douane_proto::{
    resource::{Resource, parse_file},
    yaml::{Node, Value},
};

use crate::policy::{cases::to_json, wrong::Wrong};

/// What was read so far.
#[derive(Debug, Default)]
pub(crate) struct Laws {
    pub(crate) resources: Vec<Resource>,
    /// What is wrong with them, one line each.
    pub(crate) problems: Vec<String>,
}

/// Where an object stands.
pub(crate) struct Origin {
    pub(crate) path: Arc<Path>,
}

impl Laws {
    /// Reads one object.
    pub(crate) fn read(&mut self, node: &Node, origin: &Origin) -> Result<(), Wrong> {
        if !matches!(node.value, Value::Map(_)) {
            let what = format!("a policy must be an object, but is {}", node.value.name());
            return Err(Wrong { line: node.line, what });
        }
        match parse_file(&origin.path, &to_json(node).to_string()) {
            Ok(found) => self.resources.extend(found),
            Err(errors) => self.problems.extend(errors.iter().map(ToString::to_string)),
        }
        Ok(())
    }
}
