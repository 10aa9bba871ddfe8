//! What becomes of an object that the API server asks about: a pod gets its sidecar, a policy is held against what
//! `douane policy lint` says. Pure.

use std::path::Path;

use douane_proto::resource::read_file;

use super::review::{Review, Verdict};
use crate::{
    inject::{Outcome, Terms, Tree, patch, yaml},
    policy::{
        asked::Mesh,
        lint::{Finding, Providers, Severity, lint},
        load::Loaded,
    },
};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted(pub &'static str);

/// A pod that is to be created.
#[must_use]
pub fn mutate(review: &Review, terms: &Terms) -> (Verdict, Counted) {
    if review.kind != "Pod" {
        let why = format!("douane injects pods, and this is a {}; see the webhook's rules", review.kind);
        return (Verdict::refused(why), Counted("refused"));
    }
    match terms.inject(&review.object, &review.namespace) {
        Outcome::Injected(injected) => {
            let steps = patch(&review.object, &injected.pod);
            let warnings = injected.warnings.iter().map(|it| format!("douane: {it}")).collect();
            (Verdict { refused: None, patch: steps, warnings }, Counted("injected"))
        }
        Outcome::Skipped(why) => {
            let warnings = vec![format!("douane: no sidecar: {why}")];
            (Verdict { warnings, ..Verdict::default() }, Counted("skipped"))
        }
        Outcome::Refused(why) => (Verdict::refused(format!("douane: {why}")), Counted("refused")),
    }
}

/// A policy, or another kind of ours, that is to be stored.
#[must_use]
pub fn validate(review: &Review, mesh: &Mesh) -> (Verdict, Counted) {
    let mut object = review.object.clone();
    let metadata = object.map_here().or_null("metadata").map_here();
    if metadata.get("namespace").is_none() {
        metadata.put("namespace", review.namespace.as_str());
    }
    // What Kubernetes itself keeps there is nobody's law.
    metadata.remove("managedFields");
    let (resources, errors) = read_file(Path::new("object"), &yaml(&object));
    let found = lint(&Loaded { resources, errors }, mesh, Providers::Known);
    let said = |severity| {
        let those = found.findings.iter().filter(move |finding| finding.severity == severity);
        those.map(sentence).collect::<Vec<_>>()
    };
    let (errors, warnings) = (said(Severity::Error), said(Severity::Warning));
    if errors.is_empty() {
        return (Verdict { warnings, ..Verdict::default() }, Counted("accepted"));
    }
    let refused = Some(format!("douane: {}", errors.join("; ")));
    (Verdict { refused, patch: Vec::new(), warnings }, Counted("rejected"))
}

// Lines of an object that came as JSON are nobody's.
fn sentence(finding: &Finding) -> String {
    match &finding.subject {
        Some(subject) => format!("{subject}: {}", finding.what),
        None => finding.what.clone(),
    }
}

/// Is it a map with a kind that we judge? For fuzzing: nothing of it may panic.
#[must_use]
pub fn both(body: &[u8], terms: &Terms, mesh: &Mesh) -> Option<(Tree, Verdict, Verdict)> {
    let review = Review::parse(body).ok()?;
    Some((review.object.clone(), mutate(&review, terms).0, validate(&review, mesh).0))
}
