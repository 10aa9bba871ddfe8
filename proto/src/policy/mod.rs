//! The law: authorization policies as Istio defines them, compiled, and the pure decision on them.
//!
//! A [`Policy`] is valid and travels on the wire as written; a [`PolicySet`] is what selects one workload, compiled for
//! its trust domain; [`decide`] takes it and [`Facts`](crate::facts::Facts) and says yes or no, with the reason. YAML
//! and wire are compiled by the same code. Knows neither YAML (see [`crate::resource`]) nor sockets.
//!
//! A text is matched in `pattern`, an attribute of a request in `clause`; `rule` is what a policy is made of, `compile`
//! makes it, `decide` applies it, `explain` says why.

mod clause;
mod compile;
mod decide;
mod explain;
mod flaw;
mod pattern;
mod provider;
mod rule;
mod scope;
mod set;
mod template;
mod value;

pub use decide::{Decision, Permit, decide};
pub use explain::Denial;
pub use flaw::{PolicyFlaw, Step};
pub use provider::{Answer, Answers, HeaderChange, HttpCheck, Provider, ProviderProtocol};
pub use scope::Scope;
pub use set::{Policy, PolicyError, PolicySet, Trust};

#[cfg(test)]
mod tests;
