//! Path prefixes that end in the middle of a word: `/admin*` matches `/admin`, all below it, and `/administrator` as well.
//!
//! Most who write it want just that, or have nothing else that begins so, and a warning at each would be read by nobody. It
//! is told only where the files themselves show that it is too wide: `/admin` or `/admin/...` stands beside it, which
//! would be needless if the star were understood, or another rule names something that only begins like it.

use std::{path::Path, sync::Arc};

use douane_proto::{policy::Scope, resource::Location, wire, yaml::bounded};

use super::wildcard::Wildcard;

/// An operation and where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operation<'a> {
    pub(super) scope: &'a Scope,
    pub(super) operation: &'a wire::Operation,
    /// `file:line` of its rule.
    pub(super) file: &'a Arc<Path>,
    pub(super) line: u32,
}

/// What is told of the paths of `own`. `all`: the operations of all laws.
pub(super) fn told(own: &Operation<'_>, all: &[Operation<'_>], root: &str) -> Vec<String> {
    let prefixes = own.operation.paths.iter().filter_map(|path| Some((path, open_prefix(path)?)));
    prefixes
        .filter_map(|(path, prefix)| {
            beside(path, prefix, own).or_else(|| elsewhere(path, prefix, own, all, root))
        })
        .collect()
}

// Ends it in a word?
fn open_prefix(path: &str) -> Option<&str> {
    let Wildcard::Prefix(prefix) = Wildcard::read(path) else { return None };
    prefix.ends_with(|char: char| char.is_ascii_alphanumeric()).then_some(prefix)
}

// In the same list.
fn beside(path: &str, prefix: &str, own: &Operation<'_>) -> Option<String> {
    let below = format!("{prefix}/");
    let other = own.operation.paths.iter().find(|other| *other == prefix || other.starts_with(&below))?;
    Some(format!(
        "the path {:?} matches {:?} already, and {prefix}-other as well; write {prefix} and {prefix}/* for what is below it",
        bounded(path),
        bounded(other)
    ))
}

// In another operation that can hold for the same workload.
fn elsewhere(
    path: &str,
    prefix: &str,
    own: &Operation<'_>,
    all: &[Operation<'_>],
    root: &str,
) -> Option<String> {
    all.iter().filter(|other| meet(own.scope, other.scope, root)).find_map(|other| {
        let named = other.operation.paths.iter().find(|named| is_neighbour(named, prefix))?;
        Some(format!(
            "the path {:?} matches {:?} of {} as well; write {prefix} and {prefix}/* for what is below it",
            bounded(path),
            bounded(named),
            Location { file: Arc::clone(other.file), line: other.line }
        ))
    })
}

// It goes on in the same word, and is no wider pattern.
fn is_neighbour(named: &str, prefix: &str) -> bool {
    let rest = named.strip_prefix(prefix).filter(|_| !named.starts_with('*'));
    rest.is_some_and(|rest| {
        rest.starts_with(|char: char| char.is_ascii_alphanumeric() || "-_.~".contains(char))
    })
}

// May they select the same pod?
fn meet(one: &Scope, other: &Scope, root: &str) -> bool {
    let reach = one.namespace == other.namespace || one.namespace == root || other.namespace == root;
    reach && one.selector.iter().all(|(key, value)| other.selector.get(key).is_none_or(|own| own == value))
}
