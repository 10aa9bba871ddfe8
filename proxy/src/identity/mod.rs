//! Who am I: a fresh key and certificate from the control plane, renewed long before it ends; and whom do I trust: the
//! trust bundle, as the control plane pushes it. The one writer of the live `Identity`.
//!
//! - [`issuer`]: one certificate: key, request, evidence, and our own checks of the answer
//! - [`renew`]: when the next one is due, and what happens until it comes
//! - [`source`]: the same from a SPIFFE Workload API that is not ours
//! - [`application`]: the application's own certificate, with a key that is not ours; [`tokens`]: its JWT-SVIDs
//!
//! Handshakes read the value in `tls`. Knows nothing of traffic.

pub mod application;
mod clock;
pub mod issuer;
pub mod renew;
pub mod source;
pub mod tokens;
