//! Ordinary connections and datagrams, each with a time limit.

use std::{
    io,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

/// The longest that anything on one machine takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// The mark that the rules of these tests spare.
pub(crate) const MARK: u32 = 0x0d0a;

/// An application's connection.
pub(crate) fn dial(to: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&to, PATIENCE)
}

/// The sidecar's own connection, in a lab.
pub(crate) fn dial_marked(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_mark(MARK)?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    Ok(socket.into())
}

/// A server that says `direct` to whoever reaches it.
pub(crate) fn serve_greeting(address: IpAddr) -> SocketAddr {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let bound = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            stream.unwrap().write_all(b"direct").unwrap();
        }
    });
    bound
}

/// What the server said.
pub(crate) fn greeting(dialled: io::Result<TcpStream>) -> String {
    let mut said = String::new();
    let mut stream = dialled.unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.read_to_string(&mut said).unwrap();
    said
}

/// Answers every datagram with itself.
pub(crate) fn echo_datagrams(socket: UdpSocket) {
    thread::spawn(move || {
        let mut datagram = [0; 64];
        while let Ok((length, from)) = socket.recv_from(&mut datagram) {
            drop(socket.send_to(&datagram[..length], from));
        }
    });
}

/// Sends `echo` and returns the answer.
pub(crate) fn asked(from: IpAddr, to: SocketAddr) -> io::Result<String> {
    let socket = UdpSocket::bind((from, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(b"echo", to)?;
    let mut datagram = [0; 64];
    let length = socket.recv(&mut datagram)?;
    Ok(String::from_utf8_lossy(&datagram[..length]).into_owned())
}
