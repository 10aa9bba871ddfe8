//! What is looked after while the control plane runs: the authority's next step and its record, what has expired, and the
//! figures that change by themselves.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::{
    attest::Attestor,
    audit::{Event, Ledger, Record},
    authority::{Authority, RotateError},
    holders::Holders,
    metrics::Metrics,
};

/// The authority is looked at so often: a step of a rotation waits for nothing else, and after the clock was set, an
/// intermediate that has ended is replaced within this.
const CARE_EVERY: Duration = Duration::from_secs(1);
/// Forgotten join tokens are swept every so many looks.
const SWEEP_EVERY: u32 = 5;

/// Looks after them until `stop`.
pub(super) async fn care(
    authority: &Arc<Authority>,
    (attestor, ledger): (&Attestor, &Ledger),
    (holders, metrics): (&Holders, &Metrics),
    stop: CancellationToken,
) {
    let started = (SystemTime::now(), time::Instant::now());
    let mut ticks = time::interval(CARE_EVERY);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let (mut failing, mut looks, mut owed) = (None::<String>, 0_u32, VecDeque::new());
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        // A step waits for the disk: off the reactor.
        let cared = Arc::clone(authority);
        let Ok(advanced) = tokio::task::spawn_blocking(move || cared.advance(SystemTime::now())).await else {
            return;
        };
        let must_end = advanced.as_ref().is_err_and(RotateError::is_overtaken);
        let failure = advanced.err().map(|error| format!("{:#}", anyhow::Error::from(error)));
        if must_end {
            // Two that sign by different states, or one that signs and nobody knows: worse than one that has ended.
            tracing::error!(error = failure, "the control plane ends");
            return;
        }
        if let Some(error) = failure.as_ref().filter(|error| failing.as_ref() != Some(error)) {
            tracing::error!(
                error,
                "the authority's next step failed; all stays as it is, and it is tried again"
            );
        }
        failing = failure;
        owed.extend(authority.take_changes());
        while let Some(change) = owed.pop_front() {
            let record = Record { authority: Some(change.authority.clone()), ..Record::of(Event::Authority) };
            if ledger.append(record.because(change.what)).await.is_err() {
                // Said by the log's writer; it is recorded when it can be, in its turn.
                owed.push_front(change);
                break;
            }
        }
        if looks.is_multiple_of(SWEEP_EVERY) {
            let now = SystemTime::now();
            attestor.sweep(now);
            metrics.outage_budget(outage_budget(holders, unix(now)));
            metrics.clock_moved(clock_moved(started.0 + started.1.elapsed(), now));
        }
        looks = looks.wrapping_add(1);
        let expiry = authority.expiry();
        metrics.authority_expires(expiry.root, expiry.intermediate);
    }
}

// Until the first certificate that is in use ends; -1 when none is known.
fn outage_budget(holders: &Holders, now: i64) -> i64 {
    let (all, _) = holders.all(now);
    let ends = all.iter().filter(|holder| holder.until > now).map(|holder| holder.until - now);
    ends.min().unwrap_or(-1)
}

fn clock_moved(expected: SystemTime, now: SystemTime) -> f64 {
    match now.duration_since(expected) {
        Ok(forwards) => forwards.as_secs_f64(),
        Err(backwards) => -backwards.duration().as_secs_f64(),
    }
}

fn unix(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(0)
}
