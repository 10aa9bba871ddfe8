//! Where a redirected connection wanted to go, as the kernel remembers it. Also the loop guard: a connection that was
//! not redirected, or that was meant for one of our own ports, is refused here. What the destination *is*, `inbound`
//! and `outbound` find out.

use std::{io, net::SocketAddr, os::fd::AsFd};

use nix::errno::Errno;
use socket2::SockRef;

use crate::redirect::plan::{INBOUND_PORT, OUTBOUND_PORT};

/// Why a connection has no destination that we may act on.
#[derive(Debug, thiserror::Error)]
pub enum NoOriginalDst {
    /// Someone dialled the sidecar itself.
    #[error(
        "the connection to {local} was not redirected: the sidecar's ports take redirected connections only"
    )]
    NotRedirected {
        /// Where it arrived.
        local: SocketAddr,
    },
    /// Redirected, but to the sidecar in the first place: following it would be a loop.
    #[error("the connection was meant for {original}, a port of the sidecar itself")]
    OwnPort {
        /// Where it wanted to go.
        original: SocketAddr,
    },
    /// The connection is gone already.
    #[error("ask the kernel for the original destination")]
    Unreadable(#[source] io::Error),
}

/// Where `stream` wanted to go before it was redirected to us. IPv4 is IPv4, also on a dual-stack socket.
///
/// # Errors
/// It was not redirected, or was meant for us.
pub fn original_dst(stream: &impl AsFd) -> Result<SocketAddr, NoOriginalDst> {
    let socket = SockRef::from(stream);
    let local = address(socket.local_addr()).map_err(NoOriginalDst::Unreadable)?;
    let asked = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    judge(remembered(address(asked)).map_err(NoOriginalDst::Unreadable)?, local)
}

/// A destination that differs from where the connection arrived was rewritten: the kernel answers with the
/// connection's own destination where it tracked it and did not.
fn judge(original: Option<SocketAddr>, local: SocketAddr) -> Result<SocketAddr, NoOriginalDst> {
    let Some(original) = original.filter(|original| *original != local) else {
        return Err(NoOriginalDst::NotRedirected { local });
    };
    if [OUTBOUND_PORT, INBOUND_PORT].contains(&original.port()) {
        return Err(NoOriginalDst::OwnPort { original });
    }
    Ok(original)
}

/// `None` where the kernel does not track connections at all, or not for this family.
fn remembered(answer: io::Result<SocketAddr>) -> io::Result<Option<SocketAddr>> {
    match answer {
        Ok(original) => Ok(Some(original)),
        Err(error) if error.raw_os_error().is_some_and(|code| UNTRACKED.contains(&Errno::from_raw(code))) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn address(answer: io::Result<socket2::SockAddr>) -> io::Result<SocketAddr> {
    let address = answer?.as_socket().ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
    Ok(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

const UNTRACKED: [Errno; 3] = [Errno::ENOENT, Errno::ENOPROTOOPT, Errno::EOPNOTSUPP];

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    #[test]
    fn a_destination_that_differs_was_redirected() {
        let original = judge(Some(at("10.77.0.12:8080")), at("10.77.0.12:15006"));

        assert_eq!(original.unwrap(), at("10.77.0.12:8080"));
    }

    #[test]
    fn a_destination_that_is_where_it_arrived_was_not_redirected() {
        let refused = judge(Some(at("10.77.0.12:8080")), at("10.77.0.12:8080")).unwrap_err();

        assert!(matches!(refused, NoOriginalDst::NotRedirected { .. }));
    }

    #[test]
    fn a_connection_that_nobody_tracked_was_not_redirected() {
        for code in UNTRACKED {
            let unknown = remembered(Err(io::Error::from(code))).unwrap();
            let refused = judge(unknown, at("127.0.0.1:15001")).unwrap_err();

            assert!(matches!(refused, NoOriginalDst::NotRedirected { .. }));
        }
    }

    #[test]
    fn a_connection_meant_for_the_sidecar_is_a_loop() {
        for meant in ["10.77.0.12:15001", "10.77.0.12:15006", "[fd77::12]:15006"] {
            let refused = judge(Some(at(meant)), at("127.0.0.1:15001")).unwrap_err();

            assert!(matches!(refused, NoOriginalDst::OwnPort { original } if original == at(meant)));
        }
    }

    #[test]
    fn a_failing_socket_is_not_taken_for_a_direct_call() {
        assert!(remembered(Err(io::Error::from(Errno::EBADF))).is_err());
    }

    #[test]
    fn ipv4_on_a_dual_stack_socket_is_ipv4() {
        let mapped = at("[::ffff:10.77.0.12]:8080").into();

        assert_eq!(address(Ok(mapped)).unwrap(), at("10.77.0.12:8080"));
    }
}
