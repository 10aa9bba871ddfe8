//! A manifest as a tree that keeps what it does not know: every field, and the order in which they stand.
//!
//! Typed structs would drop the fields of a newer Kubernetes. Knows no kinds.

use douane_proto::yaml::{Entry, Node, Value as Written};
use serde_json::Number;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Tree {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Self>),
    /// A map.
    Map(Map),
}

/// Keys with their values, in order; each key once. Two in another order are the same.
#[derive(Debug, Clone, Default)]
pub struct Map(Vec<(String, Tree)>);

impl PartialEq for Map {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.iter().all(|(key, value)| other.get(key) == Some(value))
    }
}

/// A number that JSON cannot say, such as `.nan`, at this line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoNumber(pub u32);

impl Tree {
    /// A map of these.
    pub fn map<'a>(entries: impl IntoIterator<Item = (&'a str, Self)>) -> Self {
        Self::Map(Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()))
    }

    /// A list of texts.
    pub fn texts<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::List(texts.into_iter().map(|text| Self::Text(text.into())).collect())
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.as_map()?.get(key)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        self.as_map_mut()?.get_mut(key)
    }

    /// The value behind several keys.
    #[must_use]
    pub fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |tree, key| tree.get(key))
    }

    /// The same, to be changed.
    pub fn at_mut(&mut self, path: &[&str]) -> Option<&mut Self> {
        path.iter().try_fold(self, |tree, key| tree.get_mut(key))
    }

    /// A text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Is it `true`?
    #[must_use]
    pub fn is_true(&self) -> bool {
        *self == Self::Bool(true)
    }

    /// A whole number that is not negative.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => number.as_u64(),
            _ => None,
        }
    }

    /// A list's items; none when it is no list.
    #[must_use]
    pub fn items(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            _ => &[],
        }
    }

    /// The items of the list at a key; none when there is no such list.
    #[must_use]
    pub fn items_at(&self, key: &str) -> &[Self] {
        self.get(key).map_or(&[], Self::items)
    }

    /// A map.
    #[must_use]
    pub fn as_map(&self) -> Option<&Map> {
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub fn as_map_mut(&mut self) -> Option<&mut Map> {
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    /// Makes this a map, unless it is one.
    pub fn map_here(&mut self) -> &mut Map {
        if self.as_map().is_none() {
            *self = Self::Map(Map::default());
        }
        match self {
            Self::Map(map) => map,
            // It was made one above.
            _ => unreachable!("a map"),
        }
    }

    /// Makes this a list, unless it is one.
    pub fn list_here(&mut self) -> &mut Vec<Self> {
        if !matches!(self, Self::List(_)) {
            *self = Self::List(Vec::new());
        }
        match self {
            Self::List(items) => items,
            // It was made one above.
            _ => unreachable!("a list"),
        }
    }

    /// Does it hold nothing? `null`, an empty list or map.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Null => true,
            Self::List(items) => items.is_empty(),
            Self::Map(map) => map.0.is_empty(),
            _ => false,
        }
    }

    /// What a manifest says.
    ///
    /// # Errors
    /// A number that JSON cannot say, with its line.
    pub fn read(node: &Node) -> Result<Self, NoNumber> {
        Ok(match &node.value {
            Written::Null => Self::Null,
            Written::Bool(value) => Self::Bool(*value),
            Written::Integer(value) => Self::Number((*value).into()),
            Written::Float(value) => Self::Number(Number::from_f64(*value).ok_or(NoNumber(node.line))?),
            Written::Text(text) => Self::Text(text.clone()),
            Written::List(items) => Self::List(items.iter().map(Self::read).collect::<Result<_, _>>()?),
            Written::Map(entries) => {
                let entry = |entry: &Entry| Ok((entry.key.clone(), Self::read(&entry.node)?));
                Self::Map(Map(entries.iter().map(entry).collect::<Result<_, _>>()?))
            }
        })
    }

    /// As JSON on one line.
    #[must_use]
    pub fn json_text(&self) -> String {
        // Texts as keys and numbers that are numbers: nothing that JSON cannot say.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Map {
    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Tree> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Tree> {
        self.0.iter_mut().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    /// All keys and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tree)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Puts a value at a key: where it stands, or at the end.
    pub fn put(&mut self, key: &str, value: impl Into<Tree>) {
        let value = value.into();
        match self.get_mut(key) {
            Some(there) => *there = value,
            None => self.0.push((key.to_owned(), value)),
        }
    }

    /// A map of entries whose keys differ.
    #[must_use]
    pub fn of(entries: Vec<(String, Tree)>) -> Self {
        Self(entries)
    }

    /// Puts another key and value in the place of a key.
    pub fn exchange(&mut self, key: &str, by: &str, value: Tree) {
        if let Some(entry) = self.0.iter_mut().find(|(known, _)| known == key) {
            *entry = (by.to_owned(), value);
        }
    }

    /// The value of a key, made when there is none (`null` is none).
    pub fn or_null(&mut self, key: &str) -> &mut Tree {
        let index = self.0.iter().position(|(known, _)| known == key).unwrap_or_else(|| {
            self.0.push((key.to_owned(), Tree::Null));
            self.0.len() - 1
        });
        match self.0.get_mut(index) {
            Some((_, value)) => value,
            // It was put there above.
            None => unreachable!("an entry"),
        }
    }

    /// Takes a key away.
    pub fn remove(&mut self, key: &str) -> Option<Tree> {
        let index = self.0.iter().position(|(known, _)| known == key)?;
        Some(self.0.remove(index).1)
    }
}

impl From<&str> for Tree {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Tree {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Tree {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u64> for Tree {
    fn from(value: u64) -> Self {
        Self::Number(value.into())
    }
}
