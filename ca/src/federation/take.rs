//! What was fetched is taken, or not; and when it is worth looking again. Pure.

use std::time::Duration;

use douane_proto::bundle::BundleDocument;

/// SPIFFE Federation 4.1: where a bundle does not say when it is worth looking again.
const USUAL: Duration = Duration::from_secs(5 * 60);
/// Whatever a bundle says: an endpoint must not make us run.
const SHORTEST: Duration = Duration::from_secs(1);
/// A root must be seen before it signs, and one that left soon after.
const LONGEST: Duration = Duration::from_secs(3600);
/// The first wait of a domain of which nothing is known yet: two that start together find each other soon.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// What to do with what was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It says nothing new.
    Same,
    /// It takes the place of what was held.
    Newer,
    /// The same, but its sequence does not tell that it changed, which it must (Trust Domain and Bundle 4.1.1).
    Uncounted,
    /// It is older than what is held: of a replica that lags, or sent again by somebody.
    Older {
        /// Its sequence.
        fetched: u64,
        /// Ours.
        held: u64,
    },
}

/// Is `fetched` to take the place of `held`? An order is known only where both count (SPIFFE Federation 4.2).
pub(super) fn verdict(held: Option<&BundleDocument>, fetched: &BundleDocument) -> Verdict {
    let Some(held) = held else { return Verdict::Newer };
    match (held.sequence, fetched.sequence) {
        (Some(before), Some(now)) if now < before => Verdict::Older { fetched: now, held: before },
        _ if held == fetched => Verdict::Same,
        (Some(before), Some(now)) if now == before && !is_same(held, fetched) => Verdict::Uncounted,
        _ => Verdict::Newer,
    }
}

/// How long to wait before the next fetch; `random` is from 0 to 1. Not all control planes of an endpoint come together, and
/// none comes later than it was asked to.
pub(super) fn pause(held: Option<&BundleDocument>, failures: u32, random: f64) -> Duration {
    let interval = interval(held);
    if failures > 0 && held.is_none() {
        let doubled = FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(10));
        return doubled.min(interval).mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0);
    }
    // SPIFFE Federation 6.2: after a failure the next interval is waited for.
    interval.mul_f64(0.8 + random.clamp(0.0, 1.0) / 5.0)
}

fn interval(held: Option<&BundleDocument>) -> Duration {
    let hint = held.and_then(|held| held.refresh_hint).filter(|seconds| *seconds > 0);
    hint.map_or(USUAL, |seconds| Duration::from_secs(seconds).clamp(SHORTEST, LONGEST))
}

fn is_same(one: &BundleDocument, other: &BundleDocument) -> bool {
    (&one.roots, &one.jwt_keys) == (&other.roots, &other.jwt_keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(sequence: Option<u64>, root: u8) -> BundleDocument {
        BundleDocument { roots: vec![vec![root]], sequence, ..BundleDocument::default() }
    }

    #[test]
    fn row_1_5_an_older_bundle_never_replaces_a_newer_one_where_both_count() {
        let held = document(Some(7), 1);
        for (fetched, expected) in [
            (document(Some(7), 1), Verdict::Same),
            (document(Some(8), 1), Verdict::Newer),
            (document(Some(8), 2), Verdict::Newer),
            (document(Some(7), 2), Verdict::Uncounted),
            (document(Some(6), 2), Verdict::Older { fetched: 6, held: 7 }),
            (document(None, 2), Verdict::Newer),
        ] {
            assert_eq!(verdict(Some(&held), &fetched), expected, "{fetched:?}");
        }
        assert_eq!(verdict(Some(&document(None, 1)), &document(Some(1), 2)), Verdict::Newer);
        assert_eq!(verdict(None, &held), Verdict::Newer);
        let hint = BundleDocument { refresh_hint: Some(9), ..document(Some(7), 1) };
        assert_eq!(verdict(Some(&held), &hint), Verdict::Newer, "a hint is no content");
    }

    #[test]
    fn row_1_5_the_hint_is_followed_within_bounds_and_never_overslept() {
        let hinted = |hint| BundleDocument { refresh_hint: hint, ..document(None, 1) };
        for (hint, seconds) in [
            (None, 300),
            (Some(0), 300),
            (Some(1), 1),
            (Some(60), 60),
            (Some(86_400), 3600),
            (Some(u64::MAX), 3600),
        ] {
            for failures in [0, 1, 9] {
                let at = |random| pause(Some(&hinted(hint)), failures, random);
                assert_eq!(at(1.0), Duration::from_secs(seconds), "{hint:?}");
                assert_eq!(at(0.0), Duration::from_secs(seconds).mul_f64(0.8));
            }
        }
    }

    #[test]
    fn row_1_5_a_domain_of_which_nothing_is_known_is_asked_again_soon_and_then_less_often() {
        let waits: Vec<_> = (1..12).map(|failures| pause(None, failures, 1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(pause(None, u32::MAX, 0.0), USUAL / 2);
    }
}
