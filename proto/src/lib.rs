//! What both sides of Douane mean: the wire, identities, resources, policies and the pure decision.
//!
//! Knows no sockets, no clocks, no tasks. `ca` says these things, `proxy` acts on them.
//!
//! - [`wire`]: messages and stubs, generated from `douane/v1/*.proto`, and [`codec`], which writes them;
//!   [`workload_api`]: those of the SPIFFE Workload API; [`istio`]: those of Istio's certificate service
//! - [`id`]: who a workload is
//! - [`bundle`]: the bundle of a trust domain as others read it
//! - [`svid`]: certificates, trust bundles, and the identity in a certificate
//! - [`features`]: what a sidecar understands
//! - [`mesh`]: workloads, services, endpoints, outside hosts
//! - [`snapshot`]: what one sidecar knows of the mesh
//! - [`resource`]: the Kubernetes and Istio kinds an operator writes, from YAML
//! - [`yaml`]: text to a tree that knows its lines
//! - [`policy`]: compiled policies and the decision
//! - [`law`]: which of all policies govern a workload; [`mtls`]: whom it lets connect
//! - [`authentication`]: the tokens of a request
//! - [`facts`]: what is decided on; [`target`]: a request target and its one normalized form
//! - [`request`]: what a policy may see of a request
//! - [`hint`]: when it is worth asking again
//! - [`figures`]: how durations are counted
//! - [`jwt`]: is this token signed by one of these keys, and for us?

pub mod authentication;
pub mod bundle;
pub mod codec;
pub mod facts;
pub mod figures;
pub mod hint;
pub mod id;
pub mod jwt;
pub mod law;
pub mod mesh;
pub mod mtls;
pub mod policy;
pub mod request;
pub mod resource;
pub mod snapshot;
pub mod svid;
pub mod target;
pub mod yaml;

/// The wire, as generated from `douane/v1/*.proto` (checked in; `tests/generated.rs` keeps it fresh).
pub mod wire {
    #![allow(
        missing_docs,
        unused_qualifications,
        clippy::all,
        clippy::use_self,
        clippy::needless_pass_by_value,
        clippy::allow_attributes_without_reason,
        reason = "generated code"
    )]
    include!("gen/douane.v1.rs");
}

/// The SPIFFE Workload API, as generated from `spiffe/workload.proto` (checked in as well).
pub mod workload_api {
    #![allow(
        missing_docs,
        unused_qualifications,
        clippy::all,
        clippy::use_self,
        clippy::needless_pass_by_value,
        clippy::allow_attributes_without_reason,
        reason = "generated code"
    )]
    include!("gen/spiffe.rs");

    /// What reflection tells of it: an encoded `FileDescriptorSet`.
    pub const DESCRIPTORS: &[u8] = include_bytes!("gen/spiffe.descriptors");

    // Never a key, never a token.
    macro_rules! silent {
        ($($message:ty),*) => {$(
            impl std::fmt::Debug for $message {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.debug_struct(stringify!($message)).finish_non_exhaustive()
                }
            }
        )*};
    }
    silent!(X509svid, Jwtsvid, ValidateJwtsvidRequest);
}

/// Istio's certificate service, as generated from `istio/ca.proto` (checked in as well).
pub mod istio {
    #![allow(
        missing_docs,
        unused_qualifications,
        clippy::all,
        clippy::use_self,
        clippy::needless_pass_by_value,
        clippy::allow_attributes_without_reason,
        reason = "generated code"
    )]
    include!("gen/istio.v1.auth.rs");
}

/// What a sidecar of this version understands of a policy; it lists them in its hello.
pub mod features {
    /// Sources, operations and conditions of the first version.
    pub const POLICY_V1: &str = "policy/v1";
    /// Tokens, CUSTOM, AUDIT, dry-run, trust domains, client addresses, unreadable parts, and modes of mutual TLS.
    pub const POLICY_V2: &str = "policy/v2";
    /// All of them.
    pub const ALL: &[&str] = &[POLICY_V1, POLICY_V2];
}
