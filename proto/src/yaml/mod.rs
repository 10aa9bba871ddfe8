//! YAML as operators write it: a tree in which every node knows its line, and a cursor that reads it and says where and
//! how it is wrong.
//!
//! Knows no kinds: [`crate::resource`] reads those, and the operator's commands their own files.

mod cursor;
mod json;
mod place;
mod tree;

pub use cursor::{Cursor, Fields, Manner, bounded};
pub use place::{Cause, Flaw, Located};
pub use tree::{Entry, Node, Part, SyntaxError, Value, Work, parse, split};
