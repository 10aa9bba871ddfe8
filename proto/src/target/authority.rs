//! The host of a request: `host[:port]`, in one spelling.

use std::{mem, net::Ipv6Addr};

/// RFC 1035 2.3.4.
const MAX_HOST_BYTES: usize = 253;

/// Lower case, port kept, one trailing dot of the host removed; or the rule that it breaks.
pub(super) fn normalize(authority: &str) -> Result<String, &'static str> {
    if is_normal(authority) {
        return Ok(authority.to_owned());
    }
    by_rule(authority)
}

fn by_rule(authority: &str) -> Result<String, &'static str> {
    if authority.is_empty() {
        return Err("it is empty");
    }
    if authority.contains('@') {
        return Err("it holds user information");
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']').ok_or("a bracket is not closed")?;
            let port = match rest {
                "" => None,
                _ => Some(rest.strip_prefix(':').ok_or("something other than a port follows the address")?),
            };
            let address: Ipv6Addr = address.parse().map_err(|_| "in brackets stands no IPv6 address")?;
            (format!("[{address}]"), port)
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (name(host)?, Some(port)),
            None => (name(authority)?, None),
        },
    };
    match port.map(checked_port).transpose()? {
        Some(port) => Ok(format!("{host}:{port}")),
        None => Ok(host),
    }
}

// In its one spelling, as most are: a name of lower case letters, digits, dashes and single dots, and perhaps a port.
fn is_normal(authority: &str) -> bool {
    let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
    let is_in_place = |before: u8, byte: u8| match byte {
        b'.' => before != b'.',
        byte => byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-',
    };
    let mut before = b'.';
    host.len() <= MAX_HOST_BYTES
        && host.bytes().all(|byte| is_in_place(mem::replace(&mut before, byte), byte))
        && before != b'.'
        && port.is_none_or(|port| checked_port(port).is_ok())
}

fn name(host: &str) -> Result<String, &'static str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() {
        return Err("it names no host");
    }
    if host.len() > MAX_HOST_BYTES {
        return Err("it is longer than a host name can be");
    }
    if host.split('.').any(str::is_empty) {
        return Err("a part between two dots is empty");
    }
    if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')) {
        return Err("a character that no host name has");
    }
    Ok(host.to_ascii_lowercase())
}

// One spelling: no leading zero, no sign, not empty.
fn checked_port(text: &str) -> Result<u16, &'static str> {
    match text.parse() {
        Ok(port) if !text.starts_with(['0', '+']) => Ok(port),
        _ => Err("its port is no number from 1 to 65535"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_usual_host_needs_no_second_look() {
        for host in ["orders", "orders.shop.svc.cluster.local:8080", "10.77.0.1:1", "a-b"] {
            assert!(is_normal(host), "{host}");
        }
        for host in
            ["", ".", "a.", ".a", "a..b", "A", "a:", "a:0", "a:080", "a:65536", "a:+1", "[::1]", "a_b"]
        {
            assert!(!is_normal(host), "{host}");
        }
    }

    proptest! {
        #[test]
        fn what_is_normal_at_first_sight_is_so_by_rule(text in "[a-b.:0-9-]{0,12}") {
            if is_normal(&text) {
                prop_assert_eq!(by_rule(&text), Ok(text));
            }
        }
    }
}
