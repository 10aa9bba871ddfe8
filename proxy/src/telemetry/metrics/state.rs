//! The sidecar's own state: its certificate, what it knows of the mesh, its memory.

use std::{
    sync::atomic::AtomicU64,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::metrics::{counter::Counter, gauge::Gauge, info::Info};

use crate::{
    budget,
    telemetry::{
        metrics::{
            labels::{OTHER, Outcome},
            series::{Series, Shelf},
        },
        writer::LostLines,
    },
};

#[derive(Debug)]
pub(super) struct State {
    pub(super) ejections: Counter,
    pub(super) pressure: Gauge,
    pub(super) certificate_begin: Gauge,
    pub(super) certificate_expiry: Gauge,
    pub(super) roots_expiry: Gauge,
    pub(super) connected: Gauge,
    pub(super) complaints: Gauge,
    applied: Gauge<f64, AtomicU64>,
    renewals: Series<Outcome, Counter>,
    epoch: Gauge<u64, AtomicU64>,
    sequence: Gauge<u64, AtomicU64>,
    held: Gauge<u64, AtomicU64>,
    budget: Gauge<u64, AtomicU64>,
}

impl State {
    pub(super) fn register(shelf: &mut Shelf<'_>, lost_lines: &LostLines, lost_audit: &LostLines) -> Self {
        let state = Self {
            ejections: Counter::default(),
            pressure: Gauge::default(),
            certificate_begin: Gauge::default(),
            certificate_expiry: Gauge::default(),
            roots_expiry: Gauge::default(),
            connected: Gauge::default(),
            complaints: Gauge::default(),
            applied: Gauge::default(),
            renewals: Series::register(
                shelf,
                "douane_certificate_renewals",
                "Renewals of the workload's certificate",
                Counter::default,
                Outcome { result: OTHER },
            ),
            epoch: Gauge::default(),
            sequence: Gauge::default(),
            held: Gauge::default(),
            budget: Gauge::default(),
        };
        state.register_plain(shelf, lost_lines, lost_audit);
        state
    }

    pub(super) fn renewed(&self, result: &'static str) {
        self.renewals.of(&Outcome { result }, Counter::inc);
    }

    pub(super) fn snapshot(&self, epoch: u64, sequence: u64, now: SystemTime) {
        if (self.epoch.get(), self.sequence.get()) == (epoch, sequence) {
            return;
        }
        self.epoch.set(epoch);
        self.sequence.set(sequence);
        self.applied.set(seconds(now));
    }

    /// What is looked up only when somebody asks.
    pub(super) fn look(&self) {
        self.held.set(budget::held() as u64);
        self.budget.set(budget::limit() as u64);
    }

    fn register_plain(&self, shelf: &mut Shelf<'_>, lost_lines: &LostLines, lost_audit: &LostLines) {
        let started = Gauge::<f64, AtomicU64>::default();
        started.set(seconds(SystemTime::now()));
        let r = &mut *shelf.registry;
        r.register("process_start_time_seconds", "When this process began, seconds since 1970", started);
        r.register(
            "douane_build",
            "What this sidecar is",
            Info::new([("version", env!("CARGO_PKG_VERSION"))].to_vec()),
        );
        r.register(
            "douane_certificate_expiry_timestamp_seconds",
            "When the certificate in use ends, seconds since 1970",
            self.certificate_expiry.clone(),
        );
        r.register(
            "douane_certificate_not_before_timestamp_seconds",
            "When the certificate in use begins, seconds since 1970",
            self.certificate_begin.clone(),
        );
        r.register(
            "douane_trust_bundle_expiry_timestamp_seconds",
            "When the first root of the trust bundle ends, seconds since 1970",
            self.roots_expiry.clone(),
        );
        r.register(
            "douane_control_plane_connected",
            "Whether the control plane's stream is open: 0 means the last good state",
            self.connected.clone(),
        );
        r.register(
            "douane_snapshot_applied_timestamp_seconds",
            "When the state of the mesh in use was applied, seconds since 1970",
            self.applied.clone(),
        );
        r.register(
            "douane_complaints",
            "Parts of the law in use that could not be applied as written",
            self.complaints.clone(),
        );
        r.register(
            "douane_ejections",
            "Endpoints left out for a while because they failed again and again",
            self.ejections.clone(),
        );
        r.register(
            "douane_memory_pressure",
            "How short memory is: 0 calm, 1 tight (85 %), 2 no new requests (90 %), 3 no new connections (95 %)",
            self.pressure.clone(),
        );
        r.register("douane_snapshot_epoch", "Which history the sequence counts in", self.epoch.clone());
        r.register("douane_snapshot_sequence", "The newest delta in use", self.sequence.clone());
        r.register("douane_held_bytes", "What peers and applications make us hold", self.held.clone());
        r.register("douane_byte_budget_bytes", "What it should not exceed", self.budget.clone());
        r.register(
            "douane_log_lines_dropped",
            "Log lines that the output was too slow for, or refused",
            lost_lines.0.clone(),
        );
        r.register(
            "douane_audit_lines_dropped",
            "Lines of the audit log that its file was too slow for, or refused",
            lost_audit.0.clone(),
        );
        r.register(
            "douane_metrics_overflow",
            "What was counted as `other` because its metric has as many series as it may",
            shelf.overflow.clone(),
        );
    }
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
