//! Which of Istio's ways to normalize a path a mesh has chosen.

/// How request paths are normalized (Istio's `pathNormalization`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PathNormalization {
    /// RFC 3986 6.2.2: dot segments, unreserved escapes, backslash as slash. The default.
    #[default]
    Base,
    /// The same, and repeated slashes are one.
    MergeSlashes,
    /// The same, and escaped slashes are slashes (`%2F`, `%5C`) before anything else.
    DecodeAndMergeSlashes,
    /// As it came; what cannot be a path is refused all the same.
    None,
}
