//! What a verified token says.

use serde_json::{Map, Value};

/// What a verified token claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims(pub(super) Map<String, Value>);

impl From<Map<String, Value>> for Claims {
    /// What somebody else verified.
    fn from(claims: Map<String, Value>) -> Self {
        Self(claims)
    }
}

impl Claims {
    /// A claim as it was written.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0.iter()
    }

    /// A claim inside of claims: the value that is reached by one name after the other.
    #[must_use]
    pub fn at<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Option<&Value> {
        let mut names = path.into_iter();
        let first = self.get(names.next()?)?;
        names.try_fold(first, |value, name| value.as_object()?.get(name))
    }

    /// `sub`.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.0.get("sub")?.as_str()
    }

    /// `exp`, seconds since 1970.
    #[must_use]
    pub fn expires(&self) -> Option<u64> {
        self.0.get("exp").and_then(date)
    }

    /// `iss`.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.0.get("iss")?.as_str()
    }

    // A single text or a list (RFC 7519 4.1.3).
    pub(super) fn has_audience(&self, wanted: &[String]) -> bool {
        let is_wanted =
            |value: &Value| value.as_str().is_some_and(|text| wanted.iter().any(|one| one == text));
        match self.0.get("aud") {
            Some(Value::Array(list)) => list.iter().any(is_wanted),
            Some(value) => is_wanted(value),
            None => false,
        }
    }
}

// NumericDate may have a fraction (RFC 7519 2); whole seconds are enough.
pub(super) fn date(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let seconds = value.as_f64().filter(|seconds| (0.0..1e15).contains(seconds))?;
        Some(seconds as u64)
    })
}
