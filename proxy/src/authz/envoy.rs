//! The messages of gRPC authorizers, as generated from `external_auth.proto` (checked in; `tests/generated.rs` keeps them
//! fresh).

#![allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::use_self,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

include!("gen/envoy.service.auth.v3.rs");
