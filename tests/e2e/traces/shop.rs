//! One order of the shop is one whole trace.

use std::collections::BTreeMap;

use douane_examples::demo::span::Kind;

use super::{
    ROOT,
    backend::{Seen, over_both},
    fresh, get_traced, judge, shop,
};

/// web -> orders, orders -> the inventory's Stock and its Watch.
pub(super) const HOPS: usize = 3;
const CHECKOUT: &str = "http://orders.shop/orders";

#[test]
fn an_order_is_one_trace_of_two_spans_for_each_hop_and_one_that_is_denied_is_no_fault_of_the_server() {
    over_both(|backend| {
        let Some(seen) = shop(backend) else { return };
        an_order_is_one_trace_and_an_unsampled_one_is_none(&seen);
        a_denial_is_told_to_the_caller_and_is_no_fault_of_the_server(&seen);
    });
}

pub(super) fn an_order_is_one_trace_and_an_unsampled_one_is_none(seen: &Seen) {
    let Seen { lab, backend } = seen;
    let order = |trace: &str, flags: &str| {
        let parent = format!("traceparent: 00-{trace}-{ROOT}-{flags}");
        let state = ["-H", "tracestate: shop=1,other=2", "-H", "baggage: user=ada"];
        let body = ["-d", "{\"sku\": \"teapot\"}", "-H", "content-type: application/json"];
        let mut command = vec!["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", &parent];
        command.extend(state.into_iter().chain(body).chain([CHECKOUT]));
        let answered = lab.exec("web", &command).out;
        assert_eq!(answered, "200", "{parent}");
    };

    let (unsampled, sampled) = (fresh(1), fresh(2));
    order(&unsampled, "00");
    order(&sampled, "01");

    let spans = backend.collected(&sampled, 2 * HOPS);
    judge::judge(&spans, HOPS, ROOT);
    let edge = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    let expected = BTreeMap::from([(edge("web", "orders"), 1), (edge("orders", "inventory"), 2)]);
    assert_eq!(judge::edges(&spans), expected, "{}", judge::show(&spans));
    let mut calls: Vec<_> = judge::of_kind(&spans, Kind::Server).map(|span| span.name.as_str()).collect();
    calls.sort_unstable();
    assert_eq!(calls, ["POST", "shop.v1.Inventory/Stock", "shop.v1.Inventory/Watch"]);

    // The sampled one came later, by the same sidecars: what they had to say of the other they would have said.
    assert!(backend.trace(&unsampled).is_empty(), "{}", judge::show(&backend.trace(&unsampled)));
    let web = lab.recorded("web", |records| records.iter().any(|record| record["trace_id"] == *unsampled));
    assert!(web.iter().any(|record| record["trace_id"] == *sampled));
}

pub(super) fn a_denial_is_told_to_the_caller_and_is_no_fault_of_the_server(seen: &Seen) {
    let Seen { lab, backend } = seen;
    let trace = fresh(3);

    let answered = get_traced(lab, "web", "http://orders.shop/orders?secret=1", &trace, "01");
    assert!(answered.starts_with("200 "), "{answered}");
    let denied = fresh(4);
    let answered = get_traced(lab, "intruder", "http://orders.shop/orders", &denied, "01");
    assert!(answered.starts_with("403 "), "{answered}");

    let spans = backend.collected(&trace, 2);
    judge::judge(&spans, 1, ROOT);
    let told: Vec<_> = spans.iter().flat_map(|span| span.attributes.values()).collect();
    assert!(!told.iter().any(|value| value.contains("secret")), "{told:#?}");

    let spans = backend.collected(&denied, 2);
    judge::judge(&spans, 1, ROOT);
    for span in &spans {
        assert_eq!(span.failed, span.kind == Kind::Client, "{span:#?}");
    }
    let server = judge::of_kind(&spans, Kind::Server).next().unwrap();
    assert_eq!(server.attributes["douane.authz.decision"], "deny");
    assert_eq!(server.attributes["douane.response_origin"], "proxy");
    assert!(server.attributes["douane.reason"].contains("denied"), "{server:#?}");
}
