//! Where the trace of a request goes on or begins: whom we believe, who may force it, how much strangers may make us
//! export, and which request an application had in hand when it sent another without trace headers.
//!
//! Knows neither how headers are read ([`crate::telemetry::trace`]) nor what becomes of a span at its end.

use std::{
    cell::{Cell, RefCell},
    time::Instant,
};

use douane_proto::id::WorkloadId;
use http::{HeaderMap, HeaderName};

use crate::{
    config::{
        propagators::Propagators,
        tracing::{Forcer, Forgotten, Outside, Sampler, Tracing},
    },
    limits::rate::Rate,
    telemetry::{
        b3::{self, Found},
        grpc_trace,
        header::only,
        trace::{TraceContext, found},
        w3c,
    },
};

/// Who sends the headers.
#[derive(Debug, Clone, Copy)]
pub enum Caller<'a> {
    /// The application of this pod.
    Application,
    /// This sidecar itself, or an opaque connection, which has no headers.
    Sidecar,
    /// A peer that has proven to be of the mesh.
    Mesh(&'a WorkloadId),
    /// Anybody else: in plaintext, or of another trust domain.
    Outside,
}

/// What a span is related to without being its child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Of the other span.
    pub trace_id: u128,
    /// The other span.
    pub span_id: u64,
    /// How it is related.
    pub cause: Cause,
}

/// Why there is a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A caller from outside the mesh named it as its own.
    Restarted,
    /// It was the only request in progress when the application sent this one without trace headers.
    Inferred,
}

/// Where a span stands when it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Begun {
    /// `None` where no trace begins.
    pub(crate) trace: Option<TraceContext>,
    pub(crate) link: Option<Link>,
    /// Did the application hand on what it was given? `None` where that cannot be told.
    pub(crate) forwarded: Option<Forwarded>,
}

/// What an application does with trace headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forwarded {
    Yes,
    No,
}

/// Decides, with what it must remember for that.
#[derive(Debug)]
pub(crate) struct Tracer {
    settings: Tracing,
    rate: RefCell<Rate>,
    in_hand: InHand,
}

/// The requests to the application that are in progress. Their ids are kept in one sum (exclusive or), which is the id
/// of the only one where there is only one: nothing is looked up.
#[derive(Debug, Default)]
struct InHand {
    count: Cell<u32>,
    // Those without a trace are not among them.
    untraced: Cell<u32>,
    trace_ids: Cell<u128>,
    span_ids: Cell<u64>,
    sampled: Cell<u32>,
}

impl Tracer {
    pub(crate) fn new(settings: Tracing) -> Self {
        let rate = RefCell::new(Rate::new(settings.most));
        Self { settings, rate, in_hand: InHand::default() }
    }

    /// Where the span of a request with these headers stands. What is not believed is taken out of them.
    pub(crate) fn begin(&self, headers: &mut HeaderMap, caller: Caller<'_>) -> Begun {
        let Tracing { root, outside, propagators, .. } = self.settings;
        let forced = self.is_forced(headers, caller);
        if matches!(caller, Caller::Outside) && outside != Outside::Continue {
            return self.begin_apart(headers);
        }
        // Where nothing is read, nothing is written either: what came passes as it came.
        let reads = propagators != Propagators::None;
        let mut trace =
            if reads { TraceContext::from_headers(headers, root) } else { TraceContext::root(root) };
        let (mut link, mut forwarded) = (None, None);
        if reads && matches!(caller, Caller::Application) && self.in_hand.count.get() > 0 {
            let came = !matches!(found(headers), Found::Nothing);
            forwarded = Some(if came { Forwarded::Yes } else { Forwarded::No });
            if let (false, Some(only)) = (came, self.in_hand.only()) {
                match self.settings.forgotten {
                    Forgotten::Apart => {}
                    Forgotten::Link => {
                        let Only { trace_id, span_id, .. } = only;
                        link = Some(Link { trace_id, span_id, cause: Cause::Inferred });
                    }
                    Forgotten::Adopt => trace = Some(only.child()),
                }
            }
        }
        if forced {
            let begun = trace.or_else(|| TraceContext::root(Sampler::Never));
            trace = begun.map(|trace| TraceContext { sampled: true, ..trace });
        }
        let is_limited = forced
            || match caller {
                Caller::Outside => true,
                _ => root == Sampler::Always && trace.as_ref().is_some_and(|trace| trace.parent_id.is_none()),
            };
        Begun { trace: if is_limited { self.limited(trace) } else { trace }, link, forwarded }
    }

    /// Names the span as the next hop's parent, in the forms that are wanted.
    pub(crate) fn write(&self, trace: &TraceContext, headers: &mut HeaderMap) {
        trace.write_as(headers, self.settings.propagators);
    }

    /// A request to the application has begun. One without a trace counts as well: where it is one of two, neither can be
    /// told to be the cause of anything.
    pub(crate) fn enters(&self, trace: Option<&TraceContext>) {
        let Some(trace) = trace else { return self.in_hand.untraced.update(|count| count + 1) };
        self.in_hand.count.update(|count| count + 1);
        self.in_hand.sampled.update(|sampled| sampled + u32::from(trace.sampled));
        self.in_hand.turn(trace);
    }

    /// It has ended.
    pub(crate) fn leaves(&self, trace: Option<&TraceContext>) {
        let Some(trace) = trace else { return self.in_hand.untraced.update(|count| count.saturating_sub(1)) };
        self.in_hand.count.update(|count| count.saturating_sub(1));
        self.in_hand.sampled.update(|sampled| sampled.saturating_sub(u32::from(trace.sampled)));
        self.in_hand.turn(trace);
    }

    fn begin_apart(&self, headers: &mut HeaderMap) -> Begun {
        let Tracing { root, outside, propagators, .. } = self.settings;
        let came = if propagators == Propagators::None { Found::Nothing } else { found(headers) };
        let link = match (came, outside) {
            (Found::Parent(came), Outside::Restart) => {
                Some(Link { trace_id: came.trace_id, span_id: came.span_id, cause: Cause::Restarted })
            }
            _ => None,
        };
        for name in [w3c::TRACEPARENT, w3c::TRACESTATE, w3c::BAGGAGE] {
            headers.remove(name);
        }
        let trace = TraceContext::root(root);
        // A new trace goes on in the form that came, so that an application of that form goes on seeing what it knows.
        if trace.is_none() || outside == Outside::Drop || propagators == Propagators::None {
            b3::remove(headers);
            headers.remove(grpc_trace::NAME);
        }
        let trace = if root == Sampler::Always { self.limited(trace) } else { trace };
        Begun { trace, link, forwarded: None }
    }

    fn is_forced(&self, headers: &HeaderMap, caller: Caller<'_>) -> bool {
        let may = self.settings.forced_by.iter().any(|forcer| match (forcer, caller) {
            (Forcer::Own, Caller::Application) => true,
            (Forcer::Peer(id), Caller::Mesh(peer)) => id == peer,
            _ => false,
        });
        may && only(headers, &FORCE) == Some(b"1")
    }

    fn limited(&self, trace: Option<TraceContext>) -> Option<TraceContext> {
        trace.map(|trace| {
            let sampled = trace.sampled && self.rate.borrow_mut().admits(Instant::now());
            TraceContext { sampled, ..trace }
        })
    }
}

// The one request that is in progress.
struct Only {
    trace_id: u128,
    span_id: u64,
    sampled: bool,
}

impl Only {
    fn child(self) -> TraceContext {
        let Self { trace_id, span_id, sampled } = self;
        TraceContext { trace_id, parent_id: None, span_id, sampled, random: false }.child()
    }
}

impl InHand {
    fn only(&self) -> Option<Only> {
        (self.count.get() == 1 && self.untraced.get() == 0).then(|| Only {
            trace_id: self.trace_ids.get(),
            span_id: self.span_ids.get(),
            sampled: self.sampled.get() == 1,
        })
    }

    // In, or out again.
    fn turn(&self, trace: &TraceContext) {
        self.trace_ids.update(|sum| sum ^ trace.trace_id);
        self.span_ids.update(|sum| sum ^ trace.span_id);
    }
}

/// Asks for a trace to be exported; stripped with all of ours from what goes on.
const FORCE: HeaderName = HeaderName::from_static("x-douane-force-trace");

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
    const SPAN: u64 = 0x00f0_67aa_0ba9_02b7;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn id(name: &str) -> WorkloadId {
        format!("spiffe://cluster.local/ns/shop/sa/{name}").parse().unwrap()
    }

    fn outside(outside: Outside) -> Tracer {
        Tracer::new(Tracing { outside, ..Tracing::of(Sampler::Never) })
    }

    #[test]
    fn the_mesh_is_believed_and_a_stranger_begins_anew_with_a_link() {
        let came = [("traceparent", PARENT), ("tracestate", "a=1"), ("baggage", "b=2")];

        let mut kept = headers(&came);
        let web = id("web");
        let begun = outside(Outside::Restart).begin(&mut kept, Caller::Mesh(&web));
        assert_eq!(begun.trace.unwrap().parent_id, Some(SPAN));
        assert_eq!(kept, headers(&came));

        let mut restarted = headers(&came);
        let begun = outside(Outside::Restart).begin(&mut restarted, Caller::Outside);
        let trace = begun.trace.unwrap();
        assert_ne!(trace.trace_id, TRACE);
        assert_eq!((trace.parent_id, trace.sampled), (None, false), "a stranger's choice does not count");
        assert_eq!(begun.link, Some(Link { trace_id: TRACE, span_id: SPAN, cause: Cause::Restarted }));
        assert!(restarted.is_empty(), "{restarted:?}");

        let begun = outside(Outside::Drop).begin(&mut headers(&came), Caller::Outside);
        assert_eq!((begun.trace.unwrap().parent_id, begun.link), (None, None));

        let begun = outside(Outside::Continue).begin(&mut headers(&came), Caller::Outside);
        assert_eq!(begun.trace.unwrap().parent_id, Some(SPAN));
    }

    #[test]
    fn a_trace_that_begins_anew_goes_on_in_the_form_that_came_unless_it_is_dropped() {
        let came = [("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1")];

        let mut restarted = headers(&came);
        let trace = outside(Outside::Restart).begin(&mut restarted, Caller::Outside).trace.unwrap();
        trace.write_to(&mut restarted);
        assert_eq!(restarted["b3"], format!("{:032x}-{:016x}-0", trace.trace_id, trace.span_id));

        let mut dropped = headers(&came);
        outside(Outside::Drop).begin(&mut dropped, Caller::Outside);
        assert!(dropped.is_empty());
    }

    #[test]
    fn a_trace_is_forced_only_by_those_who_may() {
        let tester = id("tester");
        let tracer = Tracer::new(Tracing {
            forced_by: vec![Forcer::Peer(tester.clone()), Forcer::Own],
            ..Tracing::of(Sampler::Defer)
        });
        let asked = || headers(&[("x-douane-force-trace", "1")]);
        let (web, begin) = (id("web"), |caller| tracer.begin(&mut asked(), caller).trace);

        assert!(begin(Caller::Mesh(&tester)).unwrap().sampled);
        assert!(begin(Caller::Application).unwrap().sampled);
        assert_eq!(begin(Caller::Mesh(&web)), None);
        assert!(begin(Caller::Outside).is_none_or(|trace| !trace.sampled));
        let nobody = Tracer::new(Tracing::of(Sampler::Never));
        assert!(!nobody.begin(&mut asked(), Caller::Application).trace.unwrap().sampled);
    }

    #[test]
    fn what_is_always_sampled_or_forced_or_asked_for_from_outside_is_limited() {
        let often = |tracer: &Tracer, caller: Caller<'_>, pairs: &[(&'static str, &'static str)]| {
            let begun = (0..1000).map(|_| tracer.begin(&mut headers(pairs), caller).trace.unwrap());
            begun.filter(|trace| trace.sampled).count()
        };
        let few = |root| Tracing { most: 10, outside: Outside::Continue, ..Tracing::of(root) };

        let always = often(&Tracer::new(few(Sampler::Always)), Caller::Application, &[]);
        assert!((10..500).contains(&always), "{always}");
        let asked = often(&Tracer::new(few(Sampler::Never)), Caller::Outside, &[("traceparent", PARENT)]);
        assert!((10..500).contains(&asked), "{asked}");
        let web = id("web");
        let begun = often(&Tracer::new(few(Sampler::Always)), Caller::Mesh(&web), &[("traceparent", PARENT)]);
        assert_eq!(begun, 1000, "traces of the mesh are whole");
        assert_eq!(often(&Tracer::new(few(Sampler::Ratio(1.0))), Caller::Application, &[]), 1000);
    }

    #[test]
    fn whoever_defers_begins_no_trace_and_continues_those_that_come() {
        let tracer = Tracer::new(Tracing::of(Sampler::Defer));

        assert_eq!(tracer.begin(&mut HeaderMap::new(), Caller::Application).trace, None);
        assert_eq!(tracer.begin(&mut HeaderMap::new(), Caller::Outside).trace, None);
        let came = tracer.begin(&mut headers(&[("traceparent", PARENT)]), Caller::Application).trace.unwrap();
        assert_eq!((came.trace_id, came.sampled), (TRACE, true));
    }

    #[test]
    fn a_request_without_headers_is_linked_to_the_only_one_in_hand() {
        let tracer = Tracer::new(Tracing::of(Sampler::Never));
        let [first, second] = [(); 2].map(|()| TraceContext::root(Sampler::Ratio(1.0)).unwrap());
        let sent = |pairs| tracer.begin(&mut headers(pairs), Caller::Application);

        let nothing_in_hand = sent(&[]);
        assert_eq!((nothing_in_hand.link, nothing_in_hand.forwarded), (None, None));
        tracer.enters(Some(&first));
        tracer.enters(Some(&second));
        let two = sent(&[]);
        assert_eq!((two.link, two.forwarded), (None, Some(Forwarded::No)), "either could be the cause");
        tracer.leaves(Some(&first));
        let inferred = Link { trace_id: second.trace_id, span_id: second.span_id, cause: Cause::Inferred };
        assert_eq!(sent(&[]).link, Some(inferred));
        tracer.enters(None);
        assert_eq!(sent(&[]).link, None, "the one without a trace could be the cause");
        tracer.leaves(None);
        assert_eq!(sent(&[]).link, Some(inferred));
        let handed_on = sent(&[("traceparent", PARENT)]);
        assert_eq!((handed_on.link, handed_on.forwarded), (None, Some(Forwarded::Yes)));
        tracer.leaves(Some(&second));
        assert_eq!(sent(&[]).forwarded, None);
    }

    #[test]
    fn a_request_without_headers_is_adopted_where_that_is_wanted() {
        let adopting = Tracing { forgotten: Forgotten::Adopt, ..Tracing::of(Sampler::Never) };
        let tracer = Tracer::new(adopting);
        let parent = TraceContext::root(Sampler::Ratio(1.0)).unwrap();
        tracer.enters(Some(&parent));

        let child = tracer.begin(&mut HeaderMap::new(), Caller::Application).trace.unwrap();

        assert_eq!((child.trace_id, child.parent_id), (parent.trace_id, Some(parent.span_id)));
        assert!(child.sampled);
    }

    #[test]
    fn a_trace_goes_on_in_the_forms_that_are_wanted_and_in_the_one_that_came() {
        const B3: (&str, &str) = ("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1");
        // What is wanted, what came, the names of what is sent.
        type Case = (&'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);
        let cases: [Case; 8] = [
            ("", &[], &["traceparent"]),
            ("", &[B3], &["b3", "traceparent"]),
            ("b3", &[], &["b3"]),
            ("b3", &[("traceparent", PARENT)], &["b3", "traceparent"]),
            ("b3multi", &[], &["x-b3-sampled", "x-b3-spanid", "x-b3-traceid"]),
            ("b3multi", &[B3], &["b3", "x-b3-parentspanid", "x-b3-sampled", "x-b3-spanid", "x-b3-traceid"]),
            ("tracecontext,b3", &[], &["b3", "traceparent"]),
            ("baggage", &[("baggage", "a=1"), ("tracestate", "b=2")], &["baggage"]),
        ];
        for (wanted, came, expected) in cases {
            let came: HeaderMap = came
                .iter()
                .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
                .collect();
            let tracer =
                Tracer::new(Tracing { propagators: wanted.parse().unwrap(), ..Tracing::of(Sampler::Never) });
            let mut sent = came.clone();
            let trace = tracer.begin(&mut sent, Caller::Application).trace.unwrap();
            tracer.write(&trace, &mut sent);

            let mut names: Vec<_> = sent.keys().map(HeaderName::as_str).collect();
            names.sort_unstable();
            assert_eq!(names, expected, "{wanted:?} {came:?}");
            if expected != ["baggage"] {
                let read = TraceContext::from_headers(&sent, Sampler::Never).unwrap();
                assert_eq!(
                    (read.trace_id, read.parent_id),
                    (trace.trace_id, Some(trace.span_id)),
                    "{wanted:?}"
                );
            }
        }
    }

    #[test]
    fn whoever_propagates_nothing_touches_no_header_and_joins_no_trace() {
        let tracer = Tracer::new(Tracing { propagators: Propagators::None, ..Tracing::of(Sampler::Never) });
        let came = headers(&[("traceparent", PARENT), ("tracestate", "a=1"), ("x-b3-sampled", "1")]);
        let first = TraceContext::root(Sampler::Never).unwrap();
        tracer.enters(Some(&first));

        let mut sent = came.clone();
        let begun = tracer.begin(&mut sent, Caller::Application);
        tracer.write(begun.trace.as_ref().unwrap(), &mut sent);
        assert_eq!(sent, came);
        assert_ne!(begun.trace.unwrap().trace_id, TRACE);
        assert_eq!((begun.link, begun.forwarded), (None, None), "what is not read cannot be missing");

        let mut of_a_stranger = came;
        let begun = tracer.begin(&mut of_a_stranger, Caller::Outside);
        assert_eq!(begun.link, None);
        assert!(of_a_stranger.is_empty(), "an application believes what reaches it: {of_a_stranger:?}");
    }
}
