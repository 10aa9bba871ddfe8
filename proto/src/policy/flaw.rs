//! What is wrong with a policy, and at which of its fields.

use std::fmt;

/// What is wrong with a field of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFlaw {
    /// The way to it from the policy's `spec`.
    pub path: Vec<Step>,
    /// What is wrong.
    pub what: String,
    /// How to mend it.
    pub mend: String,
    /// It is not wrong in itself, but this version does not implement it.
    pub unsupported: bool,
}

/// A step of the way to a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Into a field, by its name in YAML.
    Field(&'static str),
    /// Into an entry of a list, counted from 0.
    Item(usize),
}

impl PolicyFlaw {
    /// The way to the field as text: `rules[0].from[1].source.ipBlocks[0]`.
    #[must_use]
    pub fn place(&self) -> String {
        let mut place = String::new();
        for step in &self.path {
            match step {
                Step::Field(name) if place.is_empty() => place.push_str(name),
                Step::Field(name) => {
                    place.push('.');
                    place.push_str(name);
                }
                Step::Item(index) => {
                    place.push('[');
                    place.push_str(&index.to_string());
                    place.push(']');
                }
            }
        }
        place
    }
}

impl fmt::Display for PolicyFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, mend, .. } = self;
        match self.place().as_str() {
            "" => write!(f, "{what}; {mend}"),
            place => write!(f, "{place}: {what}; {mend}"),
        }
    }
}
