//! A request target and its one normalized form: the same bytes are decided on, routed by and sent on.
//!
//! Knows not where the target came from; what it cannot normalize without doubt it refuses. The rules of a host are in
//! `authority`, those of a path in `path`.

mod authority;
mod normalization;
mod path;

pub use normalization::PathNormalization;

/// Longer targets are refused; servers commonly stop at 8 KiB.
const MAX_BYTES: usize = 64 * 1024;

/// Host and path of a request, normalized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `:authority` or `Host`: lower case, port included, without the trailing dot of an absolute name.
    pub authority: String,
    /// Normalized path without query and fragment, beginning with `/` (or `*` for `OPTIONS *`).
    pub path: String,
    /// The query without `?`, as sent.
    pub query: Option<String>,
}

/// Why a target is refused; answered with 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The authority is empty, or holds user information or a character it must not.
    #[error("the host of the request is invalid: {0}")]
    Authority(&'static str),
    /// The path cannot be normalized without doubt.
    #[error("the path of the request is invalid: {0}")]
    Path(&'static str),
}

impl Target {
    /// Normalizes `authority` and `path_and_query` (origin form, or `*`).
    ///
    /// # Errors
    /// [`TargetError`] names the rule that it breaks.
    ///
    /// ```
    /// use douane_proto::target::{PathNormalization, Target};
    ///
    /// let target = Target::parse("Orders.Shop:80", "/a/./b/../%63?q=1", PathNormalization::Base).unwrap();
    /// assert_eq!(target.authority, "orders.shop:80");
    /// assert_eq!(target.path, "/a/c");
    /// assert_eq!(target.path_and_query(), "/a/c?q=1");
    ///
    /// assert!(Target::parse("user@orders", "/", PathNormalization::Base).is_err());
    /// assert!(Target::parse("orders", "/a/..;x/admin", PathNormalization::Base).is_err());
    /// ```
    pub fn parse(
        authority: &str,
        path_and_query: &str,
        normalization: PathNormalization,
    ) -> Result<Self, TargetError> {
        if authority.len() > MAX_BYTES || path_and_query.len() > MAX_BYTES {
            return Err(TargetError::Path("it is too long"));
        }
        let authority = authority::normalize(authority).map_err(TargetError::Authority)?;
        let (path, query) = match path_and_query.split_once('?') {
            Some((path, query)) => (path, Some(path::check_query(query).map_err(TargetError::Path)?)),
            None => (path_and_query, None),
        };
        let path = match (path, query) {
            ("*", None) => "*".to_owned(),
            (path, _) => path::normalize(path, normalization).map_err(TargetError::Path)?,
        };
        Ok(Self { authority, path, query: query.map(str::to_owned) })
    }

    /// Path and query as they are sent on.
    #[must_use]
    pub fn path_and_query(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }

    /// The host without its port, as services are looked up by it; an IPv6 address is without its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        if let Some(rest) = self.authority.strip_prefix('[') {
            return rest.split(']').next().unwrap_or_default();
        }
        self.authority.split(':').next().unwrap_or_default()
    }

    /// The port that the authority names.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        let after = self.authority.rsplit(']').next().unwrap_or_default();
        after.split_once(':').and_then(|(_, port)| port.parse().ok())
    }
}

#[cfg(test)]
mod tests;
