//! Endpoints that fail again and again are left out for a while. Pure: the clock and the dice are arguments.
//!
//! Five failures in a row put an endpoint out for a second, each further one for twice as long, a minute at most, and up
//! to half as long again by chance, so that endpoints that failed together do not come back together. One success
//! forgets it all. Never more than half of a service's endpoints are out, and so never its last one: where all fail,
//! leaving them out would only add to it.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// In a row.
const FAILURES: u32 = 5;
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// Of the time that an endpoint is out, by chance on top of it.
const JITTER: f64 = 0.5;
/// Endpoints that are remembered: only those that have failed last. The oldest troubles are forgotten first.
const MOST: usize = 1024;

/// Endpoints that have failed since they last answered.
#[derive(Debug, Default)]
pub struct Outliers(HashMap<SocketAddr, Trouble>);

/// Was the endpoint just put out?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// From now on, or again.
    Ejected,
    /// It is as before.
    Unchanged,
}

#[derive(Debug, Clone, Copy)]
struct Trouble {
    failures: u32,
    last: Instant,
    out_until: Option<Instant>,
}

impl Outliers {
    /// Is nobody in trouble? Then all may be picked, without a look at the clock.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `endpoint` failed at `now`; `random` in 0..1.
    pub fn failed(&mut self, endpoint: SocketAddr, now: Instant, random: f64) -> Verdict {
        if self.0.len() >= MOST && !self.0.contains_key(&endpoint) {
            let oldest = self.0.iter().min_by_key(|(_, trouble)| trouble.last).map(|(address, _)| *address);
            oldest.map(|address| self.0.remove(&address));
        }
        let trouble = self.0.entry(endpoint).or_insert(Trouble { failures: 0, last: now, out_until: None });
        trouble.last = now;
        // What was on its way when it was put out says nothing new.
        if trouble.out_until.is_some_and(|until| until > now) {
            return Verdict::Unchanged;
        }
        trouble.failures = trouble.failures.saturating_add(1);
        let Some(again) = trouble.failures.checked_sub(FAILURES) else { return Verdict::Unchanged };
        let doubled = SHORTEST.saturating_mul(1_u32.checked_shl(again).unwrap_or(u32::MAX)).min(LONGEST);
        trouble.out_until = Some(now + doubled.mul_f64(1.0 + JITTER * random.clamp(0.0, 1.0)));
        Verdict::Ejected
    }

    /// `endpoint` answered.
    pub fn answered(&mut self, endpoint: SocketAddr) {
        self.0.remove(&endpoint);
    }

    /// Those of `all` that are out at `now`, at most half of them: who failed longest ago comes back first.
    #[must_use]
    pub fn out_of(&self, all: &[SocketAddr], now: Instant) -> Vec<SocketAddr> {
        let until = |endpoint: &SocketAddr| {
            let trouble = self.0.get(endpoint)?;
            trouble.out_until.filter(|until| *until > now).map(|until| (until, *endpoint))
        };
        let mut out: Vec<_> = all.iter().filter_map(until).collect();
        out.sort_unstable_by_key(|(until, _)| std::cmp::Reverse(*until));
        out.truncate(all.len() / 2);
        out.into_iter().map(|(_, endpoint)| endpoint).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, (last >> 8) as u8, last as u8], 80))
    }

    fn fail(outliers: &mut Outliers, endpoint: SocketAddr, times: u32, now: Instant) -> Verdict {
        (0..times).map(|_| outliers.failed(endpoint, now, 0.0)).last().unwrap()
    }

    #[test]
    fn five_failures_in_a_row_put_an_endpoint_out_for_a_second() {
        let (start, all) = (Instant::now(), [address(1), address(2)]);
        let mut outliers = Outliers::default();

        assert_eq!(fail(&mut outliers, all[0], 4, start), Verdict::Unchanged);
        assert!(outliers.out_of(&all, start).is_empty());
        assert_eq!(fail(&mut outliers, all[0], 1, start), Verdict::Ejected);

        assert_eq!(outliers.out_of(&all, start + Duration::from_millis(999)), [all[0]]);
        assert!(outliers.out_of(&all, start + Duration::from_secs(1)).is_empty());
    }

    #[test]
    fn an_answer_between_them_forgets_the_failures() {
        let (start, all) = (Instant::now(), [address(1), address(2)]);
        let mut outliers = Outliers::default();

        fail(&mut outliers, all[0], 4, start);
        outliers.answered(all[0]);
        assert!(outliers.is_empty());

        assert_eq!(fail(&mut outliers, all[0], 4, start), Verdict::Unchanged);
    }

    #[test]
    fn each_further_failure_doubles_the_time_up_to_a_minute_and_chance_adds_half() {
        let endpoint = address(1);
        let all = [endpoint, address(2)];
        for (random, longest) in [(0.0, 60.0), (1.0, 90.0)] {
            let mut outliers = Outliers::default();
            let mut now = Instant::now();
            let mut out = Vec::new();
            for _ in 0..15 {
                outliers.failed(endpoint, now, random);
                let until =
                    (0..).find(|s| outliers.out_of(&all, now + Duration::from_millis(s * 500)).is_empty());
                out.push(until.unwrap() as f64 / 2.0);
                now += Duration::from_millis(until.unwrap() * 500);
            }
            assert_eq!(out[..4], [0.0; 4]);
            assert!(out.is_sorted() && out[5] >= 2.0, "{out:?}");
            assert_eq!(out[14], longest);
        }
    }

    #[test]
    fn failures_of_what_was_on_its_way_do_not_prolong_it() {
        let (start, all) = (Instant::now(), [address(1), address(2)]);
        let mut outliers = Outliers::default();

        fail(&mut outliers, all[0], 50, start);

        assert!(outliers.out_of(&all, start + Duration::from_secs(2)).is_empty());
    }

    #[test]
    fn never_more_than_half_are_out_and_never_the_last() {
        let start = Instant::now();
        for count in 1..7_u16 {
            let all: Vec<_> = (0..count).map(address).collect();
            let mut outliers = Outliers::default();
            for endpoint in &all {
                fail(&mut outliers, *endpoint, 5, start);
            }
            assert_eq!(outliers.out_of(&all, start).len(), usize::from(count / 2));
        }
    }

    #[test]
    fn a_thousand_troubles_are_remembered_and_no_more() {
        let mut outliers = Outliers::default();
        for number in 0..5000 {
            outliers.failed(address(number), Instant::now(), 0.0);
        }
        assert_eq!(outliers.0.len(), MOST);
    }
}
