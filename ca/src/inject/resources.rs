//! What the sidecar may take, such that the pod keeps its class of service: a Guaranteed pod stays one.

use super::{annotations::Wishes, eligible::containers, tree::Tree};
use crate::config::Resources;

/// Is every container of the pod guaranteed what it may take? (Kubernetes' class Guaranteed.)
#[must_use]
pub(super) fn is_guaranteed(spec: &Tree) -> bool {
    let guaranteed = |container: &Tree| {
        ["cpu", "memory"].iter().all(|resource| {
            let limit = container.at(&["resources", "limits", resource]).map(quantity);
            let request = container.at(&["resources", "requests", resource]).map(quantity);
            // A request that is not written is the limit.
            limit.is_some() && (request.is_none() || request == limit)
        })
    };
    containers(spec).next().is_some() && containers(spec).all(|(_, container)| guaranteed(container))
}

/// The sidecar's resources.
#[must_use]
pub(super) fn of_sidecar(wishes: &Wishes, settings: &Resources, spec: &Tree) -> Tree {
    let memory_limit = wishes.memory_limit.as_ref().unwrap_or(&settings.memory_limit);
    if is_guaranteed(spec) {
        let cpu =
            wishes.cpu_limit.as_ref().or(wishes.cpu_request.as_ref()).unwrap_or(&settings.guaranteed_cpu);
        return guaranteed(cpu, memory_limit);
    }
    let cpu = wishes.cpu_request.as_ref().unwrap_or(&settings.cpu_request);
    let memory = wishes.memory_request.as_ref().unwrap_or(&settings.memory_request);
    let mut limits = Vec::new();
    if let Some(limit) = wishes.cpu_limit.as_ref().or(settings.cpu_limit.as_ref()) {
        limits.push(("cpu", Tree::from(limit.as_str())));
    }
    limits.push(("memory", memory_limit.as_str().into()));
    Tree::map([("requests", amounts(cpu, memory)), ("limits", Tree::map(limits))])
}

/// Those of the init container, which runs for milliseconds.
#[must_use]
pub(super) fn of_redirect(settings: &Resources, spec: &Tree) -> Tree {
    if is_guaranteed(spec) {
        return guaranteed(&settings.guaranteed_cpu, &settings.memory_limit);
    }
    let limits = Tree::map([("memory", Tree::from(settings.memory_limit.as_str()))]);
    Tree::map([("requests", amounts(&settings.cpu_request, &settings.memory_request)), ("limits", limits)])
}

fn guaranteed(cpu: &str, memory: &str) -> Tree {
    Tree::map([("requests", amounts(cpu, memory)), ("limits", amounts(cpu, memory))])
}

fn amounts(cpu: &str, memory: &str) -> Tree {
    Tree::map([("cpu", Tree::from(cpu)), ("memory", memory.into())])
}

// `0.5` and `500m` are the same; so are `1` and `"1"`. In thousandths.
fn quantity(tree: &Tree) -> Option<u128> {
    let text = match tree {
        Tree::Text(text) => text.clone(),
        Tree::Number(number) => number.to_string(),
        _ => return None,
    };
    let digits = text.trim_end_matches(|char: char| char.is_ascii_alphabetic());
    let factor: u128 = match text.get(digits.len()..)? {
        "m" => 1,
        "" => 1000,
        "k" => 1000 * 1000,
        "M" => 1000 * 1000_u128.pow(2),
        "G" => 1000 * 1000_u128.pow(3),
        "T" => 1000 * 1000_u128.pow(4),
        "Ki" => 1000 * 1024,
        "Mi" => 1000 * 1024_u128.pow(2),
        "Gi" => 1000 * 1024_u128.pow(3),
        "Ti" => 1000 * 1024_u128.pow(4),
        _ => return None,
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let scale = 10_u128.checked_pow(u32::try_from(part.len()).ok()?)?;
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: u128 = if part.is_empty() { 0 } else { part.parse().ok()? };
    Some(whole.checked_mul(scale)?.checked_add(part)?.checked_mul(factor)? / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_compared_by_what_they_mean() {
        let same = [("0.5", "500m"), ("1", "1000m"), ("1Gi", "1024Mi"), ("1.5Gi", "1536Mi"), ("1k", "1000")];
        for (one, other) in same {
            assert_eq!(quantity(&one.into()), quantity(&other.into()), "{one} {other}");
        }
        assert_eq!(quantity(&Tree::from(2_u64)), quantity(&"2".into()));
        assert_ne!(quantity(&"1G".into()), quantity(&"1Gi".into()));
        assert_eq!(quantity(&"x".into()), None);
    }
}
