//! The two text forms that scrapers read: OpenMetrics 1.0 with exemplars, and Prometheus' older text (0.0.4), which is
//! also what somebody sees who asks with curl.

/// In which form metrics are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposition {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' text format 0.0.4.
    Prometheus,
}

impl Exposition {
    /// What a scraper wants by its Accept header (RFC 9110 12.5.1): OpenMetrics where it is named. Weights are not looked
    /// at: who names OpenMetrics prefers it.
    #[must_use]
    pub fn wanted(accept: Option<&str>) -> Self {
        let names = |accept: &str| {
            accept.split(',').any(|range| range.split(';').next().is_some_and(|it| it.trim() == OPENMETRICS))
        };
        if accept.is_some_and(names) { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// Its media type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// OpenMetrics in this form.
    pub(super) fn of(self, openmetrics: String) -> String {
        match self {
            Self::OpenMetrics => openmetrics,
            Self::Prometheus => older(&openmetrics),
        }
    }
}

// Counters and `info` have no type of their own there by these names: the family is called as its samples are. There are
// no exemplars, units or end mark.
fn older(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help = None;
    for line in openmetrics.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ');
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').unwrap_or((typed, "untyped"));
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            if let Some((_, help)) = help.take().filter(|(described, _)| *described == name) {
                text.extend(["# HELP ", name, suffix, " ", help, "\n"]);
            }
            text.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            text.extend([sample(line), "\n"]);
        }
    }
    text
}

// Without its exemplar, which follows a `#` that stands in no label's value.
fn sample(line: &str) -> &str {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'#' if !quoted => return line.get(..at).unwrap_or_default().trim_end(),
            _ => {}
        }
    }
    line
}

const OPENMETRICS: &str = "application/openmetrics-text";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scraper_gets_what_it_asks_for_and_a_human_what_is_read_everywhere() {
        for (accept, wanted) in [
            (None, Exposition::Prometheus),
            (Some("*/*"), Exposition::Prometheus),
            (Some("text/plain;version=0.0.4"), Exposition::Prometheus),
            (
                Some("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.4"),
                Exposition::OpenMetrics,
            ),
            (Some("text/plain, application/openmetrics-text"), Exposition::OpenMetrics),
            (Some("application/openmetrics-textual"), Exposition::Prometheus),
        ] {
            assert_eq!(Exposition::wanted(accept), wanted, "{accept:?}");
        }
    }

    #[test]
    fn the_older_text_says_the_same_in_its_own_words() {
        let openmetrics = "\
            # HELP a_seconds Time.\n# TYPE a_seconds histogram\n# UNIT a_seconds seconds\n\
            a_seconds_bucket{le=\"0.1\",who=\"x # \\\" y\"} 3 # {trace_id=\"abc\"} 0.05 1.0\n\
            # HELP b Things.\n# TYPE b counter\nb_total{why=\"#\"} 4\n\
            # HELP c What.\n# TYPE c info\nc_info{version=\"1\"} 1\n# EOF\n";

        let expected = "\
            # HELP a_seconds Time.\n# TYPE a_seconds histogram\n\
            a_seconds_bucket{le=\"0.1\",who=\"x # \\\" y\"} 3\n\
            # HELP b_total Things.\n# TYPE b_total counter\nb_total{why=\"#\"} 4\n\
            # HELP c_info What.\n# TYPE c_info gauge\nc_info{version=\"1\"} 1\n";
        assert_eq!(Exposition::Prometheus.of(openmetrics.to_owned()), expected);
        assert_eq!(Exposition::OpenMetrics.of(openmetrics.to_owned()), openmetrics);
    }
}
