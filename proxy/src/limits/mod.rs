//! Who may hold how much at once: places, shares, turns and rates, on one thread and without a lock.
//!
//! Knows numbers and holders, neither sockets nor requests; whoever asks refuses by what it hears.
//! - [`share`]: the rule of fairness
//! - [`places`]: requests in progress to one destination, shared between callers; [`queue`]: how long to wait for one
//! - [`crowd`]: connections, in total and of each peer
//! - [`resting`]: connections that are asked to leave when it gets tight
//! - [`turns`]: handshakes take turns, so that a storm of them starves nobody who is through
//! - [`pressure`]: what is still taken on as memory gets short; [`memory`]: how much of it there is
//! - [`rate`]: so many a second and no more

pub mod crowd;
pub mod memory;
pub mod places;
pub mod pressure;
pub mod queue;
pub mod rate;
pub mod resting;
pub mod share;
pub mod turns;
