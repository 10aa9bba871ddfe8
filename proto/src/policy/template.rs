//! Path templates: `{*}` is one segment that is not empty, `{**}`, once and as the last operator, is any number of
//! characters over segments.

use super::spelling;

/// A path with template operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    /// Segments before `{**}`, or all of them.
    head: Vec<Part>,
    /// Literal segments after `{**}`; `None` without one.
    tail: Option<Box<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    One,
}

impl Template {
    /// Must this value be read as a template? Any brace is an operator's, or wrong: no path has it unescaped.
    pub(super) fn is_one(value: &str) -> bool {
        value.contains(['{', '}'])
    }

    /// Parses a value, or says which rule it breaks.
    pub(super) fn parse(value: &str) -> Result<Self, &'static str> {
        let path = value.strip_prefix('/').ok_or("a path template begins with /")?;
        let mut head = Vec::new();
        let mut tail: Option<String> = None;
        let mut segments = path.split('/').peekable();
        while let Some(segment) = segments.next() {
            if segment.is_empty() && segments.peek().is_some() {
                return Err("no segment but the last is empty");
            }
            match (segment, &mut tail) {
                ("{*}" | "{**}", Some(_)) => return Err("{**} must be the last operator"),
                ("{*}", None) => head.push(Part::One),
                ("{**}", None) => tail = Some(String::new()),
                (literal, _) if !literal.bytes().all(is_pchar) => {
                    return Err(
                        "an operator is a whole segment, {*} or {**}; other segments are plain path text",
                    );
                }
                (literal, Some(tail)) => {
                    tail.push('/');
                    tail.push_str(literal);
                }
                (literal, None) => head.push(Part::Literal(literal.into())),
            }
        }
        Ok(Self { head, tail: tail.map(Into::into) })
    }

    /// The text before the first operator, with which each path that matches begins.
    pub(super) fn beginning(&self) -> String {
        let mut beginning = "/".to_owned();
        for part in &self.head {
            let Part::Literal(text) = part else { break };
            beginning.push_str(text);
            beginning.push('/');
        }
        if !self.head.contains(&Part::One) && self.tail.is_none() {
            beginning.pop();
        }
        beginning
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        let Some(mut rest) = path.strip_prefix('/') else { return false };
        for (index, part) in self.head.iter().enumerate() {
            let last = index + 1 == self.head.len() && self.tail.is_none();
            let (segment, after) = match (last, rest.split_once('/')) {
                (true, _) => (rest, ""),
                (false, Some(split)) => split,
                (false, None) => return false,
            };
            let fits = match part {
                Part::Literal(text) => spelling::is_same(segment.as_bytes(), text.as_bytes()),
                Part::One => !segment.is_empty() && !segment.contains('/'),
            };
            if !fits {
                return false;
            }
            rest = after;
        }
        self.tail.as_deref().is_none_or(|tail| spelling::ends_with(rest.as_bytes(), tail.as_bytes()))
    }
}

// RFC 3986 3.3, without `*`, which a template does not take as a literal.
fn is_pchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;=:@".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_match_segments() {
        for (template, path, expected) in [
            ("/a/{*}/c", "/a/b/c", true),
            ("/a/{*}/c", "/a//c", false),
            ("/a/{*}/c", "/a/b/b/c", false),
            ("/a/{*}", "/a/b", true),
            ("/a/{*}", "/a/b/", false),
            ("/a/{*}", "/a/", false),
            ("/a/{**}", "/a/", true),
            ("/a/{**}", "/a/b/c", true),
            ("/a/{**}", "/a", false),
            ("/{**}", "/", true),
            ("/{**}/x.txt", "/a/b/x.txt", true),
            ("/{**}/x.txt", "/a/b/y.txt", false),
            ("/{*}/{**}/end", "/a/b/c/end", true),
            ("/{*}/{**}/end", "/a/end", false),
            ("/a/{*}", "/a/*", true),
            ("/{**}", "*", false),
        ] {
            let template_parsed = Template::parse(template).unwrap();
            assert_eq!(template_parsed.matches(path), expected, "{template} on {path}");
        }
    }

    #[test]
    fn broken_templates_are_refused() {
        for value in [
            "{*}",
            "/a{*}",
            "/{*}b",
            "/{**}/{*}",
            "/{**}/{**}",
            "/a*/{*}",
            "/{a}/{*}",
            "/{*}/{",
            "/ü/{*}",
            "/{id}",
            "/a/{***}",
            "/a}",
            "/{",
            "*{id}",
            "/a//{*}",
            "/{**}//b",
        ] {
            assert!(Template::is_one(value), "{value}");
            assert!(Template::parse(value).is_err(), "{value}");
        }
    }
}
