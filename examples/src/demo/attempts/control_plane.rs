//! 9: the control plane is killed, and comes back.

use std::{collections::BTreeMap, thread, time::Duration};

use anyhow::Context;
use serde_json::Value;

use crate::demo::{
    script::{Attempt, Found, Script},
    stage::{CHECKOUT, Stage},
    wait::until,
};

/// Shorter than what is left of any certificate: they are renewed at 60 % of their 10 s at the latest.
const AWAY: Duration = Duration::from_millis(2000);
/// Reconnecting backs off, and a renewal may just have been missed.
const BACK: Duration = Duration::from_secs(30);

/// When a certificate ends.
const ENDS: &str = "douane_certificate_expiry_timestamp_seconds";
/// Another one with each start of the control plane that a sidecar has heard of.
const EPOCH: &str = "douane_snapshot_epoch";

/// 9.
pub(crate) fn lose(stage: &Stage, script: &mut Script) {
    let attempt = Attempt {
        number: "9",
        from: "operator",
        to: "kills the control plane (-9), starts it again",
        expected: "no failed request; every sidecar reconnects and renews by itself",
    };
    script.attempt(attempt, || {
        let load =
            stage.start(&stage.pod("web")?, &["load", CHECKOUT, "--rate", "40", "--seconds", "600"])?;
        stage.kill_control_plane();
        thread::sleep(AWAY);
        let (ends, epochs) = (stage.figures(ENDS), stage.figures(EPOCH));
        stage.start_control_plane()?;
        let connected = until(BACK, || {
            all(&epochs, &stage.figures(EPOCH), |then, now| then.total_cmp(&now).is_ne()).then_some(())
        });
        let renewed = until(BACK, || all(&ends, &stage.figures(ENDS), |then, now| now > then).then_some(()));
        let load = load.stop()?.last()?;

        let count = |field| load.get(field).and_then(Value::as_u64).context("a count");
        let (total, failed) = (count("total")?, count("failed")?);
        let failure = load.get("first_failure").and_then(Value::as_str).unwrap_or_default();
        Ok(Found {
            actual: format!(
                "{failed} of {total} requests failed; {}, {}",
                if renewed.is_some() { "all renewed" } else { "NOT all renewed" },
                if connected.is_some() { "all connected" } else { "NOT all connected" },
            ),
            ok: total > 0 && failed == 0 && renewed.is_some() && connected.is_some(),
            why: if failure.is_empty() {
                format!("away for {} ms; {} sidecars", AWAY.as_millis(), ends.len())
            } else {
                format!("first failure: {failure}")
            },
        })
    });
}

/// Has every sidecar's figure moved so?
fn all(before: &BTreeMap<String, f64>, now: &BTreeMap<String, f64>, moved: fn(f64, f64) -> bool) -> bool {
    !before.is_empty() && before.iter().all(|(pod, then)| now.get(pod).is_some_and(|now| moved(*then, *now)))
}
