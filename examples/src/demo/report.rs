//! What an attempt of the demo was, what was expected of it, and what came: one line each, or one JSON array.

use std::time::Duration;

use serde::Serialize;

/// One attempt.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Its number in the script, such as `3b`.
    pub attempt: &'static str,
    /// Who tries.
    pub from: String,
    /// What is tried.
    pub to: String,
    /// What must come.
    pub expected: String,
    /// What came.
    pub actual: String,
    /// Are they the same?
    pub ok: bool,
    /// Why it came so, in the mesh's own words.
    pub why: String,
    /// How long it took.
    pub ms: f64,
}

impl Outcome {
    /// The line for people: a mark, the attempt, what came, and below it why.
    #[must_use]
    pub fn line(&self) -> String {
        let mark = if self.ok { "ok  " } else { "FAIL" };
        let way = format!("{} -> {}", self.from, self.to);
        let mut line = format!("{mark} {:<3} {way:<60} {}  ({})", self.attempt, self.actual, took(self.ms));
        if !self.ok {
            line.push_str(&format!("\n         expected: {}", self.expected));
        }
        for why in self.why.lines() {
            line.push_str(&format!("\n         {why}"));
        }
        line
    }
}

/// Milliseconds for people.
#[must_use]
pub fn took(ms: f64) -> String {
    if ms < 1000.0 { format!("{ms:.1} ms") } else { format!("{:.1} s", ms / 1000.0) }
}

/// Milliseconds of a duration, with their fraction.
#[must_use]
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(ok: bool) -> Outcome {
        Outcome {
            attempt: "2a",
            from: "intruder".into(),
            to: "orders".into(),
            expected: "403".into(),
            actual: if ok { "403" } else { "200" }.into(),
            ok,
            why: "shop/orders".into(),
            ms: 2.0,
        }
    }

    #[test]
    fn a_line_says_what_was_expected_only_where_it_did_not_come() {
        assert!(!outcome(true).line().contains("expected"));
        assert!(outcome(false).line().contains("FAIL 2a  intruder -> orders"));
        assert!(outcome(false).line().contains("expected: 403"));
    }

    #[test]
    fn the_json_form_has_the_agreed_fields() {
        let json = serde_json::to_value(outcome(true)).unwrap();

        for field in ["attempt", "from", "to", "expected", "actual", "ok", "why", "ms"] {
            assert!(json.get(field).is_some(), "{field}");
        }
    }
}
