//! Sockets and the bytes on them: opening, accepting, where a redirected connection wanted to go, what it speaks.

pub mod original_dst;
pub mod socket;
