//! Questions to a running pod: what does its sidecar answer, on which ports does it listen?

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

/// The sidecar's port for health and metrics.
pub const HEALTH_PORT: u16 = 15020;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Where the sidecar of the pod at `pod` answers.
#[must_use]
pub fn sidecar(pod: IpAddr) -> SocketAddr {
    SocketAddr::new(pod, HEALTH_PORT)
}

/// GETs `path` from whoever answers at `address`.
///
/// # Errors
/// Nobody listens or answers in time, or the answer is no HTTP.
pub fn ask(address: SocketAddr, path: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    // A sidecar's metrics are far smaller.
    stream.take(MOST).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Answer { status, body: body.to_owned() })
}

/// When the sidecar's certificate expires, in seconds since 1970, from its metrics.
#[must_use]
pub fn certificate_expiry(metrics: &str) -> Option<f64> {
    let line = metrics.lines().find(|it| it.starts_with(EXPIRY))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

/// The TCP ports on which the calling thread's network namespace listens.
#[must_use]
pub fn listening() -> BTreeSet<u16> {
    let tables = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
    tables.iter().filter_map(|it| fs::read_to_string(it).ok()).flat_map(|it| listening_in(&it)).collect()
}

fn listening_in(table: &str) -> Vec<u16> {
    // Columns: number, local address:port, remote, state. 0A is LISTEN.
    let port = |line: &str| {
        let mut columns = line.split_whitespace();
        let (local, state) = (columns.nth(1)?, columns.nth(1)?);
        let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        (state == "0A").then_some(port)
    };
    table.lines().filter_map(port).collect()
}

// The pod is one bridge away.
const ANSWER: Duration = Duration::from_secs(2);
const MOST: u64 = 16 * 1024 * 1024;
const EXPIRY: &str = "douane_certificate_expiry_timestamp_seconds";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_ports_are_read_from_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue\n   0: 00000000:1F90 00000000:0000 0A 00000000:0\n   \
                     1: 0B004D0A:9C40 0C004D0A:1F90 01 00000000:0\n";

        assert_eq!(listening_in(table), [8080]);
    }

    #[test]
    fn the_expiry_is_found_with_and_without_labels() {
        let metrics = "# TYPE douane_certificate_expiry_timestamp_seconds gauge\n\
                       douane_certificate_expiry_timestamp_seconds{kind=\"leaf\"} 1790000000.5\n";

        assert_eq!(certificate_expiry(metrics), Some(1_790_000_000.5));
        assert_eq!(certificate_expiry("douane_other 1\n"), None);
    }
}
