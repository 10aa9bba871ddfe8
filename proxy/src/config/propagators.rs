//! In which forms a trace goes on to the next hop, by the names of OpenTelemetry's `OTEL_PROPAGATORS`.
//!
//! Every form is understood, and whatever form came is answered in that form; this says which are written besides. Knows not
//! how a header is written (`telemetry`).

use std::str::FromStr;

use serde::Serialize;

/// What is written besides the form that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Propagators {
    /// Nothing is written, nor read: headers pass as they came, and each sidecar's spans are traces of their own.
    None,
    /// These.
    Forms(Forms),
}

/// Forms of one and the same span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Forms {
    /// `traceparent`.
    pub w3c: bool,
    /// `b3`.
    pub b3_single: bool,
    /// `x-b3-traceid` and its companions.
    pub b3_multi: bool,
}

/// No list of propagators.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotPropagators {
    /// A name that we do not know.
    #[error("{0:?} is no propagator that is known here: {KNOWN} are, separated by commas")]
    Unknown(String),
    /// Nothing and something.
    #[error("none stands alone: whoever writes nothing writes no other form either")]
    NoneAmongOthers,
}

/// OpenTelemetry's own default. Baggage belongs to others and always passes.
impl Default for Propagators {
    fn default() -> Self {
        Self::Forms(Forms { w3c: true, b3_single: false, b3_multi: false })
    }
}

/// Names separated by commas. Empty ones do not count, and no name at all is as if nothing had been said.
impl FromStr for Propagators {
    type Err = NotPropagators;

    fn from_str(text: &str) -> Result<Self, NotPropagators> {
        let mut forms = Forms { w3c: false, b3_single: false, b3_multi: false };
        let (mut has_none, mut count) = (false, 0);
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            count += 1;
            match name {
                "tracecontext" => forms.w3c = true,
                // What belongs to others passes whether or not it is named.
                "baggage" => {}
                "b3" => forms.b3_single = true,
                "b3multi" => forms.b3_multi = true,
                "none" => has_none = true,
                unknown => return Err(NotPropagators::Unknown(unknown.to_owned())),
            }
        }
        match (has_none, count) {
            (_, 0) => Ok(Self::default()),
            (true, 1) => Ok(Self::None),
            (true, _) => Err(NotPropagators::NoneAmongOthers),
            (false, _) => Ok(Self::Forms(forms)),
        }
    }
}

const KNOWN: &str = "tracecontext, baggage, b3, b3multi and none";

#[cfg(test)]
mod tests {
    use super::*;

    fn forms(w3c: bool, b3_single: bool, b3_multi: bool) -> Propagators {
        Propagators::Forms(Forms { w3c, b3_single, b3_multi })
    }

    #[test]
    fn names_are_those_of_opentelemetry() {
        for (text, expected) in [
            ("", Propagators::default()),
            (" , ", Propagators::default()),
            ("tracecontext,baggage", Propagators::default()),
            ("b3", forms(false, true, false)),
            ("b3multi", forms(false, false, true)),
            ("tracecontext, b3,b3multi,baggage,b3", forms(true, true, true)),
            ("baggage", forms(false, false, false)),
            ("none", Propagators::None),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused_with_what_is() {
        for unknown in ["jaeger", "xray", "ottrace", "TraceContext", "b3 b3multi"] {
            let refused = format!("tracecontext,{unknown}").parse::<Propagators>().unwrap_err();
            assert_eq!(refused, NotPropagators::Unknown(unknown.to_owned()));
            assert!(refused.to_string().contains("tracecontext, baggage, b3, b3multi and none"), "{refused}");
        }
        assert_eq!("b3,none".parse::<Propagators>(), Err(NotPropagators::NoneAmongOthers));
    }
}
