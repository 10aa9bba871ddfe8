//! The law: authorization policies as Istio defines them, compiled, and the pure decision on them.
//!
//! A [`Policy`] is valid and travels on the wire as written; a [`PolicySet`] is what selects one workload, compiled for
//! its trust domain; [`decide`] takes it and [`Facts`](crate::facts::Facts) and says yes or no, with the reason. YAML
//! and wire are compiled by the same code. Knows neither YAML (see [`crate::resource`]) nor sockets.
//!
//! A text is matched in `pattern`, an `attribute` of a request in `clause`; `rule` is what a policy is made of, `compile`
//! makes it, `decide` applies it, `explain` says why, `record` what is decided but not enforced.

mod anchor;
mod attribute;
mod book;
mod clause;
mod compile;
mod decide;
mod denial;
mod entry;
mod examine;
mod explain;
mod flaw;
mod index;
mod matcher;
mod pattern;
mod provider;
mod record;
mod repeated;
mod rule;
mod scope;
mod set;
mod spelling;
mod template;
mod token;
mod trust;
mod unread;
mod value;
mod warn;
mod words;
mod written;
mod wrong;

pub use decide::{Decision, Permit, decide};
pub use denial::{Denial, DenialKind};
pub use examine::{Doubtful, DoubtfulStanding, Examined, Finding, doubtful, examine};
pub use flaw::{PolicyFlaw, Step};
pub use provider::{Answer, Answers, HeaderChange, HttpCheck, Provider, ProviderProtocol};
pub use record::{Shadow, audited_by, shadow};
pub use scope::Scope;
pub use set::{PolicyError, PolicySet};
pub use trust::Trust;
pub use written::Policy;

#[cfg(test)]
mod tests;
