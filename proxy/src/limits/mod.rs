//! Who may hold how much at once: places, shares, turns and rates, on one thread and without a lock.
//!
//! Knows numbers and holders, neither sockets nor requests; whoever asks refuses by what it hears.
//! - [`share`]: the rule of fairness
//! - [`places`]: requests in progress to one destination, shared between callers; [`queue`]: how long to wait for one
//! - [`crowd`]: connections, in total and of each peer
//! - [`turns`]: handshakes take turns, so that a storm of them starves nobody who is through
//! - [`rate`]: so many a second and no more

pub mod crowd;
pub mod places;
pub mod queue;
pub mod rate;
pub mod share;
pub mod turns;
