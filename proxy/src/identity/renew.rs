//! When the next certificate is due, and what happens until it comes: the valid one stays in use, attempts follow each
//! other with growing waits, and faster near the end. Also takes over a bundle that the control plane pushes, at once
//! and without a new generation: connections that it still vouches for are left alone.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use douane_proto::svid::{self, Identity, TrustBundle};
use tokio::sync::watch;

use super::{
    clock::now,
    issuer::{IssueError, Issuer, newest},
};
use crate::{backoff::Backoff, tls};

/// The share of a certificate's life after which it is renewed, chosen at random in this range, so that sidecars that
/// started together do not renew together.
const RENEW_FROM: f64 = 0.45;
const RENEW_UNTIL: f64 = 0.60;
/// With less than this share of its life left, a certificate is urgent.
pub(super) const URGENT: f64 = 0.20;
pub(super) const RETRY_FROM: Duration = Duration::from_millis(200);
const RETRY_CAP: Duration = Duration::from_secs(30);
/// Before the first certificate: a pod waits for it, and what it lacks (a token, the control plane) often comes at once.
pub(super) const FIRST_CAP: Duration = Duration::from_secs(5);
const URGENT_CAP: Duration = Duration::from_secs(5);
/// The wall clock may be set while we wait, so it is looked at again.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// An authority that hands out certificates that are due at once must not be asked without pause.
pub(super) const SHORTEST_WAIT: Duration = Duration::from_millis(500);
/// All whom a tainted authority vouches for hear of it at once, and renew within this.
pub(super) const TAINTED_SPREAD: Duration = Duration::from_secs(4);

/// How an attempt went; for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A new certificate is in use.
    Renewed,
    /// The old one stays in use.
    Failed,
}

/// The first identity; tries until there is one.
pub async fn first(issuer: &mut Issuer, told: &impl Fn(Outcome)) -> Identity {
    let mut failures = 0;
    loop {
        match issuer.issue(None).await {
            Ok(identity) => {
                say_renewed(&identity);
                told(Outcome::Renewed);
                return identity;
            }
            Err(error) => {
                failures += 1;
                let wait = Backoff { base: RETRY_FROM, cap: FIRST_CAP }.wait(failures, rand::random());
                let wait = obeyed(wait, error.hint(), rand::random());
                say_failed(&error, wait, None);
                told(Outcome::Failed);
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// Keeps the identity fresh for ever. `bundles` carries what the control plane pushes.
pub async fn run(
    mut issuer: Issuer,
    identity: watch::Sender<Arc<Identity>>,
    bundles: watch::Receiver<Option<Arc<TrustBundle>>>,
    told: impl Fn(Outcome),
) {
    // Two futures of one task: each replaces the value in one step, so there is still one writer.
    tokio::join!(keep_renewing(&mut issuer, &identity, &told), keep_bundle(&identity, bundles));
}

/// How long the certificate may still be used before it should be renewed.
#[must_use]
pub fn renewal_wait(now: Duration, not_before: i64, not_after: i64, random: f64) -> Duration {
    let life = life(not_before, not_after);
    let share = RENEW_FROM + (RENEW_UNTIL - RENEW_FROM) * random.clamp(0.0, 1.0);
    let due = seconds(not_before) + life.mul_f64(share);
    due.saturating_sub(now)
}

/// How long to wait after `failures` attempts in a row: in the last fifth of its life a certificate is urgent.
#[must_use]
pub fn retry_wait(now: Duration, not_before: i64, not_after: i64, failures: u32, random: f64) -> Duration {
    let life = life(not_before, not_after);
    let left = seconds(not_after).saturating_sub(now);
    let cap =
        if left < life.mul_f64(URGENT) { (life / 50).min(URGENT_CAP) } else { (life / 10).min(RETRY_CAP) };
    Backoff { base: RETRY_FROM, cap: cap.max(RETRY_FROM) }.wait(failures, random)
}

/// The wait, but not shorter than the authority asks for, and up to half as much again: who was sent away together does not
/// come back together.
#[must_use]
pub fn obeyed(wait: Duration, hint: Option<Duration>, random: f64) -> Duration {
    wait.max(hint.unwrap_or_default().mul_f64(1.0 + random.clamp(0.0, 1.0) / 2.0))
}

async fn keep_renewing(
    issuer: &mut Issuer,
    identity: &watch::Sender<Arc<Identity>>,
    told: &impl Fn(Outcome),
) {
    loop {
        wait_until_due(identity).await;
        let mut failures = 0;
        let next = loop {
            let held = Arc::clone(&identity.borrow());
            let error = match issuer.issue(Some(&held)).await {
                Ok(next) => break next,
                Err(error) => error,
            };
            failures += 1;
            let leaf = &held.svid.leaf;
            let wait = retry_wait(now(), leaf.not_before, leaf.not_after, failures, rand::random());
            let wait = obeyed(wait, error.hint(), rand::random());
            say_failed(&error, wait, Some(seconds(leaf.not_after).saturating_sub(now())));
            told(Outcome::Failed);
            tokio::time::sleep(wait).await;
        };
        say_renewed(&next);
        told(Outcome::Renewed);
        identity.send_modify(|held| {
            // A newer bundle may have been pushed while we waited.
            let bundle = newest(Some(&held.bundle), (*next.bundle).clone());
            *held = Arc::new(Identity { bundle, ..next });
        });
    }
}

async fn wait_until_due(identity: &watch::Sender<Arc<Identity>>) {
    let random = rand::random();
    let earliest = Instant::now() + SHORTEST_WAIT;
    let mut changes = identity.subscribe();
    let mut tainted_since = None;
    loop {
        let held = Arc::clone(&changes.borrow_and_update());
        let leaf = &held.svid.leaf;
        let mut wait = renewal_wait(now(), leaf.not_before, leaf.not_after, random);
        if is_tainted(&held) {
            let since = *tainted_since.get_or_insert_with(|| {
                tracing::warn!(
                    "the authority behind our certificate is tainted: a new certificate is fetched"
                );
                Instant::now()
            });
            wait = wait.min(TAINTED_SPREAD.mul_f64(random).saturating_sub(since.elapsed()));
        }
        let wait = wait.max(earliest.saturating_duration_since(Instant::now()));
        if wait.is_zero() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(wait.min(LOOK_AGAIN)) => {}
            // A pushed bundle may say that we must renew.
            Ok(()) = changes.changed() => {}
        }
    }
}

/// Does one of the authorities that vouch for the certificate sign no more?
pub(super) fn is_tainted(identity: &Identity) -> bool {
    let tainted = &identity.bundle.tainted_keys;
    let vouches = |der: &Vec<u8>| svid::authority_key_id(der).is_some_and(|id| tainted.contains(&id));
    !tainted.is_empty() && identity.svid.chain.iter().any(vouches)
}

async fn keep_bundle(
    identity: &watch::Sender<Arc<Identity>>,
    mut bundles: watch::Receiver<Option<Arc<TrustBundle>>>,
) {
    // Ends with the discovery stream's task; renewal goes on.
    while bundles.changed().await.is_ok() {
        let Some(offered) = bundles.borrow_and_update().clone() else { continue };
        match tls::check_bundle(Arc::clone(&offered)) {
            Ok(()) => take_bundle(identity, &offered),
            Err(error) => {
                tracing::error!(%error, "a pushed trust bundle is unusable, the last good one stays");
            }
        }
    }
}

fn take_bundle(identity: &watch::Sender<Arc<Identity>>, offered: &Arc<TrustBundle>) {
    identity.send_if_modified(|held| {
        let bundle = newest(Some(&held.bundle), (**offered).clone());
        if Arc::ptr_eq(&bundle, &held.bundle) {
            return false;
        }
        tracing::info!(
            epoch = bundle.epoch,
            sequence = bundle.sequence,
            roots = bundle.roots.len(),
            "new trust bundle"
        );
        *held = Arc::new(Identity { bundle, ..(**held).clone() });
        true
    });
}

fn say_renewed(identity: &Identity) {
    let leaf = &identity.svid.leaf;
    tracing::info!(
        id = %leaf.id,
        generation = identity.generation,
        seconds_left = seconds(leaf.not_after).saturating_sub(now()).as_secs(),
        "new certificate"
    );
}

fn say_failed(error: &IssueError, wait: Duration, left: Option<Duration>) {
    let left = left.map(|left| left.as_secs());
    let retry_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    tracing::warn!(%error, retry_ms, seconds_left = left, "no new certificate");
}

fn life(not_before: i64, not_after: i64) -> Duration {
    seconds(not_after).saturating_sub(seconds(not_before))
}

fn seconds(at: i64) -> Duration {
    Duration::from_secs(u64::try_from(at).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn renewal_falls_in_the_middle_of_a_certificates_life(life in 10_i64..86_400, random in 0.0..1.0) {
            let wait = renewal_wait(seconds(1_000_000), 1_000_000, 1_000_000 + life, random).as_secs_f64();
            prop_assert!(wait >= 0.449 * life as f64 && wait <= 0.601 * life as f64);
        }

        #[test]
        fn no_times_panic(now in any::<u32>(), from in any::<i64>(), until in any::<i64>(), failures in any::<u32>()) {
            let now = Duration::from_secs(now.into());
            let _ = renewal_wait(now, from, until, 0.5);
            let _ = retry_wait(now, from, until, failures, 0.5);
        }
    }

    fn living_by(tainted_keys: Vec<Vec<u8>>) -> Identity {
        use douane_proto::svid::{Leaf, Svid};
        let (own, key) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
        let mut params = rcgen::CertificateParams::default();
        params.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(vec![7; 20]);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
        let issuer = rcgen::Issuer::new(params, key);
        let mut params = rcgen::CertificateParams::default();
        params.use_authority_key_identifier_extension = true;
        let chain = vec![params.signed_by(&own, &issuer).unwrap().der().to_vec()];
        let id = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
        let from = i64::try_from(now().as_secs()).unwrap();
        let leaf = Leaf { id, not_before: from, not_after: from + 3600, serial: String::new() };
        let domain = leaf.id.trust_domain().clone();
        let bundle = TrustBundle { tainted_keys, ..TrustBundle::of_roots(domain, Vec::new()) };
        Identity { svid: Svid { leaf, chain, key: Arc::default() }, bundle: Arc::new(bundle), generation: 1 }
    }

    #[tokio::test]
    async fn t5_whoever_lives_by_a_tainted_authority_renews_within_seconds() {
        assert!(!is_tainted(&living_by(vec![vec![8; 20]])), "another one");
        let (identity, _) = watch::channel(Arc::new(living_by(Vec::new())));
        let due = wait_until_due(&identity);
        tokio::pin!(due);
        assert!(futures_util::poll!(&mut due).is_pending());
        identity.send_replace(Arc::new(living_by(vec![vec![7; 20]])));
        // An hour's certificate: by itself it is due in half an hour.
        tokio::time::timeout(TAINTED_SPREAD * 20, due).await.expect("it is due");
    }

    #[test]
    fn t6_a_sidecar_that_is_sent_away_waits_as_it_is_told_and_a_little_more() {
        let (short, hint) = (Duration::from_millis(200), Some(Duration::from_secs(4)));
        assert_eq!(obeyed(short, None, 0.5), short);
        assert_eq!(obeyed(short, hint, 0.0), Duration::from_secs(4));
        assert_eq!(obeyed(short, hint, 1.0), Duration::from_secs(6));
        assert_eq!(obeyed(Duration::from_secs(30), hint, 1.0), Duration::from_secs(30));
    }

    #[test]
    fn an_expired_certificate_is_due_at_once() {
        assert_eq!(renewal_wait(seconds(2000), 0, 1000, 0.5), Duration::ZERO);
    }

    #[test]
    fn retries_are_faster_near_the_end() {
        let hour = 3600;
        let early = retry_wait(seconds(1800), 0, hour, 20, 1.0);
        let late = retry_wait(seconds(3500), 0, hour, 20, 1.0);
        assert!(early >= Duration::from_secs(30) && late < early);
        // A certificate of ten seconds is retried within the second.
        assert!(retry_wait(seconds(6), 0, 10, 20, 1.0) <= Duration::from_millis(1_100));
    }
}
