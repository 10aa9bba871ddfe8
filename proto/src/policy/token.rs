//! What a policy sees of the token that verified: its principal, and its claims.

use serde_json::Value;

use super::pattern::{Case, Pattern};
use crate::facts::Token;

/// Claims that are lists of words wherever they are a text.
const ALWAYS_SPACED: [&str; 2] = ["scope", "permission"];

/// Issuer and subject of the token, which make its principal; there is none where one of them is missing or empty.
pub(super) fn principal(token: &Token) -> Option<(&str, &str)> {
    let text = |name| token.claims.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    text("iss").zip(text("sub"))
}

/// Does the claim that `names` lead to match? It must be a text, or a list with a text; numbers and the like never match.
pub(super) fn claim_matches(token: &Token, names: &[String], pattern: &Pattern) -> bool {
    let matches = |text: &str| pattern.matches(text.as_bytes(), Case::Sensitive);
    match claim(token, names) {
        Some(Value::String(text)) if is_spaced(token, names) => {
            text.split(' ').filter(|word| !word.is_empty()).any(matches)
        }
        Some(Value::String(text)) => matches(text),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).any(matches),
        _ => false,
    }
}

/// The claim that `names` lead to.
pub(super) fn claim<'a>(token: &'a Token, names: &[String]) -> Option<&'a Value> {
    let (first, inner) = names.split_first()?;
    inner.iter().try_fold(token.claims.get(first)?, |value, name| value.as_object()?.get(name))
}

// Only claims of the first level are lists of words.
fn is_spaced(token: &Token, names: &[String]) -> bool {
    let [name] = names else { return false };
    ALWAYS_SPACED.contains(&name.as_str()) || token.spaced.contains(name)
}
