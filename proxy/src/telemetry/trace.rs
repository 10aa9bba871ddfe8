//! Where a span stands in its trace: the child of what the headers carry, or a root of its own.
//!
//! W3C Trace Context comes first, B3 is understood; what goes on to the next hop is W3C and the form of B3 that came.
//! The headers themselves are read in `telemetry::w3c` and `telemetry::b3`; what becomes of a span at
//! its end is in `telemetry::span`.

use std::fmt;

use http::HeaderMap;

use crate::telemetry::{b3, header::Named, w3c};

/// Where a span stands in its trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// Never zero.
    pub trace_id: u128,
    /// The span that caused this one; `None` at the root.
    pub parent_id: Option<u64>,
    /// This span; never zero.
    pub span_id: u64,
    /// Is it exported?
    pub sampled: bool,
    /// Is the trace id known to be random? A promise of whoever began the trace; passed on as it came.
    pub random: bool,
}

/// Which traces that begin here are exported; a trace that arrives keeps its caller's choice.
#[derive(Debug, Clone, Copy)]
pub struct Sampler {
    /// Share of new traces, 0.0 to 1.0.
    pub root_ratio: f64,
}

impl TraceContext {
    /// A new span: the child of what the headers carry, or a root.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap, sampler: Sampler) -> Self {
        if let Some(parent) = w3c::read(headers) {
            return Self::child(parent, sampler);
        }
        match b3::read(headers) {
            b3::Found::Parent(parent) => Self::child(parent, sampler),
            b3::Found::Choice(sampled) => Self { sampled, ..Self::root(sampler) },
            b3::Found::Nothing => Self::root(sampler),
        }
    }

    /// A span without a cause.
    #[must_use]
    pub fn root(sampler: Sampler) -> Self {
        let trace_id = non_zero(rand::random::<u128>);
        let sampled = sampler.samples(trace_id);
        Self { trace_id, parent_id: None, span_id: non_zero(rand::random), sampled, random: true }
    }

    /// Replaces what the headers carry by this span, for the next hop.
    pub fn write_to(&self, headers: &mut HeaderMap) {
        w3c::write(self.named(), headers);
        b3::write(self.named(), headers);
    }

    fn child(parent: Named, sampler: Sampler) -> Self {
        let Named { trace_id, span_id, sampled, random, .. } = parent;
        // B3 may leave the choice to whoever comes next.
        let sampled = sampled.unwrap_or_else(|| sampler.samples(trace_id));
        Self { trace_id, parent_id: Some(span_id), span_id: non_zero(rand::random), sampled, random }
    }

    fn named(&self) -> Named {
        let Self { trace_id, parent_id, span_id, sampled, random } = *self;
        Named { trace_id, span_id, parent_id, sampled: Some(sampled), random }
    }
}

/// As `traceparent` says it.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&w3c::traceparent(self.named())).unwrap_or_default())
    }
}

impl Sampler {
    // The same trace id gets the same answer from every sidecar of the same ratio: its low 56 bits, which level 2
    // promises to be random, are compared with a threshold.
    fn samples(self, trace_id: u128) -> bool {
        const RANDOM_PART: u128 = (1 << 56) - 1;
        #[expect(clippy::cast_precision_loss, reason = "a share needs no 56 bits")]
        let share = (trace_id & RANDOM_PART) as f64 / RANDOM_PART as f64;
        // A ratio of 1 takes also the highest id, a ratio of 0 not even the lowest.
        self.root_ratio >= 1.0 || share < self.root_ratio
    }
}

fn non_zero<T: Default + PartialEq>(draw: fn() -> T) -> T {
    loop {
        let drawn = draw();
        if drawn != T::default() {
            return drawn;
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    const ALWAYS: Sampler = Sampler { root_ratio: 1.0 };
    const NEVER: Sampler = Sampler { root_ratio: 0.0 };
    const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
    const SPAN: u64 = 0x00f0_67aa_0ba9_02b7;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn continued(pairs: &[(&'static str, &str)]) -> bool {
        TraceContext::from_headers(&headers(pairs), NEVER).parent_id.is_some()
    }

    #[test]
    fn a_valid_parent_is_continued_with_its_choice() {
        for (flags, sampled, random) in [
            ("00", false, false),
            ("01", true, false),
            ("02", false, true),
            ("03", true, true),
            ("ff", true, true),
        ] {
            let parent = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");

            let context = TraceContext::from_headers(&headers(&[("traceparent", &parent)]), ALWAYS);

            assert_eq!((context.trace_id, context.parent_id), (TRACE, Some(SPAN)), "{flags}");
            assert_eq!((context.sampled, context.random), (sampled, random), "{flags}");
            assert_ne!(context.span_id, SPAN);
        }
    }

    #[test]
    fn a_later_version_is_read_as_this_one() {
        for parent in [
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-brings",
            "fe-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
        ] {
            assert!(continued(&[("traceparent", parent)]), "{parent}");
        }
    }

    #[test]
    fn an_invalid_parent_begins_a_new_trace() {
        for parent in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00F067AA0BA902B7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more",
            "0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "CC-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
        ] {
            assert!(!continued(&[("traceparent", parent)]), "{parent:?}");
        }
    }

    #[test]
    fn two_parents_are_none() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

        assert!(!continued(&[("traceparent", parent), ("traceparent", parent)]));
    }

    #[test]
    fn a_new_trace_is_sampled_by_ratio_and_says_that_its_id_is_random() {
        assert!((0..100).all(|_| TraceContext::root(ALWAYS).sampled));
        assert!((0..100).all(|_| !TraceContext::root(NEVER).sampled));
        let half = (0..2000).filter(|_| TraceContext::root(Sampler { root_ratio: 0.5 }).sampled).count();
        assert!((800..1200).contains(&half), "{half} of 2000");
        assert!(TraceContext::root(NEVER).random);
    }

    #[test]
    fn states_of_others_pass_untouched_within_their_limits() {
        let mut map = headers(&[
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ("tracestate", "a=1,b=2"),
            ("tracestate", "c=3"),
            ("baggage", "user=ada,tier=1;x"),
        ]);

        TraceContext::from_headers(&map, NEVER).write_to(&mut map);

        let states: Vec<_> = map.get_all("tracestate").iter().collect();
        assert_eq!(states, ["a=1,b=2", "c=3"]);
        assert_eq!(map["baggage"], "user=ada,tier=1;x");
    }

    #[test]
    fn a_state_goes_with_its_invalid_parent_and_what_is_over_the_limits_goes_too() {
        let mut orphan = headers(&[("traceparent", "nonsense"), ("tracestate", "a=1"), ("baggage", "b=1")]);
        TraceContext::from_headers(&orphan, NEVER).write_to(&mut orphan);
        assert!(!orphan.contains_key("tracestate"));
        assert!(orphan.contains_key("baggage"));

        let states = vec!["a=1"; 33].join(",");
        let luggage = vec!["b=1"; 65].join(",");
        let mut many = headers(&[
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ("tracestate", &states),
            ("baggage", &luggage),
        ]);
        TraceContext::from_headers(&many, NEVER).write_to(&mut many);
        assert!(!many.contains_key("tracestate"));
        assert!(!many.contains_key("baggage"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_parent(
            trace_id in 1u128.., span_id in 1u64.., parent_id: Option<u64>, sampled: bool, random: bool,
        ) {
            let sent = TraceContext { trace_id, parent_id, span_id, sampled, random };
            let mut map = HeaderMap::new();

            sent.write_to(&mut map);
            let received = TraceContext::from_headers(&map, NEVER);

            prop_assert_eq!(received.trace_id, trace_id);
            prop_assert_eq!(received.parent_id, Some(span_id));
            prop_assert_eq!((received.sampled, received.random), (sampled, random));
        }

        #[test]
        fn no_header_panics(
            values in proptest::collection::vec(
                (0usize..10, prop_oneof![
                    proptest::collection::vec(any::<u8>(), 0..80),
                    "[0-9a-fA-F]{0,34}-[0-9a-f]{0,17}-[01d]{0,3}(-[0-9a-f]{0,17})?".prop_map(String::into_bytes),
                    "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}.{0,4}".prop_map(String::into_bytes),
                ]),
                0..6,
            )
        ) {
            const NAMES: [&str; 10] = [
                "traceparent", "tracestate", "baggage", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid",
                "x-b3-sampled", "x-b3-flags", "other",
            ];
            let mut map = HeaderMap::new();
            for (name, value) in values {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    map.append(HeaderName::from_static(NAMES[name]), value);
                }
            }

            let context = TraceContext::from_headers(&map, NEVER);
            context.write_to(&mut map);

            prop_assert_ne!(context.trace_id, 0);
            prop_assert_ne!(context.span_id, 0);
            prop_assert_eq!(w3c::read(&map).map(|parent| parent.span_id), Some(context.span_id));
        }
    }
}
