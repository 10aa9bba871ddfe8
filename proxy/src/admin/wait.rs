//! Waits for the sidecar of this pod to be ready: what the postStart hook of the classic order does, so that the other
//! containers start after it.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// A sidecar is ready within tens of milliseconds of its first certificate.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// The sidecar did not become ready.
#[derive(Debug, thiserror::Error)]
#[error("the sidecar is not ready after {limit:?}: {last}; see its log")]
pub struct NotReady {
    limit: Duration,
    last: String,
}

/// Returns when the sidecar at `port` of this machine is ready.
///
/// # Errors
/// [`NotReady`] after `limit`, with what it said last.
pub fn until_ready(port: u16, limit: Duration) -> Result<(), NotReady> {
    let end = Instant::now() + limit;
    loop {
        let last = match look(port) {
            Ok(answer) if answer.starts_with("HTTP/1.1 200") => return Ok(()),
            Ok(answer) => answer.rsplit("\r\n").next().unwrap_or_default().trim().to_owned(),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= end {
            return Err(NotReady { limit, last });
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn look(port: u16) -> io::Result<String> {
    let mut stream =
        TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), ANSWER_LIMIT)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: sidecar\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer)?;
    Ok(answer)
}
