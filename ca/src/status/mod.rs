//! What the author of a policy is told about it, where it stands: `status.conditions` of each object, by `kubectl get` and
//! `kubectl describe`. Is it read, whom does it govern, and does it do what it seems to say.
//!
//! - `condition`: what is said of one object, and what of it is news; `governed`: whom a law governs
//! - `told`: what is to be written now, of everything; `kubernetes`: writes it
//!
//! What is said of a law is what `douane policy lint` says of it. Every replica writes the same, and only over what it has
//! seen. Knows not how objects are watched (`discovery`).

mod condition;
mod governed;
mod kubernetes;
#[cfg(test)]
mod tests;
mod told;

pub use kubernetes::keep_told;
