//! 6: certificates that live 10 seconds, under load, for at least three renewals of every sidecar.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;
use serde_json::Value;

use crate::demo::{
    logs::text,
    script::{Attempt, Found, Script},
    stage::{CHECKOUT, LEDGER, Stage},
    wait::until,
};

/// Of every sidecar.
const RENEWALS: f64 = 3.0;
const RENEWED: &str = "douane_certificate_renewals_total{result=\"succeeded\"}";
/// Three renewals of 10 s certificates take 18 s; a slow machine may take its time.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at all sidecars.
const OPENS: Duration = Duration::from_secs(10);

/// 6.
pub(crate) fn outlive(stage: &Stage, script: &mut Script) {
    let attempt = Attempt {
        number: "6",
        from: "web, orders",
        to: "all the shop, while certificates change",
        expected: "3 renewals of every sidecar, no failed request, the ledger's connection open",
    };
    script.attempt(attempt, || {
        let holding = stage.start(&stage.pod("orders")?, &["ledger-hold", LEDGER, "--every", "50"])?;
        holding.line(OPENS, |line| text(line, "event") == "open").context("the ledger did not greet")?;
        let load =
            stage.start(&stage.pod("web")?, &["load", CHECKOUT, "--rate", "40", "--seconds", "600"])?;

        let mut seen = Renewals::from_now_on(stage);
        let enough = until(LIMIT, || {
            seen.look(stage);
            (seen.fewest() >= RENEWALS).then_some(())
        });
        let (load, held) = (load.stop()?.last()?, holding.stop()?.last()?);

        let (total, failed) = (count(&load, "total"), count(&load, "failed"));
        let open = text(&held, "event") == "stopped";
        let mut why = format!("{seen}\nledger: {} entries on one connection", count(&held, "entries"));
        if let Some(failure) = load.get("first_failure").and_then(Value::as_str) {
            why.push_str(&format!("\nfirst failure: {failure}"));
        }
        if !open {
            why.push_str(&format!("\nthe ledger's connection ended: {}", text(&held, "why")));
        }
        Ok(Found {
            actual: format!(
                "{} renewals, {failed} of {total} requests failed, connection {}",
                seen.fewest(),
                if open { "open" } else { "CLOSED" }
            ),
            ok: enough.is_some() && total > 0 && failed == 0 && open,
            why,
        })
    });
}

/// How often each sidecar has renewed since the attempt began.
#[derive(Debug)]
struct Renewals {
    before: BTreeMap<String, f64>,
    now: BTreeMap<String, f64>,
}

impl Renewals {
    fn from_now_on(stage: &Stage) -> Self {
        let before = stage.figures(RENEWED);
        Self { now: before.clone(), before }
    }

    fn look(&mut self, stage: &Stage) {
        self.now.extend(stage.figures(RENEWED));
    }

    fn each(&self) -> impl Iterator<Item = (&str, f64)> {
        let before = |pod: &str| self.before.get(pod).copied().unwrap_or_default();
        self.now.iter().map(move |(pod, now)| (pod.as_str(), now - before(pod)))
    }

    /// Of the sidecar that renewed least often.
    fn fewest(&self) -> f64 {
        self.each().map(|(_, times)| times).reduce(f64::min).unwrap_or_default()
    }
}

impl std::fmt::Display for Renewals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let each: Vec<_> = self.each().map(|(pod, times)| format!("{pod} {times}")).collect();
        write!(f, "renewals: {}", each.join(", "))
    }
}

fn count(line: &Value, field: &str) -> u64 {
    line.get(field).and_then(Value::as_u64).unwrap_or_default()
}
