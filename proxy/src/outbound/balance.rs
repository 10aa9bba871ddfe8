//! Which endpoint: of two at random, the one with fewer requests in flight. One that could not be reached is not
//! picked again for the same request, and one that fails again and again not for a while.

use std::{cell::RefCell, collections::HashMap, net::SocketAddr, rc::Rc, time::Instant};

use foldhash::fast::RandomState;

use crate::outbound::ejection::{Outliers, Verdict};

/// Requests in flight by endpoint, as this sidecar sees them.
#[derive(Debug, Clone, Default)]
pub struct Balancer {
    in_flight: Rc<RefCell<HashMap<SocketAddr, usize, RandomState>>>,
    outliers: Rc<RefCell<Outliers>>,
}

/// An endpoint counts one more in flight until this is dropped.
#[derive(Debug)]
pub struct InFlight {
    balancer: Balancer,
    address: SocketAddr,
}

impl Balancer {
    /// Picks from `addresses` all but those `tried`; `None` when none is left.
    #[must_use]
    pub fn pick(&self, addresses: &[SocketAddr], tried: &[SocketAddr]) -> Option<(SocketAddr, InFlight)> {
        let mut left: Vec<SocketAddr> =
            addresses.iter().copied().filter(|address| !tried.contains(address)).collect();
        self.leave_out(addresses, &mut left);
        let loads = self.in_flight.borrow();
        let load = |address: &SocketAddr| loads.get(address).copied().unwrap_or(0);
        let address = least_of_two(&left, load, |below| rand::random_range(0..below))?;
        drop(loads);
        *self.in_flight.borrow_mut().entry(address).or_default() += 1;
        Some((address, InFlight { balancer: self.clone(), address }))
    }

    // Those who fail again and again, unless nobody else is left to try.
    fn leave_out(&self, all: &[SocketAddr], left: &mut Vec<SocketAddr>) {
        let outliers = self.outliers.borrow();
        if outliers.is_empty() {
            return;
        }
        let out = outliers.out_of(all, Instant::now());
        if left.iter().any(|address| !out.contains(address)) {
            left.retain(|address| !out.contains(address));
        }
    }
}

impl InFlight {
    /// Its endpoint answered.
    pub fn answered(&self) {
        let outliers = &self.balancer.outliers;
        if !outliers.borrow().is_empty() {
            outliers.borrow_mut().answered(self.address);
        }
    }

    /// Its endpoint failed.
    #[must_use]
    pub fn failed(&self) -> Verdict {
        let mut outliers = self.balancer.outliers.borrow_mut();
        outliers.failed(self.address, Instant::now(), rand::random())
    }

    /// Which endpoint it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut loads = self.balancer.in_flight.borrow_mut();
        // Only what is in flight is remembered, so that the map does not grow with the mesh.
        if let Some(load) = loads.get_mut(&self.address) {
            *load = load.saturating_sub(1);
            if *load == 0 {
                loads.remove(&self.address);
            }
        }
    }
}

fn least_of_two(
    left: &[SocketAddr],
    load: impl Fn(&SocketAddr) -> usize,
    mut random_below: impl FnMut(usize) -> usize,
) -> Option<SocketAddr> {
    let first_index = match left.len() {
        0 => return None,
        1 => return left.first().copied(),
        many => random_below(many),
    };
    // Another one: of the rest, counted from behind the first.
    let second_index = (first_index + 1 + random_below(left.len() - 1)) % left.len();
    let (first, second) = (left.get(first_index)?, left.get(second_index)?);
    Some(if load(second) < load(first) { *second } else { *first })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 80))
    }

    #[test]
    fn the_less_busy_of_two_is_picked() {
        let both = [address(1), address(2)];
        let load = |of: &SocketAddr| usize::from(*of == address(1)) * 5;

        for start in 0..2 {
            let mut draws = [start, 0].into_iter();
            assert_eq!(least_of_two(&both, load, |_| draws.next().unwrap()), Some(address(2)));
        }
    }

    #[test]
    fn the_two_are_never_the_same() {
        let all = [address(1), address(2), address(3)];
        for first in 0..3 {
            for second in 0..2 {
                let mut draws = [first, second].into_iter();
                let seen = RefCell::new(Vec::new());
                let load = |of: &SocketAddr| {
                    seen.borrow_mut().push(*of);
                    0
                };
                let _ = least_of_two(&all, load, |_| draws.next().unwrap());
                let seen = seen.into_inner();
                assert_ne!(seen[0], seen[1]);
            }
        }
    }

    #[test]
    fn what_was_tried_is_not_picked_and_what_has_ended_is_forgotten() {
        let balancer = Balancer::default();
        let all = [address(1), address(2)];

        let (picked, guard) = balancer.pick(&all, &[address(1)]).unwrap();
        assert_eq!(picked, address(2));
        assert!(balancer.pick(&all, &all).is_none());

        drop(guard);
        assert!(balancer.in_flight.borrow().is_empty());
    }

    #[test]
    fn who_fails_again_and_again_is_left_out_unless_nobody_else_is_left() {
        let balancer = Balancer::default();
        let all = [address(1), address(2)];
        let (_, bad) = balancer.pick(&all, &[address(2)]).unwrap();
        let verdicts: Vec<_> = (0..5).map(|_| bad.failed()).collect();
        assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::Ejected).count(), 1);

        for _ in 0..20 {
            assert_eq!(balancer.pick(&all, &[]).unwrap().0, address(2));
        }
        assert_eq!(balancer.pick(&all, &[address(2)]).unwrap().0, address(1));

        bad.answered();
        let held: Vec<_> = (0..10).map(|_| balancer.pick(&all, &[]).unwrap()).collect();
        assert!(held.iter().any(|(picked, _)| *picked == address(1)));
    }

    #[test]
    fn load_spreads_over_equal_endpoints() {
        let balancer = Balancer::default();
        let all = [address(1), address(2)];

        let held: Vec<_> = (0..10).map(|_| balancer.pick(&all, &[]).unwrap()).collect();

        assert_eq!(held.iter().filter(|(picked, _)| *picked == address(1)).count(), 5);
    }
}
