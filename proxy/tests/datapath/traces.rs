//! The trace of a request through two sidecars: what of it is handed on, and the spans that tell it.

use douane_proto::{mesh::Protocol, mtls::MtlsMode};
use douane_proxy::config::{
    Limits,
    tracing::{Outside, Sampler, Tracing},
};
use http::{HeaderMap, HeaderName, Request, Response};
use hyper::body::Incoming;

use crate::{
    apps::{AnyBody, client1, full, http1, mirror, raw},
    pods::{Shop, eventually, run, vip},
    sink::Sink,
};

const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn traced(tracing: Tracing) -> Shop {
    Shop::open_traced(tracing, Limits::default(), Protocol::Http1, |stream| http1(stream, tells)).await
}

/// As the mirror, and all values of what may come in several lines.
async fn tells(request: Request<Incoming>) -> Response<AnyBody> {
    let states: Vec<_> = request.headers().get_all("tracestate").iter().cloned().collect();
    let mut answer = mirror(request).await;
    answer.headers_mut().remove("x-told-tracestate");
    for state in states {
        answer.headers_mut().append("x-told-tracestate", state);
    }
    answer
}

/// What the application behind `orders` was told, and what its caller was answered.
async fn sent(shop: &Shop, headers: &[(&str, &str)]) -> (HeaderMap, HeaderMap) {
    let mut client = client1(shop.web.connect(vip()).await).await;
    let mut request = Request::get("/a").header("host", "orders");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = client.send_request(request.body(full("")).unwrap()).await.unwrap();
    let mut arrived = HeaderMap::new();
    for (name, value) in answer.headers() {
        if let Some(name) = name.as_str().strip_prefix("x-told-") {
            arrived.append(HeaderName::try_from(name).unwrap(), value.clone());
        }
    }
    (arrived, answer.headers().clone())
}

#[test]
fn a_journey_keeps_the_trace_and_all_that_others_wrote_on_it() {
    run(async {
        let (shop, sink) = (traced(Tracing::of(Sampler::Never)).await, Sink::listen().await);
        sink.receives(&shop.web);
        sink.receives(&shop.orders);

        let states = [("tracestate", "a=1,b=2"), ("tracestate", "c=3"), ("baggage", "user=ada;x,tier=1")];
        let (arrived, answered) = sent(&shop, &[&[("traceparent", PARENT)], &states[..]].concat()).await;

        assert_eq!(arrived.get_all("tracestate").iter().collect::<Vec<_>>(), ["a=1,b=2", "c=3"]);
        assert_eq!(arrived["baggage"], "user=ada;x,tier=1");
        for name in ["traceparent", "tracestate", "traceresponse", "b3", "x-request-id"] {
            assert!(!answered.contains_key(name), "an answer tells nothing of the trace: {name}");
        }
        eventually("both sidecars tell the hop", || sink.of_trace(TRACE).len() == 2).await;
        let spans = sink.of_trace(TRACE);
        let of = |service| spans.iter().find(|told| told.service == service).unwrap();
        let (client, server) = (of("web"), of("orders"));
        assert!(client.is_client() && !server.is_client());
        assert_eq!(client.span.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
        assert_eq!(server.span.parent_span_id, client.span.span_id);
        let last = format!("00-{TRACE:032x}-{}-01", hex(&server.span.span_id));
        assert_eq!(arrived["traceparent"], last, "the application's parent is the span of its own sidecar");
    });
}

#[test]
fn what_came_in_other_forms_goes_on_in_them_and_in_w3c() {
    run(async {
        let shop = traced(Tracing::of(Sampler::Never)).await;
        let trace = "80f198ee56343ba864fe8b2a57d3eff7";

        let (arrived, _) =
            sent(&shop, &[("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1")]).await;
        let single = arrived["b3"].to_str().unwrap();
        assert!(single.starts_with(trace) && single.contains("-1-"), "{single}");
        assert_eq!(&arrived["traceparent"].to_str().unwrap()[3..35], trace);
        assert!(!arrived.contains_key("x-b3-traceid"));

        let set = [
            ("x-b3-traceid", trace),
            ("x-b3-spanid", "e457b5a2e4d86bd1"),
            ("x-b3-parentspanid", ""),
            ("x-b3-sampled", "0"),
        ];
        let (arrived, _) = sent(&shop, &set).await;
        assert_eq!(
            (&arrived["x-b3-traceid"], &arrived["x-b3-sampled"]),
            (&trace.parse().unwrap(), &"0".parse().unwrap())
        );
        assert_ne!(arrived["x-b3-parentspanid"], "");
        assert!(arrived["traceparent"].to_str().unwrap().ends_with("-00"));

        let (arrived, _) =
            sent(&shop, &[("grpc-trace-bin", "AABAQUJDREVGR0hJSktMTU5PAWFiY2RlZmdoAgE")]).await;
        assert_eq!(&arrived["traceparent"].to_str().unwrap()[3..35], "404142434445464748494a4b4c4d4e4f");
        assert!(arrived["grpc-trace-bin"].to_str().unwrap().starts_with("AABAQUJDREVGR0hJSktMTU5PA"));
        assert_ne!(arrived["grpc-trace-bin"], "AABAQUJDREVGR0hJSktMTU5PAWFiY2RlZmdoAgE");
    });
}

#[test]
fn a_sidecar_that_defers_writes_no_header_and_tells_nothing() {
    run(async {
        let (shop, sink) = (traced(Tracing::of(Sampler::Defer)).await, Sink::listen().await);
        sink.receives(&shop.web);

        let (arrived, _) = sent(&shop, &[("baggage", "a=1")]).await;
        assert!(!arrived.contains_key("traceparent"), "{arrived:?}");
        assert_eq!(arrived["baggage"], "a=1");
        let (arrived, _) = sent(&shop, &[("traceparent", PARENT)]).await;
        assert_eq!(&arrived["traceparent"].to_str().unwrap()[3..35], &PARENT[3..35]);
        eventually("the trace that came is told", || !sink.of_trace(TRACE).is_empty()).await;
        assert_eq!(sink.spans().len(), 1, "and nothing else");
    });
}

#[test]
fn a_stranger_in_plaintext_is_not_believed_unless_that_is_wanted() {
    run(async {
        let ask = format!("GET /a HTTP/1.1\r\nHost: orders\r\ntraceparent: {PARENT}\r\nbaggage: a=1\r\n\r\n");
        for (outside, believed) in
            [(Outside::Restart, false), (Outside::Drop, false), (Outside::Continue, true)]
        {
            let (shop, sink) =
                (traced(Tracing { outside, ..Tracing::of(Sampler::Ratio(1.0)) }).await, Sink::listen().await);
            shop.orders.takes(MtlsMode::Permissive);
            sink.receives(&shop.orders);

            let told = raw(&mut shop.orders.knock(shop.pod()).await, ask.as_bytes(), "\r\n\r\n").await;

            let handed_on = |text: &str| told.to_lowercase().contains(text);
            assert_eq!(handed_on("x-told-traceparent: 00-4bf92f3577b34da6"), believed, "{told}");
            assert_eq!(handed_on("x-told-baggage: a=1"), believed, "{told}");
            eventually("a span", || sink.spans().len() == 1).await;
            let span = sink.spans().remove(0).span;
            assert_eq!(span.trace_id == TRACE.to_be_bytes(), believed);
            let linked = span.links.first().map(|link| link.trace_id.clone());
            assert_eq!(linked, (outside == Outside::Restart).then(|| TRACE.to_be_bytes().to_vec()));
        }
    });
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn an_application_of_another_form_sees_its_own_where_the_operator_wants_it() {
    run(async {
        let propagators = "b3multi".parse().unwrap();
        let shop = traced(Tracing { propagators, ..Tracing::of(Sampler::Never) }).await;

        let (arrived, _) = sent(&shop, &[]).await;

        assert_eq!(arrived["x-b3-traceid"].len(), 32, "{arrived:?}");
        assert_eq!((arrived["x-b3-spanid"].len(), &arrived["x-b3-sampled"]), (16, &"0".parse().unwrap()));
        assert!(!arrived.contains_key("traceparent") && !arrived.contains_key("b3"), "{arrived:?}");
        eventually("both ends are of one trace", || {
            let of = |pod: &crate::pods::Pod| pod.access.read().first().map(|line| line["trace_id"].clone());
            of(&shop.web).is_some_and(|id| id == arrived["x-b3-traceid"].to_str().unwrap())
                && of(&shop.web) == of(&shop.orders)
        })
        .await;
    });
}

#[test]
fn a_request_from_outside_the_mesh_is_given_a_name_and_any_other_keeps_its_own() {
    run(async {
        let shop = traced(Tracing::of(Sampler::Never)).await;
        shop.orders.takes(MtlsMode::Permissive);
        let recorded = |pod: &crate::pods::Pod, at: usize| pod.access.read().get(at).cloned();

        let ask = "GET /a HTTP/1.1\r\nHost: orders\r\nUser-Agent: probe/1\r\n\r\n";
        let told = raw(&mut shop.orders.knock(shop.pod()).await, ask.as_bytes(), "\r\n\r\n").await;
        eventually("its line", || recorded(&shop.orders, 0).is_some()).await;
        let line = recorded(&shop.orders, 0).unwrap();
        let id = line["request_id"].as_str().unwrap();
        assert_eq!((id.len(), id.as_bytes()[14]), (36, b'7'), "a UUID of version 7: {id}");
        assert!(told.to_lowercase().contains(&format!("x-told-x-request-id: {id}")), "{told}");
        assert_eq!(line["user_agent"], "probe/1");

        let (arrived, _) = sent(&shop, &[("x-request-id", "order-4711")]).await;
        assert_eq!(arrived["x-request-id"], "order-4711");
        eventually("both lines", || recorded(&shop.web, 0).and(recorded(&shop.orders, 1)).is_some()).await;
        for line in [recorded(&shop.web, 0).unwrap(), recorded(&shop.orders, 1).unwrap()] {
            assert_eq!(line["request_id"], "order-4711");
        }
        let (arrived, _) = sent(&shop, &[]).await;
        assert!(!arrived.contains_key("x-request-id"), "the mesh itself invents none: {arrived:?}");
    });
}
