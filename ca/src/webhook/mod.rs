//! The admission webhook: what the API server asks before it stores a pod or a policy.
//!
//! `review` reads its questions and writes our answers, `judge` decides (by `inject` and `policy lint`), `serve` a visit.
//! Fails closed: what cannot be read or judged is not let in. Knows not how a connection is secured (`tls`), nor how the API
//! server learns of us.

mod judge;
mod review;
mod serve;

pub use judge::{both, mutate, validate};
pub use review::{NoReview, Review, Verdict};
pub use serve::{Bench, visit};
