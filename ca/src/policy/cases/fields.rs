//! The fields of a map in a case file: scalars in any spelling that YAML has for them, unknown keys with the one that was
//! probably meant.

use std::cell::RefCell;

use douane_proto::yaml::{Entry, Node, Value, bounded};

use crate::policy::wrong::Wrong;

/// Free text that anybody may write anywhere.
const FREE: &[&str] = &[
    "why",
    "description",
    "comment",
    "comments",
    "note",
    "notes",
    "id",
    "title",
    "tag",
    "tags",
    "group",
    "category",
    "ref",
    "refs",
    "reference",
    "references",
    "section",
    "row",
    "cve",
    "see",
    "doc",
    "docs",
    "url",
    "link",
    "links",
];
/// A key that is so many edits away from a known one was probably meant as it.
const NEAR: usize = 3;

/// A map.
pub(super) struct Fields<'a> {
    place: &'static str,
    entries: &'a [Entry],
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Fields<'a> {
    pub(super) fn of(node: &'a Node, place: &'static str) -> Result<Self, Wrong> {
        let entries = match &node.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Null => &[],
            other => return Err(wrong(node, format!("{place} must be a map, but is {}", other.name()))),
        };
        Ok(Self { place, entries, known: RefCell::default() })
    }

    /// The value of a key; `null` is absence.
    pub(super) fn get(&self, key: &'static str) -> Option<&'a Node> {
        self.written(key).filter(|node| !matches!(node.value, Value::Null))
    }

    /// The value of a key, also when it is `null`.
    pub(super) fn written(&self, key: &'static str) -> Option<&'a Node> {
        self.known.borrow_mut().push(key);
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    pub(super) fn text(&self, key: &'static str) -> Result<Option<String>, Wrong> {
        self.get(key).map(|node| text(node, key)).transpose()
    }

    pub(super) fn text_or(&self, key: &'static str, default: &str) -> Result<String, Wrong> {
        Ok(self.text(key)?.unwrap_or_else(|| default.to_owned()))
    }

    /// A text that must be one of these; compared without case.
    pub(super) fn choice<T: Copy>(
        &self,
        key: &'static str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, Wrong> {
        let Some(node) = self.get(key) else { return Ok(None) };
        let written = text(node, key)?;
        match choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(&written)) {
            Some((_, choice)) => Ok(Some(*choice)),
            None => {
                let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
                Err(wrong(node, format!("{key} is {:?}; write {}", bounded(&written), names.join(", "))))
            }
        }
    }

    pub(super) fn parsed<T: std::str::FromStr>(
        &self,
        key: &'static str,
        noun: &str,
    ) -> Result<Option<T>, Wrong> {
        let Some(node) = self.get(key) else { return Ok(None) };
        let written = text(node, key)?;
        match written.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(wrong(node, format!("{key} is {:?}, which is no {noun}", bounded(&written)))),
        }
    }

    /// The entries of a list; one that is absent has none.
    pub(super) fn list(&self, key: &'static str) -> Result<&'a [Node], Wrong> {
        match self.get(key) {
            Some(node) => list(node, key),
            None => Ok(&[]),
        }
    }

    /// Ends the reading: a key that nobody asked for is wrong.
    pub(super) fn end(self) -> Result<(), Wrong> {
        let known = self.known.into_inner();
        let unknown = self
            .entries
            .iter()
            .find(|entry| !known.contains(&entry.key.as_str()) && !FREE.contains(&entry.key.as_str()));
        let Some(entry) = unknown else { return Ok(()) };
        let hint = match nearest(&entry.key, &known) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("known here: {}", known.join(", ")),
        };
        let what = format!("{} has no key {:?}; {hint}", self.place, bounded(&entry.key));
        Err(Wrong { line: entry.line, what })
    }
}

/// A list.
pub(super) fn list<'a>(node: &'a Node, name: &str) -> Result<&'a [Node], Wrong> {
    match &node.value {
        Value::List(items) => Ok(items),
        Value::Null => Ok(&[]),
        other => Err(wrong(node, format!("{name} must be a list, but is {}", other.name()))),
    }
}

/// A text, or a number or truth value in YAML's spelling.
pub(super) fn text(node: &Node, name: &str) -> Result<String, Wrong> {
    scalar(node).ok_or_else(|| wrong(node, format!("{name} must be a text, but is {}", node.value.name())))
}

pub(super) fn scalar(node: &Node) -> Option<String> {
    match &node.value {
        Value::Text(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(format!("{number:?}")),
        Value::Bool(value) => Some(value.to_string()),
        Value::Null | Value::List(_) | Value::Map(_) => None,
    }
}

pub(super) fn wrong(node: &Node, what: impl Into<String>) -> Wrong {
    Wrong { line: node.line, what: what.into() }
}

fn nearest(written: &str, known: &[&'static str]) -> Option<&'static str> {
    let distances = known.iter().map(|key| (distance(&written.to_lowercase(), key), *key));
    let (distance, key) = distances.min()?;
    (distance <= NEAR && distance < key.len()).then_some(key)
}

// Levenshtein's, row by row.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (line, from) in left.chars().enumerate() {
        let mut next = vec![line + 1];
        for (column, to) in right.iter().enumerate() {
            let at = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX - 1);
            let kept = at(&row, column) + usize::from(from != *to);
            next.push(kept.min(at(&row, column + 1) + 1).min(at(&next, column) + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_keyboard_is_recognized_and_another_word_is_not() {
        assert_eq!(nearest("polices", &["name", "policies"]), Some("policies"));
        assert_eq!(nearest("Methods", &["method", "host"]), Some("method"));
        assert_eq!(nearest("body", &["method", "headers", "jwt"]), None);
    }
}
