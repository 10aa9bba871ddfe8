//! How the access log tells: in which words, how much of what went well, and by which name its users go.

use douane_proto::policy::Shadow;

use crate::{
    config::LineFormat,
    telemetry::{outcome::Outcome, record::Record, trace::is_in_share, user::Users},
};

/// How the access log tells.
#[derive(Debug)]
pub struct Form {
    /// How a line is written.
    pub format: LineFormat,
    /// Share of what went well that has a line, 0.0 to 1.0. What failed or was refused always has one.
    pub successes: f64,
    /// How users are named; `None`: not at all.
    pub users: Option<Users>,
}

impl Default for Form {
    fn default() -> Self {
        Self { format: LineFormat::Json, successes: 1.0, users: None }
    }
}

impl Form {
    /// Has it a line? The same trace has one at all its sidecars of the same share, or at none.
    pub(crate) fn keeps(&self, record: &Record) -> bool {
        // Somebody asked to be told of these, however they ended.
        let would_be_denied = matches!(record.dry_run, Some(Shadow::Deny(_)));
        let is_wanted = record.audited_by.is_some() || would_be_denied;
        if self.successes >= 1.0 || is_wanted || !Outcome::of(record).is_good() {
            return true;
        }
        let drawn = record.trace.as_ref().map_or_else(rand::random, |trace| trace.trace_id);
        is_in_share(drawn, self.successes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{record::Direction, trace::TraceContext};

    // In no share but the whole.
    const HIGHEST: u128 = u128::MAX;

    fn record(trace_id: u128, status: u16) -> Record {
        let mut record = Record::new(Direction::Inbound, "10.77.0.5:8080".parse().unwrap());
        (record.method, record.status) = (Some(http::Method::GET), Some(status));
        record.trace =
            Some(TraceContext { trace_id, parent_id: None, span_id: 1, sampled: false, random: true });
        record
    }

    #[test]
    fn of_what_went_well_a_share_is_told_and_of_the_rest_all() {
        let form = Form { successes: 0.25, ..Form::default() };

        let told = (0..2000).filter(|_| form.keeps(&record(rand::random(), 200))).count();
        assert!((350..650).contains(&told), "{told} of 2000");
        assert!((0..100).all(|_| form.keeps(&record(rand::random(), 404))));
        let mut refused = record(rand::random(), 200);
        refused.refusal = Some("upstream_failed");
        assert!(form.keeps(&refused));
        let mut audited = record(HIGHEST, 200);
        audited.audited_by = Some("shop/watch".into());
        assert!(form.keeps(&audited));
        let mut called = record(HIGHEST, 200);
        assert!(!form.keeps(&called));
        called.grpc_status = Some(13);
        assert!(form.keeps(&called));
    }

    #[test]
    fn a_trace_is_told_by_all_or_by_none() {
        let form = Form { successes: 0.5, ..Form::default() };
        for _ in 0..100 {
            let trace = rand::random();
            assert_eq!(form.keeps(&record(trace, 200)), form.keeps(&record(trace, 201)));
        }
        assert!((0..100).all(|_| Form::default().keeps(&record(rand::random(), 200))));
    }
}
