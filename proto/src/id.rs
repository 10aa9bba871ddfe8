//! Who a workload is: trust domain, namespace and service account, and its SPIFFE ID
//! `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
//!
//! Knows nothing of certificates (see [`crate::svid`]) and of where an identity was proven (the control plane attests).

use std::{fmt, str::FromStr, sync::Arc};

use spiffe::SpiffeId;

/// SPIFFE-ID 2.3: no longer ID is issued, and none needs to be understood.
const MAX_ID_BYTES: usize = 2048;
/// SPIFFE-ID 2.3: the trust domain's part of it.
const MAX_TRUST_DOMAIN_BYTES: usize = 255;

/// A trust domain in its one valid spelling: lower case letters, digits, `.`, `-`, `_` (SPIFFE-ID 2.1).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

/// The identity of a workload. One that exists is valid: its parts are non-empty SPIFFE path segments (SPIFFE-ID 2.2).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadId(Arc<Parts>);

#[derive(PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Parts {
    trust_domain: TrustDomain,
    namespace: String,
    service_account: String,
}

/// Why a text is no identity of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a SPIFFE ID, or a trust domain that no SPIFFE ID can have.
    #[error("{text:?} is not a valid SPIFFE identity: {reason}")]
    NotSpiffe {
        /// What was read, cut to a bounded length.
        text: String,
        /// The rule that it breaks.
        reason: String,
    },
    /// A SPIFFE ID whose path is not `/ns/<namespace>/sa/<service account>`.
    #[error("{0:?} is not of the form spiffe://<trust domain>/ns/<namespace>/sa/<service account>")]
    NotAWorkload(String),
}

impl TrustDomain {
    /// Parses a bare trust domain such as `cluster.local`.
    ///
    /// # Errors
    /// [`IdError::NotSpiffe`] when a SPIFFE ID cannot have it.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        if text.len() > MAX_TRUST_DOMAIN_BYTES {
            return Err(not_spiffe(text, "a trust domain has 255 bytes at most"));
        }
        match spiffe::TrustDomain::new(text) {
            // The library also accepts a whole SPIFFE ID here; we want the bare name, in its one spelling.
            Ok(parsed) if parsed.as_str() == text => Ok(Self(text.into())),
            Ok(_) => Err(not_spiffe(text, "a bare trust domain in lower case is expected")),
            Err(error) => Err(not_spiffe(text, &error.to_string())),
        }
    }

    /// The name, such as `cluster.local`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl WorkloadId {
    /// Builds an identity from its parts.
    ///
    /// # Errors
    /// When a part is empty or holds a character that a SPIFFE path segment must not have.
    ///
    /// ```
    /// use douane_proto::id::{TrustDomain, WorkloadId};
    /// let domain = TrustDomain::parse("cluster.local").unwrap();
    /// let web = WorkloadId::new(&domain, "shop", "web").unwrap();
    /// assert_eq!(web.to_string(), "spiffe://cluster.local/ns/shop/sa/web");
    /// assert_eq!("spiffe://cluster.local/ns/shop/sa/web".parse(), Ok(web));
    /// ```
    pub fn new(trust_domain: &TrustDomain, namespace: &str, service_account: &str) -> Result<Self, IdError> {
        format!("spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}").parse()
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.0.trust_domain
    }

    /// The Kubernetes namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    /// The Kubernetes service account.
    #[must_use]
    pub fn service_account(&self) -> &str {
        &self.0.service_account
    }

    /// The SPIFFE ID without its scheme, as Istio's policies write a principal: `cluster.local/ns/shop/sa/web`.
    #[must_use]
    pub fn principal(&self) -> String {
        let Parts { trust_domain, namespace, service_account } = &*self.0;
        format!("{trust_domain}/ns/{namespace}/sa/{service_account}")
    }
}

impl FromStr for WorkloadId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.len() > MAX_ID_BYTES {
            return Err(not_spiffe(text, "an ID has 2048 bytes at most"));
        }
        let id = SpiffeId::new(text).map_err(|error| not_spiffe(text, &error.to_string()))?;
        // A valid ID has one spelling (SPIFFE-ID 2.4 compares scheme and domain without case; we issue and accept one).
        let Some(rest) = text.strip_prefix("spiffe://") else {
            return Err(not_spiffe(text, "the scheme is spiffe, in lower case"));
        };
        if id.trust_domain_name().len() > MAX_TRUST_DOMAIN_BYTES {
            return Err(not_spiffe(text, "a trust domain has 255 bytes at most"));
        }
        if rest.split('/').next() != Some(id.trust_domain_name()) {
            return Err(not_spiffe(text, "the trust domain is written in lower case"));
        }
        let mut segments = id.path().split('/').skip(1);
        let (Some("ns"), Some(namespace), Some("sa"), Some(service_account), None) =
            (segments.next(), segments.next(), segments.next(), segments.next(), segments.next())
        else {
            return Err(IdError::NotAWorkload(bounded(text)));
        };
        Ok(Self(Arc::new(Parts {
            trust_domain: TrustDomain(id.trust_domain_name().into()),
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
        })))
    }
}

impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts { trust_domain, namespace, service_account } = &*self.0;
        write!(f, "spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}")
    }
}

impl fmt::Debug for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The trust domain of any SPIFFE ID that has a path: of a workload of whatever form.
///
/// # Errors
/// [`IdError::NotSpiffe`].
pub fn spiffe_id_domain(text: &str) -> Result<TrustDomain, IdError> {
    if text.len() > MAX_ID_BYTES {
        return Err(not_spiffe(text, "an ID has 2048 bytes at most"));
    }
    let id = SpiffeId::new(text).map_err(|error| not_spiffe(text, &error.to_string()))?;
    if id.path().is_empty() || id.to_string() != text {
        return Err(not_spiffe(text, "a workload has a path, and an ID one spelling, in lower case"));
    }
    TrustDomain::parse(id.trust_domain_name())
}

fn not_spiffe(text: &str, reason: &str) -> IdError {
    IdError::NotSpiffe { text: bounded(text), reason: reason.to_owned() }
}

// Errors are logged; a peer's 2 KiB name need not be repeated whole.
fn bounded(text: &str) -> String {
    text.chars().take(256).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_are_not_exactly_a_workload_are_refused() {
        for text in [
            "",
            "spiffe://",
            "spiffe://cluster.local",
            "spiffe://cluster.local/",
            "spiffe://cluster.local/ns/a/sa",
            "spiffe://cluster.local/ns/a/sa/",
            "spiffe://cluster.local/ns/a/sa/b/",
            "spiffe://cluster.local/ns/a/sa/b/c",
            "spiffe://cluster.local/ns//sa/b",
            "spiffe://cluster.local/ns/../sa/b",
            "spiffe://cluster.local/ns/a/sa/%62",
            "spiffe://cluster.local:8080/ns/a/sa/b",
            "spiffe://user@cluster.local/ns/a/sa/b",
            "spiffe://cluster.local/ns/a/sa/b?x=1",
            "spiffe://cluster.local/ns/a/sa/b#x",
            "spiffe://Cluster.local/ns/a/sa/b",
            "SPIFFE://cluster.local/ns/a/sa/b",
            "https://cluster.local/ns/a/sa/b",
            "spiffe://cluster.local/NS/a/SA/b",
            "spiffe://cluster.local/ns/a/sa/b\0",
        ] {
            assert!(text.parse::<WorkloadId>().is_err(), "{text:?} must be refused");
        }
    }

    #[test]
    fn a_trust_domain_is_a_bare_lower_case_name() {
        assert!(TrustDomain::parse("cluster.local").is_ok());
        for text in ["", "Cluster.local", "spiffe://cluster.local", "a/b", "a b", "a:1"] {
            assert!(TrustDomain::parse(text).is_err(), "{text:?} must be refused");
        }
    }

    #[test]
    fn i4_names_have_a_longest_length() {
        let domain = TrustDomain::parse("cluster.local").unwrap();
        let rest = "spiffe://cluster.local/ns/shop/sa/".len();
        assert!(WorkloadId::new(&domain, "shop", &"a".repeat(2048 - rest)).is_ok());
        assert!(WorkloadId::new(&domain, "shop", &"a".repeat(2049 - rest)).is_err());
        assert!(TrustDomain::parse(&"a".repeat(255)).is_ok());
        assert!(TrustDomain::parse(&"a".repeat(256)).is_err());
        assert!(format!("spiffe://{}/ns/a/sa/b", "a".repeat(256)).parse::<WorkloadId>().is_err());
    }

    fn is_id(text: &str) -> bool {
        text.parse::<WorkloadId>().is_ok()
    }

    // Every byte at the first, a middle and the last place of `before X after`.
    fn allowed_at_every_place(with: impl Fn(&str) -> String, is_allowed: impl Fn(char) -> bool) {
        for byte in 0..=255_u8 {
            // Bytes from 128 on are the beginnings of longer characters: none of those is allowed either.
            let c = char::from(byte);
            for part in [format!("{c}ab"), format!("a{c}b"), format!("ab{c}")] {
                assert_eq!(is_id(&with(&part)), is_allowed(c), "{part:?}");
            }
        }
    }

    #[test]
    fn i1_an_id_has_the_scheme_a_trust_domain_and_neither_query_nor_fragment() {
        assert!(is_id("spiffe://cluster.local/ns/a/sa/b"));
        for text in [
            "cluster.local/ns/a/sa/b",
            "spiffe:/cluster.local/ns/a/sa/b",
            "spiffe:///ns/a/sa/b",
            "spiffe://cluster.local/ns/a/sa/b?",
            "spiffe://cluster.local/ns/a/sa/b?q",
            "spiffe://cluster.local/ns/a/sa/b#",
            "spiffe://cluster.local/ns/a/sa/b#f",
            " spiffe://cluster.local/ns/a/sa/b",
        ] {
            assert!(!is_id(text), "{text:?}");
        }
    }

    #[test]
    fn i2_a_trust_domain_is_made_of_few_characters_and_addresses_are_no_exception() {
        let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c);
        allowed_at_every_place(|part| format!("spiffe://{part}/ns/a/sa/b"), is_allowed);
        assert!(is_id("spiffe://10.0.0.1/ns/a/sa/b"), "the text of an IPv4 address is a name like any other");
        for text in ["[::1]", "::1", "a:80", "u@a", "u:p@a", "a%2eb", "%61"] {
            assert!(!is_id(&format!("spiffe://{text}/ns/a/sa/b")), "{text:?}");
        }
    }

    #[test]
    fn i3_a_path_has_no_empty_no_relative_and_no_escaped_segment() {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        allowed_at_every_place(|part| format!("spiffe://cluster.local/ns/{part}/sa/b"), is_allowed);
        allowed_at_every_place(|part| format!("spiffe://cluster.local/ns/a/sa/{part}"), is_allowed);
        for part in ["", ".", "..", "%2e", "a/", "/a", "a//b"] {
            assert!(!is_id(&format!("spiffe://cluster.local/ns/{part}/sa/b")), "{part:?}");
            assert!(!is_id(&format!("spiffe://cluster.local/ns/a/sa/{part}")), "{part:?}");
        }
        assert!(is_id("spiffe://cluster.local/ns/.../sa/..b"), "three dots lead nowhere");
    }

    #[test]
    fn i5_scheme_and_trust_domain_have_one_spelling_and_the_path_is_told_by_case() {
        assert!(!is_id("SPIFFE://cluster.local/ns/a/sa/b") && !is_id("spiffe://Cluster.local/ns/a/sa/b"));
        let (lower, upper) = ("spiffe://cluster.local/ns/a/sa/b", "spiffe://cluster.local/ns/a/sa/B");
        assert_ne!(lower.parse::<WorkloadId>(), upper.parse::<WorkloadId>());
    }

    proptest! {
        #[test]
        fn what_is_printed_is_what_was_parsed(ns in "[a-z0-9.-]{1,20}", sa in "[a-zA-Z0-9._-]{1,20}") {
            let domain = TrustDomain::parse("cluster.local").unwrap();
            if let Ok(id) = WorkloadId::new(&domain, &ns, &sa) {
                prop_assert_eq!(id.to_string().parse::<WorkloadId>(), Ok(id));
            }
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = text.parse::<WorkloadId>();
            let _ = TrustDomain::parse(&text);
        }
    }
}
