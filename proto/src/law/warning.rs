//! What a law does that its author may not expect, with its place.

use std::fmt;

use super::settings::LawSettings;
use crate::{
    resource::{Kind, Location, Resource},
    wire,
    yaml::Located,
};

/// What works otherwise than its author may expect.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LawWarning {
    /// Where it was written; `None`: in the mesh configuration.
    pub location: Option<Location>,
    /// `Kind namespace/name`.
    pub subject: String,
    /// What it does.
    pub what: String,
}

impl fmt::Display for LawWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An object without lines is its own place.
        if let Some(location) = self.location.as_ref().filter(|location| location.line > 0) {
            write!(f, "{location}: ")?;
        }
        write!(f, "{}: {}", self.subject, self.what)
    }
}

/// What one object of the law does that its author may not expect, whomever it governs.
#[must_use]
pub fn of_one(resource: &Resource, settings: &LawSettings) -> Vec<LawWarning> {
    let noted = |notes: &[Located<String>]| {
        notes.iter().map(|note| warning(resource, note.line, &note.value)).collect::<Vec<_>>()
    };
    match &resource.kind {
        Kind::AuthorizationPolicy(law) => {
            let mut warnings = noted(&law.notes);
            let is_custom = law.policy.action == i32::from(wire::Action::Custom);
            let is_defined = settings.providers.iter().any(|provider| provider.name == law.policy.provider);
            if is_custom && !is_defined && law.attachment.targets.is_empty() {
                let what = format!(
                    "the mesh configuration defines no provider {:?}: what would ask it is denied",
                    law.policy.provider
                );
                warnings.push(warning(resource, resource.location.line, &what));
            }
            warnings
        }
        Kind::RequestAuthentication(law) => noted(&law.notes),
        Kind::PeerAuthentication(law)
            if law.scope.namespace == settings.root_namespace && !law.scope.selector.is_empty() =>
        {
            let what = "a selector in the root namespace selects nothing: the object is ignored";
            vec![warning(resource, resource.location.line, what)]
        }
        _ => Vec::new(),
    }
}

/// A warning about what stands on a line of an object.
pub(super) fn warning(resource: &Resource, line: u32, what: &str) -> LawWarning {
    LawWarning {
        location: Some(Location { line, ..resource.location.clone() }),
        subject: format!("{} {}", resource.kind.name(), resource.metadata.key()),
        what: what.to_owned(),
    }
}
