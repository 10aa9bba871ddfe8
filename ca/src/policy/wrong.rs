//! What is wrong at a line of a file.

/// What is wrong at a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Counted from 1.
    pub line: u32,
    /// What is wrong, and how to mend it.
    pub what: String,
}
