//! Which addresses may be dialled for a URL that somebody wrote into a resource: never such as only the control plane can
//! reach, or where the network gives out secrets to whoever asks.
//!
//! Pure. Private ranges are allowed: issuers run in the cluster.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Ranges that are never dialled, and why.
const FORBIDDEN_V4: &[([u8; 4], u8, &str)] = &[
    ([0, 0, 0, 0], 8, "this host"),
    ([127, 0, 0, 0], 8, "loopback"),
    // Most clouds answer questions for credentials at 169.254.169.254.
    ([169, 254, 0, 0], 16, "link-local, where metadata is served"),
    ([100, 100, 100, 200], 32, "a metadata address"),
    ([168, 63, 129, 16], 32, "a metadata address"),
    ([192, 0, 0, 192], 32, "a metadata address"),
    ([224, 0, 0, 0], 4, "multicast"),
    ([240, 0, 0, 0], 4, "reserved, or broadcast"),
];
/// The same of IPv6.
const FORBIDDEN_V6: &[([u16; 8], u8, &str)] = &[
    ([0, 0, 0, 0, 0, 0, 0, 0], 128, "this host"),
    ([0, 0, 0, 0, 0, 0, 0, 1], 128, "loopback"),
    ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, "link-local"),
    ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, "multicast"),
    // Amazon's services of an instance: metadata at ::254, credentials of pods at ::23.
    ([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32, "a metadata address"),
    ([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128, "a metadata address"),
    // Tunnels whose other end an address does not show.
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, "a Teredo tunnel"),
    // RFC 8215: where in it the IPv4 address stands depends on the network.
    ([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, "a translator's own network"),
];

/// May a document come without TLS?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plaintext {
    /// Yes, as configured.
    Allowed,
    /// No: whoever is on the way could replace it.
    Refused,
}

/// Says which addresses may be dialled.
#[derive(Debug, Clone)]
pub struct Guard {
    /// Dialled whatever else is said of them.
    allowed: Vec<IpNet>,
    /// Never dialled, besides those that nobody may dial.
    forbidden: Vec<IpNet>,
    plaintext: Plaintext,
}

impl Guard {
    /// One that forbids `forbidden` besides what it always forbids, but not `allowed`.
    #[must_use]
    pub fn new(allowed: Vec<IpNet>, forbidden: Vec<IpNet>, plaintext: Plaintext) -> Self {
        Self { allowed, forbidden, plaintext }
    }

    /// May this address be dialled?
    pub(super) fn admits(&self, address: IpAddr) -> Result<(), String> {
        let address = address.to_canonical();
        if self.allowed.iter().any(|net| net.contains(&address)) {
            return Ok(());
        }
        let by_configuration = |address: &IpAddr| self.forbidden.iter().any(|net| net.contains(address));
        let hidden = hidden(address).map(IpAddr::V4);
        for one in std::iter::once(address).chain(hidden) {
            if let Some(why) = always_forbidden(one) {
                return Err(format!("{address} is never dialled for a resource: it is {why}"));
            }
            if by_configuration(&one) {
                return Err(format!(
                    "{address} is never dialled for a resource: the configuration forbids it"
                ));
            }
        }
        Ok(())
    }

    /// May what was dialled from `own` be used? Not where both ends are this host: then it is one of our own addresses.
    pub(super) fn admits_from(&self, own: IpAddr, address: IpAddr) -> Result<(), String> {
        let (own, address) = (own.to_canonical(), address.to_canonical());
        if own != address || self.allowed.iter().any(|net| net.contains(&address)) {
            return Ok(());
        }
        Err(format!("{address} is never dialled for a resource: it is our own"))
    }

    /// May a document come without TLS?
    pub(super) fn admits_plaintext(&self) -> Result<(), String> {
        match self.plaintext {
            Plaintext::Allowed => Ok(()),
            Plaintext::Refused => {
                Err("http is not secure; write https, or allow it with jwks.allowHttp".to_owned())
            }
        }
    }
}

fn always_forbidden(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => FORBIDDEN_V4
            .iter()
            .find(|(net, length, _)| {
                Ipv4Net::new(Ipv4Addr::from(*net), *length).is_ok_and(|net| net.contains(&address))
            })
            .map(|(_, _, why)| *why),
        IpAddr::V6(address) => FORBIDDEN_V6
            .iter()
            .find(|(net, length, _)| {
                Ipv6Net::new(Ipv6Addr::from(*net), *length).is_ok_and(|net| net.contains(&address))
            })
            .map(|(_, _, why)| *why),
    }
}

// The IPv4 address that a translator or tunnel would dial in place of this one: NAT64 (RFC 6052), SIIT (RFC 7915's
// translated form), 6to4 (RFC 3056), and the old compatible form.
fn hidden(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let [a, b, c, d, e, f, g, h] = address.segments();
    let of = |high: u16, low: u16| {
        let ([one, two], [three, four]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(Ipv4Addr::new(one, two, three, four))
    };
    match (a, b, c, d, e, f) {
        (0x64, 0xff9b, 0, 0, 0, 0) | (0, 0, 0, 0, 0xffff, 0) | (0, 0, 0, 0, 0, 0) => of(g, h),
        (0x2002, high, low, ..) => of(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Guard::new(nets(&["127.0.0.2/32"]), nets(&["10.96.0.1/32", "10.0.0.0/30"]), Plaintext::Refused)
    }

    #[test]
    fn loopback_link_local_metadata_and_configured_addresses_are_never_dialled() {
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "169.254.169.254",
            "169.254.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::169.254.169.254",
            "::ffff:0:127.0.0.1",
            "2002:7f00:1::",
            "::127.0.0.1",
            "10.96.0.1",
            "::ffff:10.96.0.1",
            "64:ff9b::10.96.0.1",
        ] {
            assert!(guard().admits(address.parse().unwrap()).is_err(), "{address}");
        }
    }

    #[test]
    fn public_and_private_addresses_and_exempt_ones_are_dialled() {
        for address in [
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "192.0.2.1",
            "fd77::1",
            "2a00::1",
            "127.0.0.2",
            "::ffff:127.0.0.2",
        ] {
            assert!(guard().admits(address.parse().unwrap()).is_ok(), "{address}");
        }
    }

    #[test]
    fn our_own_address_is_not_dialled_whatever_it_is() {
        let own = "192.0.2.9".parse().unwrap();
        assert!(guard().admits_from(own, own).is_err());
        assert!(guard().admits_from(own, "192.0.2.10".parse().unwrap()).is_ok());
        let exempt = "127.0.0.2".parse().unwrap();
        assert!(guard().admits_from(exempt, exempt).is_ok());
    }
}
