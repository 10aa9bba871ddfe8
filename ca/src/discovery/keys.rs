//! Token rules and the keys that were fetched for them.

use std::time::Duration;

use douane_proto::resource::{KeySource, Kind, Resource};

use crate::jwks::{KeySets, Wanted};

/// As Istio, where a rule does not say it.
const FETCH_LIMIT: Duration = Duration::from_secs(5);

/// Gives each token rule the keys that are known for it, and answers which ones are wanted.
pub(super) fn fill(folders: &mut [Vec<Resource>], known: &KeySets) -> Wanted {
    let mut wanted = Wanted::new();
    for resource in folders.iter_mut().flatten() {
        let Kind::RequestAuthentication(law) = &mut resource.kind else { continue };
        // A gateway's rules are none of ours.
        if !law.attachment.targets.is_empty() {
            continue;
        }
        for rule in law.rules.iter_mut().filter(|rule| rule.keys != KeySource::Inline) {
            let limit = rule.timeout.unwrap_or(FETCH_LIMIT);
            let longest = wanted.entry(rule.keys.clone()).or_insert(limit);
            *longest = limit.max(*longest);
            rule.rule.jwks = known.get(&rule.keys).unwrap_or_default().to_owned();
        }
    }
    wanted
}
