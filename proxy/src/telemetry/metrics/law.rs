//! What was decided, and who could not prove who they are.

use prometheus_client::metrics::counter::Counter;

use crate::telemetry::{
    metrics::{
        labels::{Decision, DryRun, OTHER, Refused, Unproven},
        series::{Series, Shelf},
    },
    record::Record,
};

#[derive(Debug)]
pub(super) struct Law {
    decisions: Series<Decision, Counter>,
    dry_runs: Series<DryRun, Counter>,
    refusals: Series<Refused, Counter>,
    unproven: Series<Unproven, Counter>,
}

impl Law {
    pub(super) fn register(shelf: &mut Shelf<'_>) -> Self {
        let law = Self {
            decisions: Series::register(
                shelf,
                "douane_authz_decisions",
                "Decisions by the policy and rule that made them",
                Counter::default,
                Decision::other(),
            ),
            dry_runs: Series::register(
                shelf,
                "douane_dry_run_decisions",
                "What policies in a dry run would have decided",
                Counter::default,
                DryRun { would: OTHER, policy: OTHER.to_owned() },
            ),
            refusals: Series::register(
                shelf,
                "douane_refusals",
                "Connections, streams and requests that were refused or failed in the sidecar",
                Counter::default,
                Refused { direction: OTHER, reason: OTHER },
            ),
            unproven: Series::register(
                shelf,
                "douane_authn_failures",
                "Peers and tokens that did not prove what they had to, by what was wrong",
                Counter::default,
                Unproven { direction: OTHER, kind: OTHER },
            ),
        };
        for kind in KINDS {
            law.unproven.show(&Unproven { direction: "inbound", kind });
        }
        for reason in ["denied", "authorizer_denied"] {
            law.refusals.show(&Refused { direction: "inbound", reason });
        }
        law
    }

    pub(super) fn ended(&self, record: &Record) {
        let direction = record.direction.as_str();
        if record.decision.is_some() {
            self.decisions.of(&Decision::of(record), Counter::inc);
        }
        if let Some(dry_run) = &record.dry_run {
            self.dry_runs.of(&DryRun::of(dry_run), Counter::inc);
        }
        if let Some(reason) = record.refusal {
            self.refusals.of(&Refused { direction, reason }, Counter::inc);
        }
        if let Some(kind) = record.unproven {
            self.unproven.of(&Unproven { direction, kind }, Counter::inc);
        }
    }

    pub(super) fn sweep(&self) {
        self.decisions.sweep();
        self.dry_runs.sweep();
    }
}

// What alerts look at.
const KINDS: [&str; 9] = [
    "plaintext",
    "timeout",
    "no_certificate",
    "no_svid",
    "other_trust_domain",
    "untrusted",
    "expired",
    "token_invalid",
    "token_audience",
];
