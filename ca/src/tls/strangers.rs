//! How many connections may be open that have proven no identity: of one address, and in all. A place is given back when
//! its value is dropped.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How much of us strangers may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Connections at once.
    pub in_all: usize,
    /// Connections of one address at once; many sidecars may stand behind one that translates addresses.
    pub of_one_address: usize,
    /// How long a connection may stay.
    pub visit: Duration,
}

/// Counts strangers. Clones share the count.
#[derive(Debug, Clone)]
pub struct Strangers {
    bounds: Bounds,
    seated: Arc<Mutex<Seated>>,
}

#[derive(Debug, Default)]
struct Seated {
    in_all: usize,
    of: HashMap<IpAddr, usize>,
}

/// A stranger's place.
#[derive(Debug)]
pub struct Stranger {
    from: IpAddr,
    seated: Arc<Mutex<Seated>>,
}

impl Strangers {
    /// Nobody yet.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, seated: Arc::default() }
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// A place for somebody at `from`; `None` when too many are there already.
    pub(super) fn seat(&self, from: IpAddr) -> Option<Stranger> {
        let from = from.to_canonical();
        let mut seated = self.seated.lock().unwrap_or_else(PoisonError::into_inner);
        let own = seated.of.get(&from).copied().unwrap_or(0);
        if own >= self.bounds.of_one_address || seated.in_all >= self.bounds.in_all {
            return None;
        }
        seated.in_all += 1;
        seated.of.insert(from, own + 1);
        Some(Stranger { from, seated: Arc::clone(&self.seated) })
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut seated = self.seated.lock().unwrap_or_else(PoisonError::into_inner);
        seated.in_all = seated.in_all.saturating_sub(1);
        let left = seated.of.get(&self.from).copied().unwrap_or(0).saturating_sub(1);
        if left == 0 {
            seated.of.remove(&self.from);
        } else {
            seated.of.insert(self.from, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strangers() -> Strangers {
        Strangers::new(Bounds { in_all: 3, of_one_address: 2, visit: Duration::from_secs(1) })
    }

    fn address(number: u8) -> IpAddr {
        IpAddr::from([10, 77, 0, number])
    }

    #[test]
    fn one_address_cannot_take_all_places() {
        let strangers = strangers();
        let seats = [strangers.seat(address(1)).unwrap(), strangers.seat(address(1)).unwrap()];
        assert!(strangers.seat(address(1)).is_none());
        let mapped = "::ffff:10.77.0.1".parse().unwrap();
        assert!(strangers.seat(mapped).is_none(), "the same address in another spelling");
        let other = strangers.seat(address(2)).unwrap();
        assert!(strangers.seat(address(3)).is_none(), "full");
        drop((seats, other));
        assert!(strangers.seat(address(3)).is_some());
    }

    #[test]
    fn who_leaves_is_forgotten() {
        let strangers = strangers();
        drop((strangers.seat(address(1)), strangers.seat(address(1)), strangers.seat(address(2))));
        let seated = strangers.seated.lock().unwrap();
        assert!(seated.of.is_empty() && seated.in_all == 0);
    }
}
