//! Client programs: what an operator runs inside a pod to see what its application would see. Each prints what it
//! got, for people or as JSON lines.

pub(crate) mod get;
pub(crate) mod grpc;
pub(crate) mod ledger;
pub(crate) mod load;
pub(crate) mod tls_probe;
