//! How often somebody may do something: a token bucket for each of many, in a map that stays bounded whoever comes.
//!
//! Pure but for the lock: the time is an argument. Knows not who is counted, nor what for.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// So many are told apart; who comes when the map is full shares one bucket with all others who do.
const MAX_KNOWN: usize = 65_536;
/// Buckets that are full again are forgotten so often at most: looking for them takes a millisecond or two.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What one may take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Allowance {
    /// At once.
    pub burst: f64,
    /// A second, for long.
    pub rate: f64,
}

/// A bucket for each `K`.
#[derive(Debug)]
pub struct Budgets<K> {
    allowance: Allowance,
    known: Mutex<Known<K>>,
}

#[derive(Debug)]
struct Known<K> {
    buckets: HashMap<K, Bucket>,
    others: Bucket,
    swept: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl<K: Eq + Hash> Budgets<K> {
    /// Nobody has taken anything yet.
    #[must_use]
    pub fn new(allowance: Allowance, now: Instant) -> Self {
        let others = Bucket { tokens: allowance.burst, filled: now };
        Self { allowance, known: Mutex::new(Known { buckets: HashMap::new(), others, swept: now }) }
    }

    /// Takes `cost` of `key`'s tokens.
    ///
    /// # Errors
    /// How long until there are enough; nothing is taken then.
    pub fn take(&self, key: K, cost: f64, now: Instant) -> Result<(), Duration> {
        self.with(key, now, |bucket, allowance| bucket.take(cost, allowance))
    }

    /// Takes `cost` of `key`'s tokens, of whom there may be none left: the debt is waited for.
    pub fn charge(&self, key: K, cost: f64, now: Instant) {
        self.with(key, now, |bucket, allowance| bucket.tokens = (bucket.tokens - cost).max(-allowance.burst));
    }

    fn with<T>(&self, key: K, now: Instant, then: impl FnOnce(&mut Bucket, Allowance) -> T) -> T {
        let allowance = self.allowance;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { buckets, others, swept } = &mut *known;
        if buckets.len() >= MAX_KNOWN
            && !buckets.contains_key(&key)
            && now.saturating_duration_since(*swept) >= SWEEP_EVERY
        {
            *swept = now;
            // A bucket that is full again says nothing.
            buckets.retain(|_, bucket| bucket.level(allowance, now) < allowance.burst);
        }
        let bucket = if buckets.len() >= MAX_KNOWN && !buckets.contains_key(&key) {
            others
        } else {
            buckets.entry(key).or_insert(Bucket { tokens: allowance.burst, filled: now })
        };
        bucket.tokens = bucket.level(allowance, now);
        bucket.filled = now;
        then(bucket, allowance)
    }
}

impl Bucket {
    fn level(&self, allowance: Allowance, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        (self.tokens + passed * allowance.rate).min(allowance.burst)
    }

    fn take(&mut self, cost: f64, allowance: Allowance) -> Result<(), Duration> {
        if self.tokens < cost {
            return Err(Duration::from_secs_f64((cost - self.tokens) / allowance.rate));
        }
        self.tokens -= cost;
        Ok(())
    }
}

/// Who stands behind an address: of IPv6 the network of 64 bits, of which everybody has 2^64 addresses.
#[must_use]
pub fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => Ipv6Addr::from_bits(six.to_bits() & !u128::from(u64::MAX)).into(),
        four @ IpAddr::V4(_) => four,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEW: Allowance = Allowance { burst: 2.0, rate: 1.0 };

    #[test]
    fn who_has_taken_all_waits_and_nobody_else_does() {
        let start = Instant::now();
        let budgets = Budgets::new(FEW, start);
        assert!(budgets.take("one", 1.0, start).is_ok() && budgets.take("one", 1.0, start).is_ok());
        assert_eq!(budgets.take("one", 1.0, start), Err(Duration::from_secs(1)));
        assert!(budgets.take("other", 1.0, start).is_ok());
        assert!(budgets.take("one", 1.0, start + Duration::from_secs(1)).is_ok());
        budgets.charge("other", 10.0, start);
        assert_eq!(budgets.take("other", 1.0, start), Err(Duration::from_secs(3)), "a debt has an end");
    }

    #[test]
    fn t6_a_million_strangers_take_bounded_memory_and_share_one_bucket_in_the_end() {
        let start = Instant::now();
        let budgets = Budgets::new(FEW, start);
        let mut refused = 0;
        for number in 0..MAX_KNOWN + 1000 {
            refused += usize::from(budgets.take(number, 1.0, start).is_err());
        }
        assert!(refused > 900, "{refused}");
        assert_eq!(budgets.known.lock().unwrap().buckets.len(), MAX_KNOWN);
        let later = start + Duration::from_secs(10);
        assert!(budgets.take(MAX_KNOWN + 5000, 1.0, later).is_ok());
        assert_eq!(budgets.known.lock().unwrap().buckets.len(), 1, "the others are forgotten");
    }

    #[test]
    fn a_network_of_ipv6_is_one_household() {
        let parse = |text: &str| household(text.parse().unwrap());
        assert_eq!(parse("2001:db8::1"), parse("2001:db8::ffff:1"));
        assert_ne!(parse("2001:db8::1"), parse("2001:db8:0:1::1"));
        assert_eq!(parse("::ffff:10.0.0.1"), parse("10.0.0.1"));
    }
}
