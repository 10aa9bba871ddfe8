//! The lab's address plan: who gets which IPv4 and IPv6 address. Pure.
//!
//! Pods live in 10.77.0.0/16 and fd77::/64 behind the bridge (10.77.0.1, fd77::1), cluster IPs in 10.96.0.0/16. What the
//! YAML gives is respected; what it gives twice is an error that names both places.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The bridge's IPv4 address: the pods' gateway; the control plane listens here.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The bridge's IPv6 address.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
/// Where sidecars send their spans: OTLP's port, at the gateway.
pub const SINK_PORT: u16 = 4317;
/// Prefix length of the pods' IPv4 network.
pub const PREFIX_V4: u8 = 16;
/// Prefix length of the pods' IPv6 network.
pub const PREFIX_V6: u8 = 64;

/// Where an address was given: `file:line`, or what it was allocated to.
pub type Place = String;

/// An address that the YAML gives twice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Two owners.
    #[error("{second}: address {address} is already taken at {first}")]
    Twice {
        /// The address.
        address: IpAddr,
        /// Who has it.
        first: Place,
        /// Who wants it too.
        second: Place,
    },
    /// The network is full.
    #[error("{place}: no address is left in {network}")]
    Full {
        /// Who wants one.
        place: Place,
        /// Where.
        network: &'static str,
    },
    /// The bridge could not reach it.
    #[error("{place}: pod address {address} lies outside the lab's 10.77.0.0/16 and fd77::/64")]
    Outside {
        /// The address.
        address: IpAddr,
        /// Who gave it.
        place: Place,
    },
}

/// A pod's pair of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodAddresses {
    /// In 10.77.0.0/16.
    pub v4: Ipv4Addr,
    /// In fd77::/64.
    pub v6: Ipv6Addr,
}

impl PodAddresses {
    /// Both, IPv4 first.
    #[must_use]
    pub fn both(self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

/// Which addresses are taken, and by whom.
#[derive(Debug)]
pub struct AddressPlan {
    taken: BTreeMap<IpAddr, Place>,
}

impl Default for AddressPlan {
    fn default() -> Self {
        let gateway = || Place::from("the bridge");
        Self { taken: BTreeMap::from([(GATEWAY_V4.into(), gateway()), (GATEWAY_V6.into(), gateway())]) }
    }
}

impl AddressPlan {
    /// Takes an address that the YAML gives.
    ///
    /// # Errors
    /// [`AddressError::Twice`].
    pub fn take(&mut self, address: IpAddr, place: &str) -> Result<(), AddressError> {
        if let Some(first) = self.taken.get(&address) {
            return Err(AddressError::Twice { address, first: first.clone(), second: place.to_owned() });
        }
        self.taken.insert(address, place.to_owned());
        Ok(())
    }

    /// A pod's addresses: those given, and free ones for the families that are not.
    ///
    /// # Errors
    /// An address is taken, or lies outside the pods' networks.
    pub fn pod(&mut self, given: &[IpAddr], place: &str) -> Result<PodAddresses, AddressError> {
        let (mut v4, mut v6) = (None, None);
        for &address in given {
            match address {
                IpAddr::V4(it) if in_pods_v4(it) => v4 = Some(it),
                IpAddr::V6(it) if in_pods_v6(it) => v6 = Some(it),
                _ => return Err(AddressError::Outside { address, place: place.to_owned() }),
            }
            self.take(address, place)?;
        }
        // Both families share one number, so that an address tells its twin.
        let number = (FIRST_POD..=LAST).find(|&number| {
            (v4.is_some() || !self.taken.contains_key(&pod_v4(number).into()))
                && (v6.is_some() || !self.taken.contains_key(&pod_v6(number).into()))
        });
        let Some(number) = number else {
            return Err(AddressError::Full { place: place.to_owned(), network: "10.77.0.0/16" });
        };
        let v4 = match v4 {
            Some(given) => given,
            None => self.allocated(pod_v4(number), place),
        };
        let v6 = match v6 {
            Some(given) => given,
            None => self.allocated(pod_v6(number), place),
        };
        Ok(PodAddresses { v4, v6 })
    }

    /// A free cluster IP.
    ///
    /// # Errors
    /// [`AddressError::Full`].
    pub fn cluster(&mut self, place: &str) -> Result<Ipv4Addr, AddressError> {
        let free =
            (FIRST_SERVICE..=LAST).map(cluster_v4).find(|it| !self.taken.contains_key(&IpAddr::V4(*it)));
        let Some(address) = free else {
            return Err(AddressError::Full { place: place.to_owned(), network: "10.96.0.0/16" });
        };
        Ok(self.allocated(address, place))
    }

    fn allocated<A: Copy + Into<IpAddr>>(&mut self, address: A, place: &str) -> A {
        self.taken.insert(address.into(), place.to_owned());
        address
    }
}

// Low numbers stay free for people who give addresses by hand.
const FIRST_POD: u16 = 11;
const FIRST_SERVICE: u16 = 100;
// The last but the broadcast address.
const LAST: u16 = u16::MAX - 1;

fn pod_v4(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 77, high, low)
}

fn pod_v6(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number)
}

fn cluster_v4(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 96, high, low)
}

fn in_pods_v4(address: Ipv4Addr) -> bool {
    matches!(address.octets(), [10, 77, _, _])
}

fn in_pods_v6(address: Ipv6Addr) -> bool {
    matches!(address.segments(), [0xfd77, 0, 0, 0, ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_get_twin_addresses_one_after_the_other() {
        let mut plan = AddressPlan::default();

        let first = plan.pod(&[], "a.yaml:1").unwrap();
        let second = plan.pod(&[], "a.yaml:9").unwrap();

        assert_eq!(first.both(), ["10.77.0.11".parse::<IpAddr>().unwrap(), "fd77::b".parse().unwrap()]);
        assert_eq!(second.both(), ["10.77.0.12".parse::<IpAddr>().unwrap(), "fd77::c".parse().unwrap()]);
    }

    #[test]
    fn an_address_given_twice_names_both_places() {
        let mut plan = AddressPlan::default();
        plan.take("10.96.0.9".parse().unwrap(), "a.yaml:3").unwrap();

        let error = plan.take("10.96.0.9".parse().unwrap(), "b.yaml:7").unwrap_err();

        assert_eq!(error.to_string(), "b.yaml:7: address 10.96.0.9 is already taken at a.yaml:3");
    }

    #[test]
    fn an_address_given_by_hand_is_not_allocated_again() {
        let mut plan = AddressPlan::default();
        plan.take("10.96.0.100".parse().unwrap(), "a.yaml:3").unwrap();
        plan.pod(&["10.77.0.11".parse().unwrap()], "a.yaml:9").unwrap();

        assert_eq!(plan.cluster("b.yaml:1").unwrap(), Ipv4Addr::new(10, 96, 0, 101));
        assert_eq!(plan.pod(&[], "c.yaml:1").unwrap().v4, Ipv4Addr::new(10, 77, 0, 12));
    }

    #[test]
    fn the_bridges_own_address_is_never_a_pods() {
        let error = AddressPlan::default().pod(&[GATEWAY_V4.into()], "a.yaml:1").unwrap_err();

        assert!(matches!(error, AddressError::Twice { .. }));
    }
}
