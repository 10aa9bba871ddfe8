//! Packets that no ordinary socket sends.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Sends `payload` as the given protocol; the kernel makes the IP header.
pub(crate) fn send(protocol: i32, from: IpAddr, to: IpAddr, payload: &[u8]) -> io::Result<usize> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(protocol)))?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.send_to(payload, &SocketAddr::new(to, 0).into())
}

/// A TCP segment that accepts a connection which nobody asked for.
pub(crate) fn syn_ack(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(from.port().to_be_bytes());
    segment.extend(to.port().to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 1]); // sequence and acknowledgement
    segment.extend([5 << 4, 0x12, 0xff, 0xff, 0, 0, 0, 0]); // header length, SYN and ACK, window, checksum, urgent

    let mut pseudo_header = Vec::new();
    for address in [from.ip(), to.ip()] {
        let IpAddr::V4(address) = address else { panic!("IPv4 only") };
        pseudo_header.extend(address.octets());
    }
    pseudo_header.extend([0, 6, 0, 20]);
    let checksum = checksum(pseudo_header.iter().chain(&segment));
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    segment
}

/// RFC 1071, over an even number of octets.
fn checksum<'o>(octets: impl Iterator<Item = &'o u8>) -> u16 {
    let octets: Vec<u8> = octets.copied().collect();
    let mut sum: u32 =
        octets.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded to 16 bits")
}
