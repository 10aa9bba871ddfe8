//! Every socket that the sidecar opens comes from here, so that none is caught by its own redirection: in the
//! unprivileged lab each carries the mark that the rules spare (in a cluster they spare the sidecar's uid).

use std::{io, net::SocketAddr, time::Duration};

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// How sockets are opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sockets {
    /// SO_MARK of each socket; needs CAP_NET_ADMIN. `None` where the rules spare a uid instead.
    pub mark: Option<u32>,
}

impl Sockets {
    /// Connects within `limit`. Nagle is off: small writes are corked above.
    ///
    /// # Errors
    /// As the kernel says; `TimedOut` past the limit; `ConnectionRefused` when nobody listens and the kernel chose for our
    /// end the very port that we ask for, so that we would speak with ourselves (TCP's simultaneous open, RFC 9293 3.5).
    pub async fn connect(self, to: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
        let socket = self.open(to)?;
        socket.set_tcp_nodelay(true)?;
        let socket = TcpSocket::from_std_stream(socket.into());
        with_another(tokio::time::timeout(limit, socket.connect(to)).await??)
    }

    /// Listens. An IPv6 wildcard takes IPv4 as well.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn listen(self, on: SocketAddr) -> io::Result<TcpListener> {
        self.bind(on)?.listen(BACKLOG)
    }

    /// Binds, and listens only when told. An IPv6 wildcard takes IPv4 as well.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn bind(self, on: SocketAddr) -> io::Result<TcpSocket> {
        let socket = self.open(on)?;
        if on.is_ipv6() {
            socket.set_only_v6(!on.ip().is_unspecified())?;
        }
        socket.set_reuse_address(true)?;
        // Inherited by accepted sockets on Linux, so that accept needs no further calls.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&on.into())?;
        Ok(TcpSocket::from_std_stream(socket.into()))
    }

    fn open(self, address: SocketAddr) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        // Inherited by accepted sockets as well.
        socket.set_tcp_keepalive(&KEEPALIVE)?;
        if let Some(mark) = self.mark {
            socket.set_mark(mark)?;
        }
        Ok(socket)
    }
}

fn with_another(stream: TcpStream) -> io::Result<TcpStream> {
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::Error::new(
            io::ErrorKind::ConnectionRefused,
            "nobody listens: we have reached ourselves",
        ));
    }
    Ok(stream)
}

/// Connections that the kernel holds for us until they are accepted.
pub const BACKLOG: u32 = 1024;
// A silent peer is noticed after one minute. TCP_USER_TIMEOUT would be quicker while bytes are on their way, but it counts
// a reader that pauses as gone; between sidecars pings tell.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(30))
    .with_interval(Duration::from_secs(10))
    .with_retries(3);

#[cfg(test)]
mod tests {
    use socket2::SockRef;

    use super::*;

    #[tokio::test]
    async fn a_connection_that_has_reached_itself_is_refused() {
        let socket = Sockets::default().bind(([127, 0, 0, 1], 0).into()).unwrap();
        let own = socket.local_addr().unwrap();
        let itself = socket.connect(own).await.unwrap();
        assert_eq!(with_another(itself).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_is_noticed_on_dialled_and_on_accepted_connections() {
        let sockets = Sockets::default();
        let listener = sockets.listen(([127, 0, 0, 1], 0).into()).unwrap();
        let dialled = sockets.connect(listener.local_addr().unwrap(), Duration::from_secs(5)).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();

        for stream in [&dialled, &accepted] {
            let socket = SockRef::from(stream);
            assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(30));
        }
    }
}
