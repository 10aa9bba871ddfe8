//! A value that knows its line, and what is wrong at a line.

use std::ops::Deref;

/// A value and the line that it was written on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Counted from 1.
    pub line: u32,
}

/// What is wrong at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// Counted from 1 in the file.
    pub line: u32,
    /// What is wrong.
    pub what: String,
    /// How to mend it.
    pub mend: String,
    /// Which sort of error it is.
    pub cause: Cause,
}

/// Which sort of error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The file holds no document at all: being written, or cut.
    Empty,
    /// Too large, or too many documents.
    Bound,
    /// Not YAML.
    Syntax,
    /// A kind, field, action or mode that this version does not implement.
    Unsupported,
    /// Anything else that is wrong with it.
    Invalid,
}

impl<T> Deref for Located<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}
