//! The name of an image, which says exactly which one: with a tag other than `latest`, or a digest.
//!
//! Knows no registry: whether there is such an image shows when a node pulls it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Registries take no longer names.
const MAX_BYTES: usize = 512;

/// The name of an image, such as `registry.example/douane:0.1.0`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Image(String);

/// Why a text names no image that we would run.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ImageError {
    /// Something else than a name.
    #[error("{0:?} is no name of an image; write one such as registry.example/douane:0.1.0")]
    Malformed(String),
    /// Which one it is depends on the day.
    #[error("{0:?} may be another image tomorrow; name a version (:0.1.0) or a digest (@sha256:…)")]
    Moving(String),
}

impl Image {
    pub(super) fn of_version(name: &str, version: &str) -> Self {
        Self(format!("{name}:{version}"))
    }
}

impl FromStr for Image {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let malformed = || ImageError::Malformed(text.to_owned());
        let moving = || ImageError::Moving(text.to_owned());
        let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
        let begins_well = text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
        if text.len() > MAX_BYTES || !text.bytes().all(is_known) || !begins_well {
            return Err(malformed());
        }
        if let Some((name, digest)) = text.split_once('@') {
            let hex = digest.strip_prefix("sha256:").ok_or_else(malformed)?;
            let is_digest = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
            return if is_digest && !name.is_empty() { Ok(Self(text.to_owned())) } else { Err(malformed()) };
        }
        // A colon before the last slash belongs to the registry's port.
        let last = text.rsplit('/').next().unwrap_or(text);
        match last.split_once(':') {
            Some((name, tag)) if name.is_empty() || tag.is_empty() || tag.contains(':') => Err(malformed()),
            Some((_, "latest")) => Err(moving()),
            Some(_) => Ok(Self(text.to_owned())),
            None if last.is_empty() => Err(malformed()),
            None => Err(moving()),
        }
    }
}

impl TryFrom<String> for Image {
    type Error = ImageError;

    fn try_from(text: String) -> Result<Self, ImageError> {
        text.parse()
    }
}

impl From<Image> for String {
    fn from(image: Image) -> Self {
        image.0
    }
}

impl fmt::Display for Image {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_says_which_one_it_is() {
        let digest = format!("registry.example/douane@sha256:{}", "a0".repeat(32));
        for good in ["douane:0.1.0", "registry.example:5000/team/douane:v1-rc.2", &digest] {
            assert_eq!(good.parse::<Image>().unwrap().to_string(), good);
        }
        for moving in ["douane", "douane:latest", "registry.example:5000/douane"] {
            assert_eq!(moving.parse::<Image>(), Err(ImageError::Moving(moving.to_owned())));
        }
        for no_image in
            ["", ":1", "douane:", "a b:1", "douane:1\nkind: Pod", "x:1:2", "-x:1", "x@sha256:abc", "x/"]
        {
            assert_eq!(no_image.parse::<Image>(), Err(ImageError::Malformed(no_image.to_owned())));
        }
    }
}
