//! What can go wrong between us and the kernel's nf_tables. A leaf.

use std::io;

use netlink_packet_core::DecodeError;

/// Why the kernel's table is not as wanted. A transaction that fails has changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel has no netfilter for us, or the batch is larger than a socket takes.
    #[error("{step} netfilter's netlink socket")]
    Socket {
        /// What we tried.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// One operation failed, and with it the whole transaction.
    #[error("the kernel refused to {operation}; nothing was changed")]
    Refused {
        /// What we tried, as `nft` would say it.
        operation: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel took the batch and said nothing of it.
    #[error("the kernel did not answer; see what is installed with `show`")]
    Unanswered,
    /// The kernel's answer is not netlink as we know it.
    #[error("read the kernel's answer")]
    Unreadable(#[source] DecodeError),
}
