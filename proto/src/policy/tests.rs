//! The table of Istio's semantics, and a naive oracle.
