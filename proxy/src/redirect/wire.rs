//! A netlink socket to the kernel's netfilter, with calls that never wait: the kernel answers within the
//! send. Knows messages, not what they mean.

use std::io;

use netlink_packet_core::NetlinkMessage;
use netlink_packet_netfilter::NetfilterMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use crate::redirect::error::Error;

/// A message from or to the kernel.
pub(crate) type Message = NetlinkMessage<NetfilterMessage>;

/// Sends `request` and returns all that the kernel answers.
pub(crate) fn ask(request: &[u8]) -> Result<Vec<Message>, Error> {
    let failed = |step| move |source| Error::Socket { step, source };
    let mut socket = Socket::new(NETLINK_NETFILTER).map_err(failed("open"))?;
    socket.bind_auto().map_err(failed("bind"))?;
    // Errors would carry the whole request back otherwise.
    socket.set_cap_ack(true).map_err(failed("configure"))?;
    socket.send_to(request, &SocketAddr::new(KERNEL_PORT, 0), 0).map_err(failed("write to"))?;

    // The kernel works within the send, and prepares the next part of a dump within the receive: what it has to
    // say waits here, in order, and an empty socket means that it has finished.
    socket.set_non_blocking(true).map_err(failed("configure"))?;
    let mut answers = Vec::new();
    loop {
        match socket.recv_from_full() {
            Ok((datagram, from)) if from.port_number() == KERNEL_PORT => split(&datagram, &mut answers)?,
            Ok(_) => {}
            Err(empty) if empty.kind() == io::ErrorKind::WouldBlock => return Ok(answers),
            Err(source) => return Err(Error::Socket { step: "read from", source }),
        }
    }
}

/// A request of one message, or one message of a batch.
pub(crate) fn append(batch: &mut Vec<u8>, message: NetfilterMessage, flags: u16, sequence: u32) {
    let mut message = Message::from(message);
    message.header.flags = flags;
    message.header.sequence_number = sequence;
    message.finalize();
    let mut octets = vec![0; message.buffer_len()];
    message.serialize(&mut octets);
    batch.append(&mut octets);
}

fn split(datagram: &[u8], answers: &mut Vec<Message>) -> Result<(), Error> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let answer = Message::deserialize(rest).map_err(Error::Unreadable)?;
        let length = usize::try_from(answer.header.length).unwrap_or(usize::MAX);
        answers.push(answer);
        rest = rest.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
    }
    Ok(())
}

// Octets, linux/netlink.h NLMSG_ALIGNTO.
const ALIGNMENT: usize = 4;
const KERNEL_PORT: u32 = 0;
