//! Which requests become spans, and what of a caller's trace headers is believed.
//!
//! A trace context from outside the mesh begins anew by default, with a link to what came: a stranger's sampled flag
//! must not make us export, its trace id must not reach into somebody else's trace, its baggage is not read by our
//! applications; and yet whoever follows the link sees both sides.

use std::{fmt, str::FromStr, time::Duration};

use douane_proto::id::WorkloadId;
use serde::{Serialize, Serializer};

use crate::config::propagators::Propagators;

/// All of it.
#[derive(Debug, Clone, Serialize)]
pub struct Tracing {
    /// Of traces that begin here.
    pub root: Sampler,
    /// Of callers that have not proven to be of the mesh.
    pub outside: Outside,
    /// Whose `x-douane-force-trace: 1` counts.
    pub forced_by: Vec<Forcer>,
    /// Spans a second that [`Sampler::Always`], a forced trace or a stranger's choice may make.
    pub most: u32,
    /// Of requests whose application forwards no trace headers.
    pub forgotten: Forgotten,
    /// In which forms traces go on.
    pub propagators: Propagators,
    /// Of the unsampled.
    pub retain: Retain,
}

/// Which traces that begin here are exported; a trace that arrives keeps its caller's choice.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub enum Sampler {
    /// This share of them, 0.0 to 1.0.
    Ratio(f64),
    /// All, within [`Tracing::most`].
    Always,
    /// None.
    Never,
    /// None begins here: no header is written, so that the application's own tracer decides.
    Defer,
}

/// What becomes of a trace context that a caller from outside the mesh sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub enum Outside {
    /// It is believed; its choice counts within [`Tracing::most`].
    Continue,
    /// A new trace with a link to it; `tracestate` and `baggage` end here.
    #[default]
    Restart,
    /// As if none had come.
    Drop,
}

/// What a request without trace headers is to the one request that is in progress when the application sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub enum Forgotten {
    /// A trace of its own.
    Apart,
    /// A trace of its own, with a link that says that it was inferred.
    #[default]
    Link,
    /// Its child.
    Adopt,
}

/// Who may ask for a trace to be exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forcer {
    /// The application of this pod.
    Own,
    /// A peer.
    Peer(WorkloadId),
}

/// Unsampled spans that are held for a while, in case that their trace turns out to be interesting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Retain {
    /// Bytes held; 0 holds none.
    pub bytes: usize,
    /// A request that takes longer is as interesting as one that failed.
    pub slow: Option<Duration>,
    /// Traces a second that may be interesting.
    pub most: u32,
}

/// Nothing of the kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct NotTracing {
    text: String,
    expected: &'static str,
}

impl Tracing {
    /// With this sampler and all defaults.
    #[must_use]
    pub fn of(root: Sampler) -> Self {
        Self {
            root,
            outside: Outside::default(),
            forced_by: Vec::new(),
            most: MOST_SPANS,
            forgotten: Forgotten::default(),
            propagators: Propagators::default(),
            retain: Retain::default(),
        }
    }
}

/// A hundredth of the traces that begin here.
impl Default for Tracing {
    fn default() -> Self {
        Self::of(Sampler::default())
    }
}

impl Default for Sampler {
    fn default() -> Self {
        Self::Ratio(0.01)
    }
}

impl Default for Retain {
    fn default() -> Self {
        Self { bytes: RING_BYTES, slow: None, most: MOST_TRACES }
    }
}

impl Sampler {
    /// By the names of `OTEL_TRACES_SAMPLER` and its argument. A parent's choice always counts with us: cutting traces
    /// in the middle helps nobody.
    ///
    /// # Errors
    /// [`NotTracing`].
    pub fn from_otel(name: &str, argument: Option<&str>) -> Result<Self, NotTracing> {
        match name {
            "always_on" | "parentbased_always_on" => Ok(Self::Always),
            "always_off" | "parentbased_always_off" => Ok(Self::Never),
            "traceidratio" | "parentbased_traceidratio" => ratio(argument.unwrap_or("1.0")),
            _ => Err(not(name, "always_on, always_off or traceidratio, with parentbased_ or without")),
        }
    }
}

/// `always`, `never`, `defer`, `0.01` or `ratio(0.01)`.
impl FromStr for Sampler {
    type Err = NotTracing;

    fn from_str(text: &str) -> Result<Self, NotTracing> {
        match text {
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            "defer" => Ok(Self::Defer),
            _ => ratio(text.strip_prefix("ratio(").and_then(|rest| rest.strip_suffix(')')).unwrap_or(text)),
        }
    }
}

impl FromStr for Outside {
    type Err = NotTracing;

    fn from_str(text: &str) -> Result<Self, NotTracing> {
        match text {
            "continue" => Ok(Self::Continue),
            "restart" => Ok(Self::Restart),
            "drop" => Ok(Self::Drop),
            _ => Err(not(text, "continue, restart or drop")),
        }
    }
}

impl FromStr for Forgotten {
    type Err = NotTracing;

    fn from_str(text: &str) -> Result<Self, NotTracing> {
        match text {
            "apart" => Ok(Self::Apart),
            "link" => Ok(Self::Link),
            "adopt" => Ok(Self::Adopt),
            _ => Err(not(text, "apart, link or adopt")),
        }
    }
}

/// `self`, or a SPIFFE ID.
impl FromStr for Forcer {
    type Err = NotTracing;

    fn from_str(text: &str) -> Result<Self, NotTracing> {
        match text {
            "self" => Ok(Self::Own),
            id => id.parse().map(Self::Peer).map_err(|_| not(text, "self, or spiffe://TD/ns/NS/sa/SA")),
        }
    }
}

impl fmt::Display for Forcer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("self"),
            Self::Peer(id) => id.fmt(f),
        }
    }
}

impl Serialize for Forcer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn ratio(text: &str) -> Result<Sampler, NotTracing> {
    let wrong = || not(text, "always, never, defer, or a share between 0.0 and 1.0");
    let ratio: f64 = text.trim().parse().map_err(|_| wrong())?;
    if (0.0..=1.0).contains(&ratio) { Ok(Sampler::Ratio(ratio)) } else { Err(wrong()) }
}

fn not(text: &str, expected: &'static str) -> NotTracing {
    NotTracing { text: text.to_owned(), expected }
}

// Spans a second: a person who looks at forced traces reads fewer, a flood of them costs little.
const MOST_SPANS: u32 = 100;
// More than five thousand spans: half a minute of 90 requests a second that each make another.
const RING_BYTES: usize = 4 * 1024 * 1024;
// Traces a second. Where more fail, these tell why.
const MOST_TRACES: u32 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sampler_is_a_word_or_a_share() {
        for (text, expected) in [
            ("always", Sampler::Always),
            ("never", Sampler::Never),
            ("defer", Sampler::Defer),
            ("0.25", Sampler::Ratio(0.25)),
            ("ratio(1)", Sampler::Ratio(1.0)),
        ] {
            assert_eq!(text.parse(), Ok(expected));
        }
        for text in ["", "sometimes", "1.1", "-0.1", "NaN", "ratio(0.1"] {
            assert!(text.parse::<Sampler>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn opentelemetrys_names_of_samplers_are_understood() {
        assert_eq!(Sampler::from_otel("parentbased_always_on", None), Ok(Sampler::Always));
        assert_eq!(Sampler::from_otel("always_off", Some("x")), Ok(Sampler::Never));
        assert_eq!(Sampler::from_otel("traceidratio", Some("0.5")), Ok(Sampler::Ratio(0.5)));
        assert_eq!(Sampler::from_otel("parentbased_traceidratio", None), Ok(Sampler::Ratio(1.0)));
        assert!(Sampler::from_otel("jaeger_remote", None).is_err());
    }

    #[test]
    fn who_may_force_is_the_own_application_or_a_spiffe_id() {
        assert_eq!("self".parse(), Ok(Forcer::Own));
        let peer: Forcer = "spiffe://cluster.local/ns/ops/sa/tester".parse().unwrap();
        assert_eq!(peer.to_string(), "spiffe://cluster.local/ns/ops/sa/tester");
        assert!("ops/tester".parse::<Forcer>().is_err());
    }
}
