//! A place in a document: reads what stands there as what it must be, and says where and how it is wrong.
//!
//! Knows no kinds. In a law every field counts: [`Manner::Strict`] refuses unknown fields and fields without a value
//! (a file that is still being written often ends in one). Kubernetes' own objects are read leniently, as it does.

use std::{cell::RefCell, collections::BTreeMap, net::IpAddr};

use super::{
    place::{Cause, Flaw, Located},
    tree::{Entry, Node, Value},
};

/// What a list may hold at most, so that one file cannot make the control plane slow.
const MAX_LIST: usize = 10_000;

/// How unknown and empty fields are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Unknown fields are passed over, `null` is absence.
    Lenient,
    /// Both are errors.
    Strict,
}

/// A place in a document.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    node: &'a Node,
    line: u32,
    path: String,
    manner: Manner,
}

/// The fields of a map, and which of them somebody asked for.
#[derive(Debug)]
pub struct Fields<'a> {
    at: Cursor<'a>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Cursor<'a> {
    /// The whole document.
    #[must_use]
    pub fn root(node: &'a Node, manner: Manner) -> Self {
        Self { node, line: node.line, path: String::new(), manner }
    }

    /// The line that it stands on, counted from 1.
    #[must_use]
    pub fn line(&self) -> u32 {
        self.line
    }

    /// What stands there.
    #[must_use]
    pub fn node(&self) -> &'a Node {
        self.node
    }

    /// The same place, read in another manner.
    pub fn manner(mut self, manner: Manner) -> Self {
        self.manner = manner;
        self
    }

    /// A map, read field by field.
    ///
    /// # Errors
    /// [`Flaw`] when it is none.
    pub fn fields(&self) -> Result<Fields<'a>, Flaw> {
        match self.node.value {
            Value::Map(_) => Ok(Fields { at: self.clone(), asked: RefCell::default() }),
            ref other => Err(self.not("a map of fields", other)),
        }
    }

    /// A list of 10,000 entries at most.
    ///
    /// # Errors
    /// [`Flaw`] when it is none.
    pub fn list(&self) -> Result<Vec<Self>, Flaw> {
        let items = match &self.node.value {
            Value::List(items) if items.len() <= MAX_LIST => items,
            Value::List(items) => {
                let what = format!("{} has {} entries", self.name(), items.len());
                return Err(self.flaw(what, format!("{MAX_LIST} are the most that are read")));
            }
            other => return Err(self.not("a list", other)),
        };
        let item = |(index, node): (usize, &'a Node)| Self {
            node,
            line: node.line,
            path: format!("{}[{index}]", self.path),
            manner: self.manner,
        };
        Ok(items.iter().enumerate().map(item).collect())
    }

    /// A text.
    ///
    /// # Errors
    /// [`Flaw`] when it is none.
    pub fn text(&self) -> Result<String, Flaw> {
        match &self.node.value {
            Value::Text(text) => Ok(text.clone()),
            other => Err(self.not("a text", other)),
        }
    }

    /// A text with its line.
    ///
    /// # Errors
    /// [`Flaw`] when it is none.
    pub fn located_text(&self) -> Result<Located<String>, Flaw> {
        Ok(Located { value: self.text()?, line: self.node.line })
    }

    /// A list of texts with their lines.
    ///
    /// # Errors
    /// [`Flaw`] when it is none.
    pub fn located_texts(&self) -> Result<Vec<Located<String>>, Flaw> {
        self.list()?.iter().map(Self::located_text).collect()
    }

    /// The entries of a map whose keys are values, such as port numbers: key, place.
    ///
    /// # Errors
    /// [`Flaw`] when it is no map.
    pub fn entries(&self) -> Result<Vec<(&'a str, Self)>, Flaw> {
        let Value::Map(entries) = &self.node.value else {
            return Err(self.not("a map", &self.node.value));
        };
        Ok(entries.iter().map(|entry| (&*entry.key, self.below(entry))).collect())
    }

    /// A map of texts.
    ///
    /// # Errors
    /// [`Flaw`] when it is none.
    pub fn text_map(&self) -> Result<BTreeMap<String, String>, Flaw> {
        let Value::Map(entries) = &self.node.value else {
            return Err(self.not("a map of texts", &self.node.value));
        };
        let pair = |entry: &'a Entry| Ok((entry.key.clone(), self.below(entry).text()?));
        entries.iter().map(pair).collect()
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// [`Flaw`] when it is neither.
    pub fn boolean(&self) -> Result<bool, Flaw> {
        match self.node.value {
            Value::Bool(value) => Ok(value),
            ref other => Err(self.not("true or false", other)),
        }
    }

    /// A whole number; `range` says which, for the message.
    ///
    /// # Errors
    /// [`Flaw`] when it is none, or out of range.
    pub fn integer<T: TryFrom<i64>>(&self, range: &str) -> Result<T, Flaw> {
        let Value::Integer(value) = self.node.value else {
            return Err(self.not("a whole number", &self.node.value));
        };
        T::try_from(value).map_err(|_| {
            self.flaw(format!("{} is {value}, which is out of range", self.name()), format!("write {range}"))
        })
    }

    /// A port from 1 to 65535.
    ///
    /// # Errors
    /// [`Flaw`] when it is none.
    pub fn port(&self) -> Result<u16, Flaw> {
        match self.integer("a port from 1 to 65535")? {
            0 => Err(self.flaw(format!("{} is 0", self.name()), "write a port from 1 to 65535")),
            port => Ok(port),
        }
    }

    /// An IP address, in canonical form.
    ///
    /// # Errors
    /// [`Flaw`] when it is none.
    pub fn address(&self) -> Result<Located<IpAddr>, Flaw> {
        let text = self.text()?;
        match text.parse::<IpAddr>() {
            Ok(address) => Ok(Located { value: address.to_canonical(), line: self.node.line }),
            Err(_) => Err(self.flaw(
                format!("{} is {text:?}, which is no IP address", self.name()),
                "write one such as 10.77.0.5 or fd77::5",
            )),
        }
    }

    /// A DNS name as Kubernetes' objects have them.
    pub fn object_name(&self) -> Result<String, Flaw> {
        let text = self.text()?;
        let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = text.as_bytes();
        let whole = bytes.iter().all(|byte| alphanumeric(byte) || matches!(byte, b'-' | b'.'));
        let ends = bytes.first().is_some_and(alphanumeric) && bytes.last().is_some_and(alphanumeric);
        if whole && ends && text.len() <= 253 {
            return Ok(text);
        }
        Err(self.flaw(
            format!("{} is {:?}, which Kubernetes does not accept", self.name(), bounded(&text)),
            "write lower case letters, digits, '-' and '.', 253 at most, with a letter or digit at both ends",
        ))
    }

    /// Something wrong here.
    #[must_use]
    pub fn flaw(&self, what: impl Into<String>, mend: impl Into<String>) -> Flaw {
        Flaw { line: self.line, what: what.into(), mend: mend.into(), cause: Cause::Invalid }
    }

    /// Something that this version does not implement.
    pub fn unsupported(&self, what: impl Into<String>, mend: impl Into<String>) -> Flaw {
        Flaw { cause: Cause::Unsupported, ..self.flaw(what, mend) }
    }

    /// The path of this place, as an operator would write it.
    pub fn name(&self) -> &str {
        if self.path.is_empty() { "the document" } else { &self.path }
    }

    fn not(&self, expected: &str, found: &Value) -> Flaw {
        let mend = match found {
            Value::Null => "write its value, or remove the field; the file may be half written",
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) if expected == "a text" => {
                "put it in quotes"
            }
            _ => "see the kind's reference for its form",
        };
        self.flaw(format!("{} must be {expected}, but is {}", self.name(), found.name()), mend)
    }

    fn below(&self, entry: &'a Entry) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        Self {
            node: &entry.node,
            line: entry.line,
            path: format!("{}{dot}{}", self.path, bounded(&entry.key)),
            manner: self.manner,
        }
    }
}

impl<'a> Fields<'a> {
    /// Where the map itself stands.
    pub fn at(&self) -> &Cursor<'a> {
        &self.at
    }

    /// A field that may be absent.
    pub fn optional(&self, key: &'static str) -> Result<Option<Cursor<'a>>, Flaw> {
        self.asked.borrow_mut().push(key);
        let Some(entry) = self.entries().iter().find(|entry| entry.key == key) else { return Ok(None) };
        let found = self.at.below(entry);
        match (&entry.node.value, self.at.manner) {
            (Value::Null, Manner::Lenient) => Ok(None),
            (Value::Null, Manner::Strict) => Err(found.not("a value", &Value::Null)),
            _ => Ok(Some(found)),
        }
    }

    /// A field that may be absent, or `null` in any manner: what Kubernetes itself writes so.
    pub fn nullable(&self, key: &'static str) -> Option<Cursor<'a>> {
        self.asked.borrow_mut().push(key);
        let entry = self.entries().iter().find(|entry| entry.key == key)?;
        (!matches!(entry.node.value, Value::Null)).then(|| self.at.below(entry))
    }

    /// A field that must be there.
    pub fn required(&self, key: &'static str) -> Result<Cursor<'a>, Flaw> {
        self.optional(key)?.ok_or_else(|| {
            let within = if self.at.path.is_empty() { "" } else { &self.at.path };
            let dot = if within.is_empty() { "" } else { "." };
            self.at.flaw(format!("{within}{dot}{key} is missing"), format!("add {key}"))
        })
    }

    /// `read` applied to a field, or the default when it is absent.
    pub fn read<T: Default>(
        &self,
        key: &'static str,
        read: impl FnOnce(Cursor<'a>) -> Result<T, Flaw>,
    ) -> Result<T, Flaw> {
        self.optional(key)?.map_or_else(|| Ok(T::default()), read)
    }

    /// Fields that are known and of no interest.
    pub fn pass_over(&self, keys: &[&'static str]) {
        self.asked.borrow_mut().extend_from_slice(keys);
    }

    /// Ends the reading; a field that nobody asked for is an error where the manner is strict.
    pub fn end(self) -> Result<(), Flaw> {
        match self.at.manner {
            Manner::Lenient => Ok(()),
            Manner::Strict => self.end_strictly(),
        }
    }

    /// Ends the reading; a field that nobody asked for is an error in any manner.
    ///
    /// # Errors
    /// [`Flaw`] names the first such field.
    pub fn end_strictly(self) -> Result<(), Flaw> {
        match self.strangers().into_iter().next() {
            Some((_, flaw)) => Err(flaw),
            None => Ok(()),
        }
    }

    /// The fields that nobody asked for, each with what is wrong with it.
    #[must_use]
    pub fn strangers(&self) -> Vec<(String, Flaw)> {
        let asked = self.asked.borrow();
        let unknown = self.entries().iter().filter(|entry| !asked.contains(&&*entry.key));
        let flaw = |entry: &'a Entry| {
            let place = self.at.below(entry);
            let what = format!("{} is no field that this version knows", place.name());
            (bounded(&entry.key), place.unsupported(what, format!("known here: {}", asked.join(", "))))
        };
        unknown.map(flaw).collect()
    }

    fn entries(&self) -> &'a [Entry] {
        match &self.at.node.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }
}

/// What a file said, cut to a length that fits a log line.
pub fn bounded(text: &str) -> String {
    text.chars().take(100).collect()
}
