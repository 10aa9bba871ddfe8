//! Addresses of this machine that nobody else has.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU32, Ordering},
};

/// So many processes that run at a time have addresses of their own ...
const PROCESSES: u32 = 1 << 14;
/// ... and so many addresses each: 127.64.0.0 to 127.191.255.255.
const EACH: u32 = 1 << 9;

/// An address that only the caller has, with a port to be chosen. A port of it that was freed is still free when it is bound
/// again, and until then nobody answers there: on 127.0.0.1 any connection to anywhere may have taken it meanwhile for its
/// near end, even one that was meant for this very port.
#[must_use]
pub fn own() -> SocketAddr {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let number = std::process::id() % PROCESSES * EACH + TAKEN.fetch_add(1, Ordering::Relaxed) % EACH;
    SocketAddr::from((Ipv4Addr::from_bits(0x7f40_0000 + number), 0))
}

/// The same with a port that is free, for a program that cannot choose one.
///
/// # Panics
/// When no port can be bound.
#[must_use]
pub fn own_port() -> SocketAddr {
    TcpListener::bind(own()).and_then(|listener| listener.local_addr()).expect("a port of loopback is free")
}
