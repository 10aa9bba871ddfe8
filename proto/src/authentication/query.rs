//! One `name=value` of a query, its escapes decoded once for comparing; what is sent on is never written anew.

use std::borrow::Cow;

/// The value of a part of a query that has this name.
pub(super) fn value_of<'a>(part: &'a str, name: &str) -> Option<Cow<'a, [u8]>> {
    let (named, value) = part.split_once('=').unwrap_or((part, ""));
    (*decoded(named) == *name.as_bytes()).then(|| decoded(value))
}

// As forms write it: `+` is a blank. What is no escape stays.
fn decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let (byte, next) = match (first, after) {
            (b'+', _) => (b' ', after),
            (b'%', [high, low, further @ ..]) => match digit(*high).zip(digit(*low)) {
                Some((high, low)) => (high << 4 | low, further),
                None => (b'%', after),
            },
            (byte, _) => (*byte, after),
        };
        plain.push(byte);
        rest = next;
    }
    Cow::Owned(plain)
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}
