//! Sockets and the bytes on them: opening, accepting, where a redirected connection wanted to go, what it speaks.

mod chunk;
pub mod conduit;
pub mod detect;
pub mod hairpin;
mod line;
pub mod linger;
pub mod listener;
pub mod original_dst;
pub mod pipe;
pub mod reading;
pub mod relay;
pub mod socket;
