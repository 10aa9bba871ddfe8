//! What is wrong with a single value or key, before it is known where it stands.

/// What is wrong, and how to mend it.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) mend: &'static str,
}

/// What is wrong, and how to mend it.
pub(super) fn wrong(what: String, mend: &'static str) -> Wrong {
    Wrong { what, mend }
}

/// What a policy said, cut to a length that fits a log line.
pub(super) fn bounded(text: &str) -> String {
    text.chars().take(100).collect()
}
