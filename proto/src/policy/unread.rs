//! What could not be read of a part of a policy, by the names of its fields.

/// What could not be read of a part. Of a positive list that is named there nothing is known, even if a part was read.
#[derive(Clone, Copy)]
pub(super) struct Unread<'a>(pub(super) &'a [String]);

impl Unread<'_> {
    /// Is the field among it?
    pub(super) fn names(self, field: &str) -> bool {
        let words = |text: &str| text.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == field);
        self.0.iter().any(|text| words(text))
    }

    /// The values of a positive list with its name; none where one of them could not be read.
    pub(super) fn of<'v, T>(self, field: &'static str, values: &'v [T]) -> (&'static str, &'v [T]) {
        if self.names(field) { (field, &[]) } else { (field, values) }
    }
}
