//! Objects of the law as they stand in a tree of YAML, read as a sidecar would enforce them: what is wrong with one is said,
//! and it still counts.

use std::{path::Path, sync::Arc};

use douane_proto::{
    resource::{KeySource, Kind, Reading, Resource, read_law},
    yaml::{Node, Value},
};

use crate::policy::wrong::Wrong;

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
        let Reading { resource, flaws } = read_law(node, &origin.path);
        let Some(resource) = resource else {
            // Nobody knows what it was meant to be.
            let what = flaws.iter().map(|flaw| format!("{}; {}", flaw.what, flaw.mend)).collect::<Vec<_>>();
            let line = flaws.first().map_or(node.line, |flaw| flaw.location.line);
            return Err(Wrong { line, what: what.join(", and ") });
        };
        self.problems.extend(flaws.iter().map(ToString::to_string));
        self.problems.extend(keyless(&resource));
        self.resources.push(resource);
        Ok(())
    }
}

// Nothing is fetched here.
fn keyless(resource: &Resource) -> Vec<String> {
    let Kind::RequestAuthentication(law) = &resource.kind else { return Vec::new() };
    let fetched = law.rules.iter().filter_map(|rule| match &rule.keys {
        KeySource::Inline => None,
        KeySource::Set(url) | KeySource::Configuration(url) => Some((rule.line, url)),
    });
    let told = fetched.map(|(line, url)| {
        format!(
            "{}:{line}: RequestAuthentication {}: no keys are fetched here ({url}): every token of this rule is refused",
            resource.location.file.display(),
            resource.metadata.key()
        )
    });
    told.collect()
}
