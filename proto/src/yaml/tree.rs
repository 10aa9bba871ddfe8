//! YAML text to a tree in which every node knows its line. One file may hold many documents, split at `---`.
//!
//! Knows no kinds. Bounded against alias bombs and deep nesting; duplicate keys are an error.

use std::{cell::Cell, collections::HashSet, fmt};

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Spanned, budget, options};

/// Kubernetes' deepest objects nest about 15 levels.
pub(super) const MAX_DEPTH: usize = 40;
/// A file of 1 MiB has fewer; an alias bomb has more. All readings of one file share them.
const MAX_NODES: usize = 200_000;
/// Anchors are rare in manifests, bombs need many aliases.
const MAX_ALIASES: usize = 1_000;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub struct Node {
    /// Counted from 1; 0 where there are no lines.
    pub line: u32,
    /// What stands there.
    pub value: Value,
}

/// What YAML can say.
#[derive(Debug, Clone)]
pub enum Value {
    /// Nothing, or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number of 64 bits.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the file.
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The key's line.
    pub line: u32,
    /// The value.
    pub node: Node,
}

/// The text of one document.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// As it stands in the file.
    pub text: &'a str,
    /// Lines of the file before it.
    pub before: u32,
}

/// Why a text is no YAML that we take.
#[derive(Debug)]
pub struct SyntaxError {
    /// Counted from 1 in the file.
    pub line: u32,
    /// What is wrong.
    pub what: String,
}

/// How many nodes may still be read of one file, aliases counted as often as they stand for something.
#[derive(Debug)]
pub struct Work {
    left: usize,
    most_aliases: usize,
    numbers: Numbers,
}

// How numbers that begin with 0 are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Numbers {
    // 0644 is six hundred and forty-four.
    Decimal,
    // It is a file's mode.
    Octal,
}

/// What the library says of a key that stands in one map twice, before the key.
const REPEATED: &str = "duplicate mapping key: ";

thread_local! {
    // Nodes visited by the reading that runs; serde has no other way out of a reading that fails.
    static VISITED: Cell<usize> = const { Cell::new(0) };
}

impl SyntaxError {
    /// The key that stands in one map twice, where that is what is wrong.
    #[must_use]
    pub fn repeated_key(&self) -> Option<&str> {
        self.what.strip_prefix(REPEATED)
    }
}

impl Work {
    /// For one file of manifests.
    #[must_use]
    pub fn new() -> Self {
        Self { left: MAX_NODES, most_aliases: MAX_ALIASES, numbers: Numbers::Decimal }
    }

    /// For a file that may hold so many nodes, and as many aliases: an operator's own, in which one anchor often stands
    /// for what hundreds of places share.
    #[must_use]
    pub fn of(nodes: usize) -> Self {
        Self { left: nodes, most_aliases: nodes, numbers: Numbers::Decimal }
    }

    /// The same, with numbers as Kubernetes reads them (YAML 1.1): `0644` is octal.
    #[must_use]
    pub fn as_kubernetes(self) -> Self {
        Self { numbers: Numbers::Octal, ..self }
    }

    /// Takes one node; `None` when none is left.
    pub(super) fn take_one(&mut self) -> Option<()> {
        self.left = self.left.checked_sub(1)?;
        Some(())
    }

    /// Is nothing left? Then what follows is not read at all.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.left == 0
    }
}

impl Default for Work {
    fn default() -> Self {
        Self::new()
    }
}

impl Value {
    /// What it is, for a message.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

impl Node {
    /// The value of a key, when this is a map that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    /// The text, when this is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn shift(&mut self, lines: u32) {
        self.line = self.line.saturating_add(lines);
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.shift(lines)),
            Value::Map(entries) => entries.iter_mut().for_each(|entry| {
                entry.line = entry.line.saturating_add(lines);
                entry.node.shift(lines);
            }),
            _ => {}
        }
    }
}

/// Splits a file at its document marks: `---` at the beginning of a line, followed by a blank or nothing.
#[must_use]
pub fn split(text: &str) -> Vec<Part<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parts = Vec::new();
    let (mut start, mut before, mut offset) = (0, 0, 0);
    for (number, line) in (0_u32..).zip(text.split_inclusive('\n')) {
        if offset > start && is_mark(line) {
            parts.push(Part { text: text.get(start..offset).unwrap_or_default(), before });
            (start, before) = (offset, number);
        }
        offset += line.len();
    }
    parts.push(Part { text: text.get(start..).unwrap_or_default(), before });
    parts
}

fn is_mark(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// Reads one document; a document without content is [`Value::Null`].
///
/// # Errors
/// [`SyntaxError`] with the line of the file; also for what is nested too deep or is more than `work` has left.
pub fn parse(part: Part<'_>, work: &mut Work) -> Result<Node, SyntaxError> {
    let options = options! {
        budget: budget! {
            max_depth: MAX_DEPTH,
            max_nodes: work.left,
            max_aliases: work.most_aliases,
            // Nodes bound a file of many aliases as well.
            enforce_alias_anchor_ratio: work.most_aliases <= MAX_ALIASES,
        },
        with_snippet: false,
        strict_booleans: true,
        legacy_octal_numbers: work.numbers == Numbers::Octal,
    };
    VISITED.set(0);
    let read: Result<Node, _> = serde_saphyr::from_str_with_options(part.text, options);
    // Nodes that the library counted and we never saw are few: it stops at the first one too many.
    let margin = work.left / 100;
    work.left = work.left.saturating_sub(VISITED.get());
    if read.is_err() && work.left <= margin {
        work.left = 0;
    }
    let mut node = read.map_err(|error| {
        let line = error.location().map_or(1, |location| narrow(location.line()));
        SyntaxError { line: part.before.saturating_add(line), what: bounded(&error.to_string()) }
    })?;
    node.shift(part.before);
    Ok(node)
}

fn narrow(line: u64) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX).max(1)
}

// The library repeats its own relative line at the end, and may quote the input; ours says the line of the file.
fn bounded(message: &str) -> String {
    let message = message.split(" at line ").next().unwrap_or(message);
    let message = message.split(", set ").next().unwrap_or(message);
    message.chars().filter(|char| !char.is_control()).take(300).collect()
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        VISITED.set(VISITED.get() + 1);
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { line: narrow(spanned.referenced.line()), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Float(value as f64), Value::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map: Vec<Entry> = Vec::new();
        while let Some((key, node)) = entries.next_entry::<Node, Node>()? {
            let line = key.line;
            let key = match key.value {
                Value::Text(text) => text,
                // As Kubernetes reads them: `8080: …` is the key "8080".
                Value::Integer(number) => number.to_string(),
                Value::Bool(truth) => truth.to_string(),
                other => {
                    return Err(A::Error::custom(format!("{} is no key, only a text is", other.name())));
                }
            };
            map.push(Entry { key, line, node });
        }
        // The library saw `8080` and `"8080"` as two keys, and the same text with another tag as well.
        let mut keys = HashSet::new();
        if let Some(twice) = map.iter().find(|entry| !keys.insert(&*entry.key)) {
            return Err(A::Error::custom(format!("{REPEATED}{}", twice.key)));
        }
        Ok(Value::Map(map))
    }
}
