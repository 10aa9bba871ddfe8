//! Who a request says its user is: `RequestAuthentication`, compiled, and the pure check of a request's tokens.
//!
//! Knows not who fetched the keys (`ca`), nor what a policy makes of a token ([`crate::policy`]).
//!
//! All rules of all messages are one list of alternatives (`set`, `rule`). `authenticate` finds the tokens (`place`,
//! `query`), has each one accepted by a rule that looks there, takes out what is not forwarded, and sets the headers
//! that rules own (`output`). Next: [`crate::policy::decide`].

mod authenticate;
mod output;
mod place;
mod query;
mod refused;
mod rule;
mod set;

pub use refused::TokenRefused;
pub use set::Authentication;

#[cfg(test)]
mod tests;
