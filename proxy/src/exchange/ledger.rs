//! Begins the record of each request and stream, and writes refusals into it.

use std::{cell::RefCell, net::SocketAddr, rc::Rc, time::Instant};

use douane_proto::policy::Permit;
use http::{HeaderMap, StatusCode};

use crate::{
    authz::Remarks,
    net::detect::Opening,
    refusal::Refusal,
    telemetry::{
        access::{Access, Direction, Record, Telemetry, policy_and_rule},
        retention::Call,
        tracer::Caller,
    },
};

/// A record that the request body, the answer's body and the task between them fill together.
pub type SharedAccess = Rc<RefCell<Access>>;

/// Where records begin.
#[derive(Debug, Clone)]
pub struct Ledger {
    telemetry: Rc<Telemetry>,
}

impl Ledger {
    /// Records go to `telemetry`.
    #[must_use]
    pub fn new(telemetry: Rc<Telemetry>) -> Self {
        Self { telemetry }
    }

    /// The record of a connection or opaque stream.
    #[must_use]
    pub fn begin(&self, direction: Direction, destination: SocketAddr) -> Access {
        self.telemetry.begin(direction, destination)
    }

    /// Counts a request that is sent again, and why that is safe.
    pub fn retried(&self, reason: &'static str) {
        self.telemetry.metrics.retried(reason);
    }

    /// Counts an endpoint that is left out for a while.
    pub fn ejected(&self) {
        self.telemetry.metrics.ejected();
    }

    /// Counts what a connection was found to speak that began to be listened to at `since`.
    pub fn detected(&self, direction: Direction, opening: Opening, since: Instant) {
        self.telemetry.metrics.detected(direction, opening.label(), since.elapsed());
    }

    /// Counts what travels without mutual TLS because the mesh permits it.
    pub fn in_plaintext(&self, direction: Direction) {
        self.telemetry.metrics.in_plaintext(direction);
    }

    /// All that is held of this trace is exported, and what is still to come of it.
    pub(crate) fn keep(&self, trace_id: u128) {
        self.telemetry.keep(trace_id);
    }

    /// Waits until there are peers to be told of traces that are kept.
    pub(crate) async fn calls(&self) -> Vec<Call> {
        self.telemetry.calls().await
    }

    /// The record of what these headers of `caller` belong to, with a span that continues their trace as far as it is
    /// believed.
    #[must_use]
    pub fn begin_traced(
        &self,
        direction: Direction,
        destination: SocketAddr,
        headers: &mut HeaderMap,
        caller: Caller<'_>,
    ) -> SharedAccess {
        Rc::new(RefCell::new(self.telemetry.begin_traced(direction, destination, headers, caller)))
    }
}

/// What was tried before a request is sent again.
#[derive(Debug)]
pub enum Tried<'a> {
    /// Its answer was not passed on.
    Answered(StatusCode),
    /// None came.
    Failed(&'a Refusal),
}

/// A request is sent again: what was tried is told as a span of its own, and `headers` name the next one.
pub fn send_again(access: &SharedAccess, tried: &Tried<'_>, headers: &mut HeaderMap) {
    let mut access = access.borrow_mut();
    match tried {
        Tried::Answered(status) => access.record.status = Some(status.as_u16()),
        Tried::Failed(refusal) => {
            access.record.refusal = Some(refusal.label());
            access.record.reason = Some(refusal.to_string());
        }
    }
    access.sends_again();
    let record = &mut access.record;
    (record.status, record.refusal, record.reason) = (None, None, None);
    access.write_trace(headers);
}

/// An answer that somebody waits for. Dropped before it came, it notes that its client has gone.
#[derive(Debug)]
pub struct Awaited(Option<SharedAccess>);

impl Awaited {
    /// Not answered yet.
    #[must_use]
    pub fn new(access: &SharedAccess) -> Self {
        Self(Some(SharedAccess::clone(access)))
    }

    /// What becomes of the answer is its body's business now.
    pub fn is_answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        let Some(access) = self.0.take() else { return };
        let Ok(mut access) = access.try_borrow_mut() else { return };
        if access.record.refusal.is_none() {
            note(&mut access.record, &Refusal::ClientGone);
        }
    }
}

/// Writes why it was refused.
pub fn note(record: &mut Record, refusal: &Refusal) {
    record.is_broken_off = record.status.is_some();
    record.refusal = Some(refusal.label());
    record.refused_with = Some(refusal.status().as_u16());
    record.reason = Some(refusal.to_string());
    record.hint = refusal.hint().map(str::to_owned);
    record.denied = refusal.is_denial();
    record.unproven = refusal.unproven();
    let Some(denial) = refusal.denial() else { return };
    record.decision = Some("deny");
    record.policy = policy_and_rule(denial).map(Into::into);
}

/// Writes by what it was allowed.
pub fn note_permit(record: &mut Record, permit: &Permit) {
    record.decision = Some("allow");
    record.policy.clone_from(&permit.by);
}

/// Writes what was decided for the record only.
pub fn note_remarks(record: &mut Record, Remarks { audited_by, dry_run }: Remarks) {
    record.audited_by = audited_by;
    record.dry_run = dry_run;
}
