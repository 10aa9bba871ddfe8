//! Any trace headers: whatever a span continues, what is written for the next hop names exactly that span in every form
//! that came, others' states pass untouched or not at all, and no other header is touched.
#![no_main]

use douane_proto::request::headers_of;
use douane_proxy::{config::tracing::Sampler, telemetry::trace::TraceContext};
use http::HeaderMap;
use libfuzzer_sys::fuzz_target;

const OURS: [&str; 8] =
    ["traceparent", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags", "grpc-trace-bin"];

fuzz_target!(|bytes: &[u8]| {
    let pairs = bytes.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((line.get(..colon)?, line.get(colon + 1..)?))
    });
    let Ok(came) = headers_of(pairs) else { return };
    for sampler in [Sampler::Never, Sampler::Ratio(1.0), Sampler::Defer] {
        let Some(context) = TraceContext::from_headers(&came, sampler) else { continue };
        assert!(context.trace_id != 0 && context.span_id != 0 && context.parent_id != Some(0));
        let mut sent = came.clone();
        context.write_to(&mut sent);
        others_are_kept(&came, &sent);
        // Each form alone says the same as all of them.
        for forms in [&OURS[..1], &OURS[1..2], &OURS[2..7], &OURS[7..]] {
            let mut alone = sent.clone();
            OURS.iter().filter(|name| !forms.contains(name)).for_each(|name| drop(alone.remove(*name)));
            if !forms.iter().any(|name| alone.contains_key(*name)) {
                continue;
            }
            let next = TraceContext::from_headers(&alone, Sampler::Never).expect("it was written");
            assert_eq!((next.trace_id, next.parent_id), (context.trace_id, Some(context.span_id)), "{alone:?}");
            assert_eq!(next.sampled, context.sampled, "{alone:?}");
        }
    }
});

fn others_are_kept(came: &HeaderMap, sent: &HeaderMap) {
    for name in came.keys().filter(|name| !OURS.contains(&name.as_str())) {
        let (before, after): (Vec<_>, Vec<_>) = (came.get_all(name).iter().collect(), sent.get_all(name).iter().collect());
        let may_go = ["tracestate", "baggage"].contains(&name.as_str());
        assert!(before == after || may_go && after.is_empty(), "{name}");
    }
    assert!(sent.keys().all(|name| came.contains_key(name) || OURS.contains(&name.as_str())));
}
