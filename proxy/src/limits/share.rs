//! How what is scarce is shared between those who ask. Pure.
//!
//! The rule of fairness, in one sentence: **whoever asks gets one more only while more are free than it holds itself.**
//! Alone it has half of them and leaves the other half to others; of several that always ask, each comes to an equal share.

use std::net::IpAddr;

use douane_proto::id::WorkloadId;

/// How something is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Between callers who do not trust each other.
    Fair,
    /// Nobody has more than this.
    AtMost(usize),
    /// There is one caller: it may have all.
    Whole,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Holder {
    /// A peer, by what it proved.
    Peer(WorkloadId),
    /// A peer that has proved nothing (yet), by its address.
    Address(IpAddr),
    /// The own application.
    Application,
}

/// May one who has `held` of `most` have one more, while `taken` are taken?
#[must_use]
pub fn may_have(held: usize, taken: usize, most: usize, sharing: Sharing) -> bool {
    let free = most.saturating_sub(taken);
    match sharing {
        Sharing::Fair => free > held,
        Sharing::AtMost(one) => free > 0 && held < one,
        Sharing::Whole => free > 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nobody_has_more_than_half_of_what_was_left_to_him(most in 2_usize..2000, greedy in 1_u32..8) {
            let greedy = greedy as usize;
            let mut held = vec![0; greedy];
            while let Some(one) =
                (0..greedy).find(|one| may_have(held[*one], held.iter().sum(), most, Sharing::Fair))
            {
                held[one] += 1;
            }
            let mut left = most;
            for held in held {
                prop_assert!(held <= left.div_ceil(2));
                left -= held;
            }
        }

        #[test]
        fn those_who_always_ask_come_to_equal_shares(most in 100_usize..2000, greedy in 2_usize..6) {
            let mut held = vec![0_usize; greedy];
            for turn in 0..most * 40 {
                // One ends, and everybody asks at once for what became free.
                let one = turn % greedy;
                held[one] = held[one].saturating_sub(1);
                for other in 0..greedy {
                    let other = (turn + other) % greedy;
                    while may_have(held[other], held.iter().sum(), most, Sharing::Fair) {
                        held[other] += 1;
                    }
                }
            }
            let fair = most / (greedy + 1);
            prop_assert!(held.iter().all(|held| held.abs_diff(fair) <= fair / 2 + 2), "{:?} of {}", held, most);
        }

        #[test]
        fn never_more_than_there_are(held in 0_usize..50, taken in 0_usize..100, most in 0_usize..100) {
            for sharing in [Sharing::Fair, Sharing::AtMost(7), Sharing::Whole] {
                prop_assert!(!may_have(held, taken.max(most), most, sharing));
            }
        }
    }
}
