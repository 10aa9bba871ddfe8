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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    // Answers each connection with the next of these.
    fn answering(answers: &'static [&'static str]) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 512]);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        port
    }

    #[test]
    fn it_waits_until_the_sidecar_says_that_it_is_ready() {
        const WAITING: &str = "HTTP/1.1 503 Service Unavailable\r\n\r\nwaiting for the first certificate\n";
        let port = answering(&[WAITING, WAITING, "HTTP/1.1 200 OK\r\n\r\nready\n"]);

        until_ready(port, Duration::from_secs(60)).unwrap();
    }

    #[test]
    fn it_gives_up_with_what_the_sidecar_said_last() {
        let port = answering(&["HTTP/1.1 503 Service Unavailable\r\n\r\nwaiting for the first policies\n"]);

        let error = until_ready(port, Duration::ZERO).unwrap_err().to_string();

        assert!(error.contains("waiting for the first policies"), "{error}");
    }
}
