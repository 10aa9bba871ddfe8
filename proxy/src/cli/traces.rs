//! The flags of [`Tracing`], each with its environment variable; the defaults are where the settings are.

use std::time::Duration;

use anyhow::Context as _;

use crate::{
    cli::bounds::bytes,
    config::{
        propagators::Propagators,
        tracing::{Forcer, Forgotten, Outside, Retain, Sampler, Tracing},
    },
};

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Traces")]
pub(super) struct Traces {
    /// Traces that begin here and are exported: `always`, `never`, a share such as 0.01, or `defer`, which begins none and
    /// writes no header, so that the application's own tracer decides. Traces that arrive keep their caller's choice.
    /// Before it, OTEL_TRACES_SAMPLER is heard. [default: 0.01]
    #[arg(long, visible_alias = "trace-ratio", env = "DOUANE_TRACE_SAMPLER", value_name = "SAMPLER")]
    trace_sampler: Option<Sampler>,
    /// The older name of DOUANE_TRACE_SAMPLER.
    #[arg(long, env = "DOUANE_TRACE_RATIO", hide = true)]
    trace_ratio_env: Option<Sampler>,
    /// OpenTelemetry's name of a sampler.
    #[arg(long, env = "OTEL_TRACES_SAMPLER", hide = true)]
    otel_traces_sampler: Option<String>,
    /// Its argument.
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG", hide = true)]
    otel_traces_sampler_arg: Option<String>,
    /// Trace headers of callers that have not proven to be of the mesh (plaintext, other trust domains): `continue`
    /// believes them, `restart` begins a new trace with a link to theirs, `drop` forgets them. [default: restart]
    #[arg(long, env = "DOUANE_TRACE_OUTSIDE", value_name = "continue|restart|drop")]
    trace_outside: Option<Outside>,
    /// Whose header `x-douane-force-trace: 1` has a trace exported: SPIFFE IDs, or `self`, the pod's own application
    /// (separated by commas). [default: nobody's]
    #[arg(long, env = "DOUANE_TRACE_FORCED_BY", value_delimiter = ',', value_name = "ID")]
    trace_forced_by: Vec<Forcer>,
    /// Spans a second that forced traces, the sampler `always` and callers from outside may make. [default: 100]
    #[arg(long, env = "DOUANE_TRACE_MAX_RATE", value_name = "SPANS")]
    trace_max_rate: Option<u32>,
    /// A request without trace headers, sent while the application answers exactly one: `link` links their traces, `adopt`
    /// makes it a child, `apart` does neither. [default: link]
    #[arg(long, env = "DOUANE_TRACE_FORGOTTEN", value_name = "link|adopt|apart")]
    trace_forgotten: Option<Forgotten>,
    /// Trace headers that are written besides those that came, by OpenTelemetry's names: tracecontext, baggage (which always
    /// passes), b3, b3multi, separated by commas; none neither reads nor writes any. [default: tracecontext,baggage]
    #[arg(long, env = "OTEL_PROPAGATORS", value_name = "NAMES")]
    propagators: Option<Propagators>,
    /// Hold unsampled spans in so much memory, such as 4MiB, and export those of a trace in which a request fails; 0 holds
    /// none. [default: 4MiB]
    #[arg(long, env = "DOUANE_TRACE_RETAIN", value_parser = bytes_or_none)]
    trace_retain: Option<usize>,
    /// Export held traces also where a request takes longer than this. [default: only where one fails]
    #[arg(long, env = "DOUANE_TRACE_SLOW", value_parser = humantime::parse_duration)]
    trace_slow: Option<Duration>,
    /// So many of them a second. [default: 50]
    #[arg(long, env = "DOUANE_TRACE_RETAIN_RATE", value_name = "TRACES")]
    trace_retain_rate: Option<u32>,
}

impl Traces {
    pub(super) fn tracing(self) -> anyhow::Result<Tracing> {
        let Tracing { outside, most, forgotten, retain, .. } = Tracing::default();
        Ok(Tracing {
            root: self.root()?,
            outside: self.trace_outside.unwrap_or(outside),
            forced_by: self.trace_forced_by,
            most: self.trace_max_rate.unwrap_or(most),
            forgotten: self.trace_forgotten.unwrap_or(forgotten),
            propagators: self.propagators.unwrap_or_default(),
            retain: Retain {
                bytes: self.trace_retain.unwrap_or(retain.bytes),
                slow: self.trace_slow,
                most: self.trace_retain_rate.unwrap_or(retain.most),
            },
        })
    }

    fn root(&self) -> anyhow::Result<Sampler> {
        let told = self.trace_sampler.or(self.trace_ratio_env);
        let otel = self.otel_traces_sampler.as_deref().filter(|name| !name.is_empty());
        match (told, otel) {
            (Some(root), _) => Ok(root),
            (None, Some(name)) => Sampler::from_otel(name, self.otel_traces_sampler_arg.as_deref())
                .context("read OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG"),
            (None, None) => Ok(Sampler::default()),
        }
    }
}

fn bytes_or_none(text: &str) -> Result<usize, String> {
    if text == "0" { Ok(0) } else { bytes(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_word_on_sampling_comes_before_opentelemetrys() {
        let otel = || Traces {
            otel_traces_sampler: Some("parentbased_traceidratio".to_owned()),
            otel_traces_sampler_arg: Some("0.5".to_owned()),
            ..Traces::default()
        };

        assert_eq!(otel().tracing().unwrap().root, Sampler::Ratio(0.5));
        let both = Traces { trace_sampler: Some(Sampler::Defer), ..otel() };
        assert_eq!(both.tracing().unwrap().root, Sampler::Defer);
        assert_eq!(Traces::default().tracing().unwrap().root, Sampler::Ratio(0.01));
        let unknown = Traces { otel_traces_sampler: Some("xray".to_owned()), ..Traces::default() };
        assert!(unknown.tracing().is_err());
    }
}
