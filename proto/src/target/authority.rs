//! The host of a request: `host[:port]`, in one spelling.

use std::net::Ipv6Addr;

/// RFC 1035 2.3.4.
const MAX_HOST_BYTES: usize = 253;

/// Lower case, port kept, one trailing dot of the host removed; or the rule that it breaks.
pub(super) fn normalize(authority: &str) -> Result<String, &'static str> {
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
    if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)) {
        return Err("a character that no host name has");
    }
    Ok(host.to_ascii_lowercase())
}

// One spelling: no leading zero, no sign, not empty.
fn checked_port(text: &str) -> Result<u16, &'static str> {
    let port: u16 = text.parse().map_err(|_| "its port is no number from 1 to 65535")?;
    if port == 0 || port.to_string() != text {
        return Err("its port is no number from 1 to 65535");
    }
    Ok(port)
}
