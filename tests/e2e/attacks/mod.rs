//! Attacks, each by its name: foreign programs and raw bytes against a pair of real sidecars.
//!
//! `pair` starts the two and the server behind them; each other file is one family of attacks. A counterpart that is
//! missing makes its tests skip aloud.

mod ambiguity;
mod downgrades;
mod ends;
mod floods;
mod handshakes;
mod headers;
mod oracle;
mod pair;
mod servers;
mod slow;
mod smuggling;
