//! The SPIFFE Workload API for the pod's applications, on a unix socket: their certificate with a key of its own, the
//! roots to verify others by, and both again whenever they change. A stock SPIFFE library needs nothing but the socket's
//! name in `SPIFFE_ENDPOINT_SOCKET`.
//!
//! - [`socket`]: the socket: who may connect, how many, for how long
//! - `authority`: what some clients call a socket
//! - `guard`: what each request must carry before anybody looks at it
//! - `doors`: which service a request is for: the Workload API, or reflection
//! - `service`: the Workload API itself; `bundles`: of our own trust domain and of others; `updates`: its streams; `tokens`: its JWT profile
//!
//! Everybody in the pod shares the pod's identity (the socket lies in the pod's own volume). Knows not how a certificate
//! is had (`identity`).

mod authority;
mod bundles;
mod doors;
mod guard;
mod service;
pub mod socket;
#[cfg(test)]
mod tests;
mod tokens;
mod updates;

use std::sync::Arc;

use douane_proto::{bundle::ForeignBundle, svid::Identity};
use tokio::sync::watch;

use crate::identity::{application::Application, tokens::Tokens};

/// What there is to serve, once the sidecar has its first certificate.
#[derive(Debug, Clone)]
pub struct Source {
    /// Whom do we trust.
    pub identity: watch::Receiver<Arc<Identity>>,
    /// Whom else.
    pub federated: watch::Receiver<Arc<[ForeignBundle]>>,
    /// The application's certificate.
    pub application: Application,
    /// Its tokens.
    pub tokens: Tokens,
}

/// Empty until there is something to serve: clients are told to come back.
pub type Sources = watch::Receiver<Option<Source>>;
