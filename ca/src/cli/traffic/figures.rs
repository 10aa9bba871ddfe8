//! How figures are written for a human. Pure.

use crate::traffic::view::{Side, Tls};

/// Nothing is known.
pub(super) const NONE: &str = "-";

/// Requests in a second.
pub(super) fn rate(side: Option<&Side>) -> String {
    match side.and_then(|side| side.requests_per_second) {
        Some(rate) if rate > 0.0 && rate < 0.05 => "<0.1".to_owned(),
        Some(rate) => format!("{rate:.1}"),
        None => NONE.to_owned(),
    }
}

/// The part that went well: never rounded up to all of it.
pub(super) fn success(side: Option<&Side>) -> String {
    match side.and_then(|side| side.success) {
        Some(part) => format!("{:.1}%", (part * 1000.0).floor() / 10.0),
        None => NONE.to_owned(),
    }
}

/// A duration.
pub(super) fn milliseconds(ms: Option<f64>) -> String {
    match ms {
        Some(ms) if ms < 10.0 => format!("{ms:.1}ms"),
        Some(ms) if ms < 1000.0 => format!("{ms:.0}ms"),
        Some(ms) => format!("{:.1}s", ms / 1000.0),
        None => NONE.to_owned(),
    }
}

/// Opaque streams that are open, and those that ended in the window.
pub(super) fn streams(side: Option<&Side>) -> String {
    match side {
        Some(Side { streams_open: 0, window, .. }) if window.streams == 0 => NONE.to_owned(),
        Some(Side { streams_open, window, .. }) => format!("{streams_open}+{}", window.streams),
        None => NONE.to_owned(),
    }
}

/// Is it encrypted, and are both ends proven?
pub(super) fn tls(tls: Option<Tls>) -> &'static str {
    match tls {
        Some(Tls::Mtls) => "yes",
        Some(Tls::None) => "NO",
        Some(Tls::Mixed) => "PARTLY",
        None => NONE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::view::Counts;

    fn side() -> Side {
        Side {
            requests_per_second: Some(0.016),
            success: Some(0.9996),
            p50_ms: Some(0.768),
            p95_ms: Some(12.3),
            p99_ms: Some(1234.0),
            streams_open: 2,
            window: Counts { streams: 3, ..Counts::default() },
            total: Counts::default(),
        }
    }

    #[test]
    fn figures_are_short_and_never_better_than_they_are() {
        let side = side();
        assert_eq!((rate(Some(&side)).as_str(), success(Some(&side)).as_str()), ("<0.1", "99.9%"));
        let durations = [side.p50_ms, side.p95_ms, side.p99_ms, None].map(milliseconds);
        assert_eq!(durations, ["0.8ms", "12ms", "1.2s", "-"]);
        assert_eq!((streams(Some(&side)).as_str(), streams(None).as_str()), ("2+3", "-"));
    }
}
