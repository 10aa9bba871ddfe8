//! A tree as YAML: block style, two spaces, lists at the indentation of their key, as kubectl writes it.
//!
//! Readers of YAML 1.1 and 1.2 must both read what was meant, so that `no`, `0644` and `1:30` stand in quotes.

use std::fmt::Write as _;

use super::tree::{Map, Tree};

/// Words that some reader takes for something else than a text.
const WORDS: [&str; 11] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"];
/// Endings of quantities and durations, which no reader takes for numbers.
const UNITS: [&str; 10] = ["m", "Ki", "Mi", "Gi", "Ti", "s", "h", "ms", "G", "M"];

/// A whole document, without its mark.
#[must_use]
pub fn yaml(tree: &Tree) -> String {
    let mut text = String::new();
    match tree {
        Tree::Map(map) if !tree.is_empty() => write_map(map, 0, &mut text),
        Tree::List(items) if !tree.is_empty() => write_list(items, 0, &mut text),
        scalar => {
            write_scalar(scalar, 0, &mut text);
            text.push('\n');
        }
    }
    text
}

fn write_map(map: &Map, indent: usize, text: &mut String) {
    for (index, (key, value)) in map.iter().enumerate() {
        // The first entry of an item stands behind its dash.
        if index > 0 || text.is_empty() || text.ends_with('\n') {
            pad(indent, text);
        }
        write_text(key, text);
        text.push(':');
        match value {
            Tree::Map(map) if !value.is_empty() => {
                text.push('\n');
                write_map(map, indent + 2, text);
            }
            Tree::List(items) if !value.is_empty() => {
                text.push('\n');
                write_list(items, indent, text);
            }
            scalar => {
                text.push(' ');
                write_scalar(scalar, indent + 2, text);
                text.push('\n');
            }
        }
    }
}

fn write_list(items: &[Tree], indent: usize, text: &mut String) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 || text.is_empty() || text.ends_with('\n') {
            pad(indent, text);
        }
        text.push_str("- ");
        match item {
            Tree::Map(map) if !item.is_empty() => write_map(map, indent + 2, text),
            Tree::List(items) if !item.is_empty() => write_list(items, indent + 2, text),
            scalar => {
                write_scalar(scalar, indent + 2, text);
                text.push('\n');
            }
        }
    }
}

fn write_scalar(scalar: &Tree, indent: usize, text: &mut String) {
    match scalar {
        Tree::Null => text.push_str("null"),
        Tree::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
        // Writing into a String cannot fail.
        Tree::Number(number) => drop(write!(text, "{number}")),
        Tree::List(_) => text.push_str("[]"),
        Tree::Map(_) => text.push_str("{}"),
        Tree::Text(words) if is_block(words) => write_block(words, indent, text),
        Tree::Text(words) => write_text(words, text),
    }
}

fn write_block(words: &str, indent: usize, text: &mut String) {
    let (lines, mark) = words.strip_suffix('\n').map_or((words, "|-"), |lines| (lines, "|"));
    text.push_str(mark);
    for line in lines.split('\n') {
        text.push('\n');
        if !line.is_empty() {
            pad(indent, text);
            text.push_str(line);
        }
    }
}

fn write_text(words: &str, text: &mut String) {
    if is_plain(words) {
        return text.push_str(words);
    }
    text.push('"');
    for char in words.chars() {
        match char {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\r' => text.push_str("\\r"),
            ' '..='~' => text.push(char),
            char if char.is_alphanumeric() => text.push(char),
            // Everything else in a form that no reader can misunderstand.
            char if u32::from(char) <= 0xFFFF => drop(write!(text, "\\u{:04x}", u32::from(char))),
            char => drop(write!(text, "\\U{:08x}", u32::from(char))),
        }
    }
    text.push('"');
}

fn pad(indent: usize, text: &mut String) {
    text.extend(std::iter::repeat_n(' ', indent));
}

// Scripts and configuration files in manifests are read by humans.
fn is_block(words: &str) -> bool {
    let lines = words.strip_suffix('\n').unwrap_or(words);
    let printable =
        |char: char| char == '\n' || char == '\t' || (' '..='~').contains(&char) || char.is_alphanumeric();
    lines.contains('\n')
        && !lines.ends_with('\n')
        && !lines.starts_with([' ', '\n', '\t'])
        && words.chars().all(printable)
}

fn is_plain(words: &str) -> bool {
    let Some(first) = words.bytes().next() else { return false };
    let is_quantity = || {
        UNITS.iter().any(|unit| {
            words.strip_suffix(unit).is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        })
    };
    if first.is_ascii_digit() {
        return is_quantity();
    }
    let starts = first.is_ascii_alphabetic() || matches!(first, b'/' | b'_' | b'$');
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./@%+=,()$;^~: ".contains(&byte);
    let is_word = WORDS.iter().any(|word| words.eq_ignore_ascii_case(word));
    starts && !is_word && words.bytes().all(plain) && !words.ends_with([' ', ':']) && !words.contains(": ")
}
