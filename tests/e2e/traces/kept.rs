//! At 1 % head sampling all spans of all traces that failed are there, also those of calls that did well before, and of the
//! rest no more than was sampled.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use douane_examples::demo::span::{Kind, Span};
use douane_tests::{lab::Lab, wait::eventually};
use serde_json::Value;

use super::{
    EXPORTED,
    backend::{Backend, Protocol, Seen, over_both},
    fresh, get_traced, judge, shop_with,
};

/// caller -> web -> orders, orders -> the inventory's Stock and its Watch.
const HOPS: usize = 4;
/// Which may be sampled, one in a hundred.
const ORDERS: usize = 500;
/// Of each kind of failure: a few percent of all.
const FAILURES: usize = 12;
/// Between failures, so that they lie among the others.
const APART: &str = "300";
/// Debug builds on two busy cores.
const DONE: Duration = Duration::from_secs(300);
const CHECKOUT: &str = "http://web.shop/checkout";

/// Somebody who checks out, and a Watch that is forbidden to whoever carries this baggage.
const CALLER: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: caller, namespace: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: caller, namespace: shop, labels: {app: caller, douane.io/inject: enabled}}
spec: {serviceAccountName: caller, containers: [{name: app, command: [shop, sleep]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/caller]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-watch, namespace: shop}
spec:
  selector: {matchLabels: {app: inventory}}
  action: DENY
  rules:
  - to: [{operation: {paths: [/shop.v1.Inventory/Watch]}}]
    when: [{key: 'request.headers[baggage]', values: [watch=forbidden]}]
";

#[test]
fn at_one_percent_all_spans_of_all_failed_traces_arrive_and_of_the_others_what_was_sampled() {
    over_both(|backend| {
        let Some(seen) = seen(backend) else { return };
        all_that_failed_is_there_and_of_the_rest_what_was_sampled(&seen);
    });
}

#[test]
fn where_more_fails_than_is_kept_a_second_some_of_it_is_whole() {
    let Some(seen) = seen_with(Backend::sink(Protocol::Grpc), &["DOUANE_TRACE_RETAIN_RATE=5"]) else {
        return;
    };
    let Seen { lab, backend } = &seen;
    let (began, phoenix) = (Instant::now(), format!("{CHECKOUT}?sku=phoenix"));
    let asking =
        [(); 4].map(|()| lab.spawn("caller", &["shop", "get", "--times", "50", &phoenix], Stdio::null()));
    for mut asking in asking {
        asking.wait().unwrap();
    }
    let took = began.elapsed();

    let later = fresh(0xc00);
    assert!(get_traced(lab, "caller", CHECKOUT, &later, "01").starts_with("200 "));
    backend.collected(&later, 2 * HOPS);
    // As many as are kept at once, wherever they are met.
    let (whole, part) = eventually("some are whole", EXPORTED, || {
        let mut traces: BTreeMap<_, usize> = BTreeMap::new();
        for span in backend.spans() {
            *traces.entry(span.trace).or_default() += 1;
        }
        traces.remove(&later);
        let whole = traces.values().filter(|spans| **spans == 2 * HOPS).count();
        if whole >= 5 { Ok((whole, traces.len() - whole)) } else { Err(format!("{traces:?}")) }
    });
    println!("200 failed in {took:.1?}, 5 a second are kept: {whole} whole, {part} in part");
}

/// The shop at 1 %, with a caller, and an inventory whose Watch of a phoenix breaks off.
pub(super) fn seen(backend: Backend) -> Option<Seen> {
    seen_with(backend, &[])
}

fn seen_with(backend: Backend, variables: &[&str]) -> Option<Seen> {
    let inventory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kind-cluster/shop/inventory.yaml");
    let listens = "\"[::]:9090\"]";
    let inventory = fs::read_to_string(inventory).unwrap();
    assert!(inventory.contains(listens), "{inventory}");
    let inventory = inventory.replace(listens, "\"[::]:9090\", \"--breaks-off\", \"phoenix\"]");
    let files = [("caller.yaml", CALLER), ("inventory.yaml", inventory.as_str())];
    shop_with(backend, &files, &[&["DOUANE_TRACE_SAMPLER=0.01"], variables].concat())
}

pub(super) fn all_that_failed_is_there_and_of_the_rest_what_was_sampled(seen: &Seen) {
    let Seen { lab, backend } = seen;
    let asked = asked(lab);
    let count = |wanted: fn(&Asked) -> bool| asked.values().filter(|asked| wanted(asked)).count();
    assert_eq!(count(|asked| asked.failed), 2 * FAILURES, "as many as were meant to");
    let sampled = count(|asked| asked.sampled);
    assert!(sampled < ORDERS / 10, "one in a hundred: {sampled}");

    let wanted: BTreeSet<_> =
        asked.iter().filter(|(_, asked)| asked.failed || asked.sampled).map(|(id, _)| id.clone()).collect();
    let whole = eventually("what failed and what was sampled is whole", EXPORTED, || {
        let mut traces: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for span in backend.spans() {
            traces.entry(span.trace.clone()).or_default().push(span);
        }
        let is_part = |id: &&String| traces.get(*id).is_none_or(|spans| spans.len() < 2 * HOPS);
        let parts: Vec<_> = wanted.iter().filter(is_part).collect();
        if parts.is_empty() {
            return Ok(traces);
        }
        let shown = parts.iter().take(3).map(|id| {
            let spans = traces.get(*id).map(|spans| judge::show(spans)).unwrap_or_default();
            format!("{id} {:?}\n{spans}\n", asked[*id])
        });
        Err(format!("{} of {} in part:\n{}", parts.len(), wanted.len(), shown.collect::<String>()))
    });
    for id in &wanted {
        judge::judge(&whole[id], HOPS, "");
    }
    // What breaks off is the server's fault, what is forbidden is not.
    let faults = ["INTERNAL", "PERMISSION_DENIED"].map(|status| {
        let of_status = |span: &&Span| span.attributes.get("rpc.status_code").is_some_and(|it| it == status);
        let servers = whole.values().flat_map(|spans| judge::of_kind(spans, Kind::Server));
        servers.filter(of_status).map(|span| span.failed).collect::<Vec<_>>()
    });
    assert_eq!(faults, [vec![true; FAILURES], vec![false; FAILURES]]);

    // What came later has come from the same sidecars: of the rest they have nothing more to say.
    let later = fresh(0xb00);
    assert!(get_traced(lab, "caller", CHECKOUT, &later, "01").starts_with("200 "));
    backend.collected(&later, 2 * HOPS);
    let mut more = backend.spans();
    more.retain(|span| span.trace != later && !wanted.contains(&span.trace));
    assert!(more.is_empty(), "nobody asked for these: {}", judge::show(&more));
    println!(
        "{} requests at 1 %: {} failed, {} of {} spans of them there; {sampled} sampled; of the other {} none",
        asked.len(),
        2 * FAILURES,
        2 * FAILURES * 2 * HOPS,
        2 * FAILURES * 2 * HOPS,
        asked.len() - wanted.len(),
    );
}

/// What became of a request, as the caller's access log has it.
#[derive(Debug)]
struct Asked {
    failed: bool,
    sampled: bool,
}

/// Orders, and among them such whose Watch is forbidden or breaks off after their Stock was answered well.
fn asked(lab: &Lab) -> BTreeMap<String, Asked> {
    let (half, failures) = ((ORDERS / 2).to_string(), FAILURES.to_string());
    let phoenix = format!("{CHECKOUT}?sku=phoenix");
    let well = ["shop", "get", "--times", &half, CHECKOUT];
    let forbidden =
        ["shop", "get", "--times", &failures, "--every", APART, "-H", "baggage: watch=forbidden", CHECKOUT];
    let breaks_off = ["shop", "get", "--times", &failures, "--every", APART, &phoenix];
    let asking: [&[&str]; 4] = [&well, &well, &forbidden, &breaks_off];
    let asking = asking.map(|command| lab.spawn("caller", command, Stdio::null()));
    let answers: Vec<String> = asking
        .into_iter()
        .map(|asking| String::from_utf8(asking.wait_with_output().unwrap().stdout).unwrap())
        .collect();
    for (answers, status) in answers.iter().zip(["200 ", "200 ", "502 ", "502 "]) {
        let odd = answers.lines().find(|line| !line.starts_with(status));
        assert_eq!(odd, None, "all end with {status}");
    }

    let all = ORDERS + 2 * FAILURES;
    eventually("the caller's log tells of all", DONE, || {
        let records = lab.records("caller");
        let requests = records.iter().filter(|record| record["direction"] == "outbound");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let asked: BTreeMap<_, _> = requests
            .map(|record| {
                let failed = record["status"].as_u64().is_none_or(|status| status >= 500);
                (text(&record["trace_id"]), Asked { failed, sampled: record["trace_flags"] == "01" })
            })
            .collect();
        if asked.len() == all { Ok(asked) } else { Err(format!("{} of {all}", asked.len())) }
    })
}
