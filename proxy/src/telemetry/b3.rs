//! B3, Zipkin's trace headers: the single header `b3` and the older `x-b3-…` set. Read where no W3C parent came, and
//! written in the form that came, so that a B3 application goes on seeing what it understands, or where it is wanted.

use http::{HeaderMap, HeaderName};

use crate::{
    config::propagators::Forms,
    telemetry::header::{Named, only, replace, span_id, trace_id},
};

/// What B3 headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// The span that caused the new one.
    Parent(Named),
    /// No span, but whether to sample.
    Choice(bool),
    /// Neither.
    Nothing,
}

/// The single header wins over the set.
pub(crate) fn read(headers: &HeaderMap) -> Found {
    let single = only(headers, &SINGLE).map_or(Found::Nothing, read_single);
    if single == Found::Nothing { read_set(headers) } else { single }
}

/// Replaces whichever form the headers carry, and adds those of `also`.
pub(crate) fn write(span: Named, headers: &mut HeaderMap, also: Forms) {
    let Named { trace_id, span_id, parent_id, sampled, .. } = span;
    let choice = u8::from(sampled == Some(true));
    if also.b3_single || headers.contains_key(SINGLE) {
        let parent = parent_id.map(|id| format!("-{id:016x}")).unwrap_or_default();
        replace(headers, SINGLE, format!("{trace_id:032x}-{span_id:016x}-{choice}{parent}"));
    }
    if also.b3_multi || SET.iter().any(|name| headers.contains_key(name)) {
        replace(headers, TRACE_ID, format!("{trace_id:032x}"));
        replace(headers, SPAN_ID, format!("{span_id:016x}"));
        replace(headers, SAMPLED, choice.to_string());
        // The debug flag is a choice as well; two would contradict each other.
        headers.remove(FLAGS);
        // Left out at the root: applications choke on an empty one.
        match parent_id {
            Some(parent) => replace(headers, PARENT_SPAN_ID, format!("{parent:016x}")),
            None => drop(headers.remove(PARENT_SPAN_ID)),
        }
    }
}

/// Is it the name of one of them?
pub(crate) fn is_one(name: &str) -> bool {
    name == SINGLE.as_str() || name.starts_with(PREFIX)
}

/// Removes all of them.
pub(crate) fn remove(headers: &mut HeaderMap) {
    headers.remove(SINGLE);
    SET.iter().for_each(|name| drop(headers.remove(name)));
}

// `<trace id>-<span id>[-<choice>[-<parent>]]`, or the choice alone.
fn read_single(value: &[u8]) -> Found {
    if let Some(sampled) = choice(value) {
        return Found::Choice(sampled);
    }
    let mut parts = value.splitn(4, |byte| *byte == b'-');
    let (Some(trace_id), Some(span_id)) =
        (parts.next().and_then(any_trace_id), parts.next().and_then(span_id))
    else {
        return Found::Nothing;
    };
    let sampled = match parts.next().map(choice) {
        None => None,
        Some(Some(sampled)) => Some(sampled),
        Some(None) => return Found::Nothing,
    };
    Found::Parent(Named { trace_id, span_id, parent_id: None, sampled, random: false })
}

fn read_set(headers: &HeaderMap) -> Found {
    let debug = only(headers, &FLAGS) == Some(b"1");
    let sampled = if debug { Some(true) } else { only(headers, &SAMPLED).and_then(choice) };
    match (only(headers, &TRACE_ID).and_then(any_trace_id), only(headers, &SPAN_ID).and_then(span_id)) {
        (Some(trace_id), Some(span_id)) => {
            Found::Parent(Named { trace_id, span_id, parent_id: None, sampled, random: false })
        }
        _ => sampled.map_or(Found::Nothing, Found::Choice),
    }
}

// `d` is debug: sampled, and meant to be kept. `true` and `false` are from before the standard.
fn choice(text: &[u8]) -> Option<bool> {
    match text {
        b"1" | b"d" | b"true" => Some(true),
        b"0" | b"false" => Some(false),
        _ => None,
    }
}

// 64-bit ids are 128-bit ids whose upper half is zero.
fn any_trace_id(text: &[u8]) -> Option<u128> {
    trace_id(text).or_else(|| span_id(text).map(u128::from))
}

const PREFIX: &str = "x-b3-";
const SINGLE: HeaderName = HeaderName::from_static("b3");
const TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");
const SPAN_ID: HeaderName = HeaderName::from_static("x-b3-spanid");
const PARENT_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");
const SET: [HeaderName; 5] = [TRACE_ID, SPAN_ID, PARENT_SPAN_ID, SAMPLED, FLAGS];

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::{config::tracing::Sampler, telemetry::trace::TraceContext};

    const TRACE: u128 = 0x80f1_98ee_5634_3ba8_64fe_8b2a_57d3_eff7;
    const SPAN: u64 = 0xe457_b5a2_e4d8_6bd1;
    const NEVER: Sampler = Sampler::Never;
    const ALWAYS: Sampler = Sampler::Ratio(1.0);

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn begun(headers: &HeaderMap, sampler: Sampler) -> TraceContext {
        TraceContext::from_headers(headers, sampler).unwrap()
    }

    #[test]
    fn the_single_header_is_understood() {
        let parent = |sampled| {
            Found::Parent(Named { trace_id: TRACE, span_id: SPAN, parent_id: None, sampled, random: false })
        };
        for (value, expected) in [
            ("80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1", parent(None)),
            ("80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1", parent(Some(true))),
            ("80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-d", parent(Some(true))),
            ("80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-0-05e3ac9a4f6e3b90", parent(Some(false))),
            ("80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-x", Found::Nothing),
            ("80f198ee56343ba864fe8b2a57d3eff7-0000000000000000-1", Found::Nothing),
            ("80f198ee56343ba864fe8b2a57d3eff7", Found::Nothing),
            ("0", Found::Choice(false)),
            ("1", Found::Choice(true)),
            ("d", Found::Choice(true)),
            ("", Found::Nothing),
        ] {
            assert_eq!(
                read(&HeaderMap::from_iter([(SINGLE, HeaderValue::from_static(value))])),
                expected,
                "{value}"
            );
        }
    }

    #[test]
    fn the_set_is_understood_and_short_trace_ids_are_padded() {
        let short = headers(&[
            ("x-b3-traceid", "64fe8b2a57d3eff7"),
            ("x-b3-spanid", "e457b5a2e4d86bd1"),
            ("x-b3-sampled", "1"),
        ]);
        let context = begun(&short, NEVER);
        assert_eq!((context.trace_id, context.parent_id), (0x64fe_8b2a_57d3_eff7, Some(SPAN)));
        assert!(context.sampled);

        assert_eq!(read(&headers(&[("x-b3-sampled", "0")])), Found::Choice(false));
        assert_eq!(read(&headers(&[("x-b3-flags", "1")])), Found::Choice(true));
    }

    #[test]
    fn a_choice_that_was_left_open_is_ours() {
        let open = headers(&[("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1")]);

        assert!(begun(&open, ALWAYS).sampled);
        assert!(!begun(&open, NEVER).sampled);
    }

    #[test]
    fn w3c_comes_first() {
        let both = headers(&[
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-0"),
        ]);

        let context = begun(&both, NEVER);

        assert_eq!(context.parent_id, Some(0x00f0_67aa_0ba9_02b7));
        assert!(context.sampled);
    }

    #[test]
    fn what_came_goes_on_in_its_form_and_in_w3c() {
        let mut map = headers(&[("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1")]);
        let context = begun(&map, NEVER);
        context.write_to(&mut map);
        assert_eq!(map["b3"], format!("{TRACE:032x}-{:016x}-1-{SPAN:016x}", context.span_id));
        assert_eq!(map["traceparent"], format!("00-{TRACE:032x}-{:016x}-01", context.span_id));
        assert!(!map.contains_key("x-b3-traceid"));

        let mut map = headers(&[("x-b3-sampled", "1"), ("x-b3-parentspanid", "")]);
        let root = begun(&map, NEVER);
        root.write_to(&mut map);
        assert_eq!(map["x-b3-spanid"], format!("{:016x}", root.span_id));
        assert_eq!(map["x-b3-sampled"], "1");
        assert!(!map.contains_key("x-b3-parentspanid"), "an empty one is left out");
        assert!(!map.contains_key("b3"));
    }
}
