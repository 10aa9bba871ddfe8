//! Where a span stands in its trace: the child of what the headers carry, or a root of its own.
//!
//! W3C Trace Context comes first, B3 and `grpc-trace-bin` are understood; what goes on to the next hop is W3C (or what the
//! operator wants instead) and the form that came. The headers themselves are read in `telemetry::w3c`, `telemetry::b3` and `telemetry::grpc_trace`; who
//! is believed is decided in `telemetry::tracer`; what becomes of a span at its end is in `telemetry::span`.

use std::fmt;

use http::{HeaderMap, HeaderName};

use crate::{
    config::{propagators::Propagators, tracing::Sampler},
    telemetry::{
        b3::{self, Found},
        grpc_trace,
        header::Named,
        w3c,
    },
};

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

impl TraceContext {
    /// A new span: the child of what the headers carry, or a root; `None` where another is to begin the trace.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap, sampler: Sampler) -> Option<Self> {
        match found(headers) {
            // B3 may leave the choice to whoever comes next, and so may we.
            Found::Parent(Named { sampled: None, .. }) if sampler == Sampler::Defer => None,
            Found::Parent(parent) => Some(Self::child_of(parent, sampler)),
            Found::Choice(sampled) => Some(Self { sampled, ..Self::begun(sampler) }),
            Found::Nothing => Self::root(sampler),
        }
    }

    /// A span without a cause; `None` where another is to begin the trace.
    #[must_use]
    pub fn root(sampler: Sampler) -> Option<Self> {
        (sampler != Sampler::Defer).then(|| Self::begun(sampler))
    }

    /// Replaces what the headers carry by this span, for the next hop, in W3C's form and in the one that came.
    pub fn write_to(&self, headers: &mut HeaderMap) {
        self.write_as(headers, Propagators::default());
    }

    /// The same in these forms and in the one that came.
    pub fn write_as(&self, headers: &mut HeaderMap, propagators: Propagators) {
        let Propagators::Forms(also) = propagators else { return };
        let (named, came) = (self.named(), Came::of(headers));
        if came.states {
            w3c::limit_states(headers);
        }
        if came.w3c || also.w3c {
            w3c::write(named, headers);
        }
        if came.b3 || also.b3_single || also.b3_multi {
            b3::write(named, headers, also);
        }
        if came.grpc {
            grpc_trace::write(named, headers);
        }
    }

    /// The same span, told again to another peer: its sibling.
    pub(crate) fn sibling(&self) -> Self {
        Self { span_id: non_zero(rand::random), ..*self }
    }

    fn begun(sampler: Sampler) -> Self {
        let trace_id = non_zero(rand::random::<u128>);
        let sampled = samples(sampler, trace_id);
        Self { trace_id, parent_id: None, span_id: non_zero(rand::random), sampled, random: true }
    }

    /// A span that this one causes.
    pub(crate) fn child(&self) -> Self {
        Self { parent_id: Some(self.span_id), ..self.sibling() }
    }

    fn child_of(parent: Named, sampler: Sampler) -> Self {
        let Named { trace_id, span_id, sampled, random, .. } = parent;
        // B3 may leave the choice to whoever comes next.
        let sampled = sampled.unwrap_or_else(|| samples(sampler, trace_id));
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

/// What the headers say, in the first form that says something.
pub(crate) fn found(headers: &HeaderMap) -> Found {
    if let Some(parent) = w3c::read(headers) {
        return Found::Parent(parent);
    }
    let came = Came::of(headers);
    let found = if came.b3 { b3::read(headers) } else { Found::Nothing };
    match (found, came.grpc) {
        (Found::Nothing, true) => grpc_trace::read(headers).map_or(Found::Nothing, Found::Parent),
        (found, _) => found,
    }
}

// Which forms the headers are of. One look over the names: most heads have none of them, and need no look-up for each.
#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says whether a header of its form is there; all four may be"
)]
struct Came {
    w3c: bool,
    states: bool,
    b3: bool,
    grpc: bool,
}

impl Came {
    fn of(headers: &HeaderMap) -> Self {
        let mut came = Self::default();
        for name in headers.keys().map(HeaderName::as_str) {
            match name.as_bytes().first() {
                Some(b't' | b'b') if w3c::is_state(name) => came.states = true,
                Some(b't') => came.w3c |= name == w3c::TRACEPARENT.as_str(),
                Some(b'b' | b'x') => came.b3 |= b3::is_one(name),
                Some(b'g') => came.grpc |= name == grpc_trace::NAME.as_str(),
                _ => {}
            }
        }
        came
    }
}

fn samples(sampler: Sampler, trace_id: u128) -> bool {
    match sampler {
        Sampler::Ratio(ratio) => is_in_share(trace_id, ratio),
        Sampler::Always => true,
        Sampler::Never | Sampler::Defer => false,
    }
}

/// Is this trace one of such a share, 0.0 to 1.0, of all? The same id gets the same answer from every sidecar: its low 56
/// bits, which level 2 promises to be random, are compared with a threshold.
pub(crate) fn is_in_share(trace_id: u128, share: f64) -> bool {
    const RANDOM_PART: u128 = (1 << 56) - 1;
    #[expect(clippy::cast_precision_loss, reason = "a share needs no 56 bits")]
    let place = (trace_id & RANDOM_PART) as f64 / RANDOM_PART as f64;
    // A share of 1 takes also the highest id, a share of 0 not even the lowest.
    share >= 1.0 || place < share
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

    const ALWAYS: Sampler = Sampler::Ratio(1.0);
    const NEVER: Sampler = Sampler::Never;
    const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
    const SPAN: u64 = 0x00f0_67aa_0ba9_02b7;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn begun(headers: &HeaderMap, sampler: Sampler) -> TraceContext {
        TraceContext::from_headers(headers, sampler).unwrap()
    }

    fn continued(pairs: &[(&'static str, &str)]) -> bool {
        begun(&headers(pairs), NEVER).parent_id.is_some()
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

            let context = begun(&headers(&[("traceparent", &parent)]), ALWAYS);

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
        assert!((0..100).all(|_| TraceContext::root(ALWAYS).unwrap().sampled));
        assert!((0..100).all(|_| !TraceContext::root(NEVER).unwrap().sampled));
        let half = (0..2000).filter(|_| TraceContext::root(Sampler::Ratio(0.5)).unwrap().sampled).count();
        assert!((800..1200).contains(&half), "{half} of 2000");
        assert!(TraceContext::root(NEVER).unwrap().random);
    }

    #[test]
    fn states_of_others_pass_untouched_within_their_limits() {
        let mut map = headers(&[
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ("tracestate", "a=1,b=2"),
            ("tracestate", "c=3"),
            ("baggage", "user=ada,tier=1;x"),
        ]);

        begun(&map, NEVER).write_to(&mut map);

        let states: Vec<_> = map.get_all("tracestate").iter().collect();
        assert_eq!(states, ["a=1,b=2", "c=3"]);
        assert_eq!(map["baggage"], "user=ada,tier=1;x");
    }

    #[test]
    fn a_state_goes_with_its_invalid_parent_and_what_is_over_the_limits_goes_too() {
        let mut orphan = headers(&[("traceparent", "nonsense"), ("tracestate", "a=1"), ("baggage", "b=1")]);
        begun(&orphan, NEVER).write_to(&mut orphan);
        assert!(!orphan.contains_key("tracestate"));
        assert!(orphan.contains_key("baggage"));

        let states = vec!["a=1"; 33].join(",");
        let luggage = vec!["b=1"; 65].join(",");
        let mut many = headers(&[
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ("tracestate", &states),
            ("baggage", &luggage),
        ]);
        begun(&many, NEVER).write_to(&mut many);
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
            let received = begun(&map, NEVER);

            prop_assert_eq!(received.trace_id, trace_id);
            prop_assert_eq!(received.parent_id, Some(span_id));
            prop_assert_eq!((received.sampled, received.random), (sampled, random));
        }

        #[test]
        fn what_others_wrote_survives_any_journey_whole_or_not_at_all(
            states in proptest::collection::vec("[a-z0-9]{1,9}=[!-+.-<>-~]{1,20}(,[a-z]{1,9}=[!-+.-<>-~]{1,20}){0,9}", 0..5),
            luggage in proptest::collection::vec("[a-zA-Z]{1,9}=[a-z%0-9]{0,30}(;[a-z]{1,9}){0,2}(,[a-z]{1,9}=[a-z]{0,9}){0,20}", 0..5),
            hops in 1usize..5,
        ) {
            let mut map = HeaderMap::new();
            map.append("traceparent", HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
            for (name, values) in [("tracestate", &states), ("baggage", &luggage)] {
                for value in values {
                    map.append(name, HeaderValue::from_str(value).unwrap());
                }
            }
            for _ in 0..hops {
                begun(&map, NEVER).write_to(&mut map);
            }
            for (name, values, most) in [("tracestate", &states, 32), ("baggage", &luggage, 64)] {
                let members: usize = values.iter().map(|value| value.split(',').count()).sum();
                let arrived: Vec<_> = map.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
                let kept = members <= most && values.join(",").len() <= 8192;
                prop_assert_eq!(arrived, if kept { values.iter().map(String::as_str).collect() } else { vec![] });
            }
        }

        #[test]
        fn no_header_panics(
            values in proptest::collection::vec(
                (0usize..11, prop_oneof![
                    proptest::collection::vec(any::<u8>(), 0..80),
                    "[0-9a-fA-F]{0,34}-[0-9a-f]{0,17}-[01d]{0,3}(-[0-9a-f]{0,17})?".prop_map(String::into_bytes),
                    "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}.{0,4}".prop_map(String::into_bytes),
                ]),
                0..6,
            )
        ) {
            const NAMES: [&str; 11] = [
                "traceparent", "tracestate", "baggage", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid",
                "x-b3-sampled", "x-b3-flags", "grpc-trace-bin", "other",
            ];
            let mut map = HeaderMap::new();
            for (name, value) in values {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    map.append(HeaderName::from_static(NAMES[name]), value);
                }
            }

            let context = begun(&map, NEVER);
            context.write_to(&mut map);

            prop_assert_ne!(context.trace_id, 0);
            prop_assert_ne!(context.span_id, 0);
            prop_assert_eq!(w3c::read(&map).map(|parent| parent.span_id), Some(context.span_id));
        }
    }
}
