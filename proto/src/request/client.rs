//! Who the client is where trusted proxies stand before the workload.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The client's address: the direct peer's, or with `trusted_proxies` of them in between the one that the first of these
/// saw: so many entries from the right of `X-Forwarded-For`. What stands further left anybody may have written.
///
/// Where there is no such entry, or none that is an address, it is the direct peer's.
///
/// ```
/// use douane_proto::request::{client_address, headers_of};
///
/// let direct = "10.0.0.7".parse().unwrap();
/// let headers = headers_of([("x-forwarded-for", "6.6.6.6, 192.0.2.9")]).unwrap();
/// assert_eq!(client_address(&headers, direct, 0), direct);
/// assert_eq!(client_address(&headers, direct, 1).to_string(), "192.0.2.9");
/// assert_eq!(client_address(&headers, direct, 3), direct);
/// ```
#[must_use]
pub fn client_address(headers: &HeaderMap, direct: IpAddr, trusted_proxies: u8) -> IpAddr {
    let Some(skipped) = usize::from(trusted_proxies).checked_sub(1) else { return direct };
    let lines: Vec<&[u8]> = headers.get_all(FORWARDED_FOR).iter().map(http::HeaderValue::as_bytes).collect();
    let mut entries = lines.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
    entries.nth(skipped).and_then(address).unwrap_or(direct)
}

// Some proxies add the port.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry.trim_ascii()).ok()?;
    let address = text.parse().ok().or_else(|| text.parse().ok().map(|socket: SocketAddr| socket.ip()));
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::headers_of;

    #[test]
    fn the_client_is_counted_from_the_right_over_all_lines() {
        let direct: IpAddr = "10.0.0.7".parse().unwrap();
        let seen = |lines: &[&str], trusted| {
            let headers = headers_of(lines.iter().map(|line| (FORWARDED_FOR, line))).unwrap();
            client_address(&headers, direct, trusted).to_string()
        };
        assert_eq!(seen(&["1.1.1.1"], 0), "10.0.0.7", "nobody is trusted by default");
        assert_eq!(seen(&["1.1.1.1, 2.2.2.2", "3.3.3.3"], 1), "3.3.3.3");
        assert_eq!(seen(&["1.1.1.1, 2.2.2.2", "3.3.3.3"], 2), "2.2.2.2");
        assert_eq!(seen(&["1.1.1.1, 2.2.2.2", "3.3.3.3"], 4), "10.0.0.7");
        assert_eq!(seen(&["2.2.2.2:8080"], 1), "2.2.2.2");
        assert_eq!(seen(&["[fd77::1]:8080"], 1), "fd77::1");
        assert_eq!(seen(&["::ffff:2.2.2.2"], 1), "2.2.2.2");
        for broken in ["", ",", "unknown", "1.1.1.1, _hidden", "300.1.1.1"] {
            assert_eq!(seen(&[broken], 1), "10.0.0.7", "{broken:?}");
        }
    }
}
