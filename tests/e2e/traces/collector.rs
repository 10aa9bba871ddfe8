//! A collector that dies, is slow or full under load costs no request; what it missed is counted, and the next one gets what comes then.

use std::time::Duration;

use douane_tests::{
    lab::Lab,
    sink::{Mood, Sink},
    wait::eventually,
};

use super::{collected, fresh, get_traced, shop, url};

/// Until sidecars notice, their queues are full, and the next attempt is made.
const NOTICED: Duration = Duration::from_secs(60);
/// How long the collector is away under load.
const AWAY: Duration = Duration::from_secs(10);

fn figure(lab: &Lab, pod: &str, name: &str) -> f64 {
    let pod_ip = lab.pod(pod)["addresses"][0].as_str().unwrap().to_owned();
    let text = lab.exec("outsider", &["curl", "-s", &format!("http://{pod_ip}:15020/metrics")]).out;
    let values = text.lines().filter(|line| line.starts_with(name));
    values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

fn load(lab: &Lab) {
    let seconds = AWAY.as_secs().to_string();
    let asked = ["shop", "load", "http://orders.shop/orders", "--seconds", &seconds, "--rate", "200"];
    let load = lab.exec("web", &asked);
    assert_eq!(load.code, 0, "no request fails: {load:?}");
}

#[test]
fn a_collector_that_is_slow_or_full_under_load_fails_no_request_and_is_served_again() {
    let sink = Sink::start();
    let Some(lab) = shop(&url(&sink)) else { return };
    for mood in [Mood::Silent, Mood::Full] {
        let before = figure(&lab, "web", "douane_otel_spans_dropped_total");
        sink.feels(mood);
        load(&lab);
        eventually(&format!("what a {mood:?} collector did not take is counted"), NOTICED, || {
            let dropped = figure(&lab, "web", "douane_otel_spans_dropped_total");
            if dropped > before { Ok(()) } else { Err(format!("{dropped} dropped")) }
        });
        let kept = sink.spans().len();
        sink.feels(Mood::Well);
        let mut number = 0x700;
        eventually("it is served again", NOTICED, || {
            number += 1;
            let trace = fresh(number);
            assert!(get_traced(&lab, "web", "http://orders.shop/orders", &trace, "01").starts_with("200 "));
            let after = sink.spans().len();
            if after > kept { Ok(()) } else { Err("no span yet".to_owned()) }
        });
    }
}

#[test]
fn a_collector_that_dies_under_load_fails_no_request_and_the_next_one_is_served() {
    let sink = Sink::start();
    let address = sink.address();
    let Some(lab) = shop(&url(&sink)) else { return };
    let order = |trace: &str| get_traced(&lab, "web", "http://orders.shop/orders", trace, "01");
    assert!(order(&fresh(0x500)).starts_with("200 "));
    collected(&sink, &fresh(0x500), 2);

    drop(sink);
    load(&lab);
    eventually("what was lost is counted", NOTICED, || {
        let dropped = figure(&lab, "web", "douane_otel_spans_dropped_total");
        if dropped > 0.0 { Ok(()) } else { Err(format!("{dropped} dropped")) }
    });

    let sink = Sink::start_at(address);
    let mut number = 0x600;
    eventually("the next collector is served", NOTICED, || {
        number += 1;
        let trace = fresh(number);
        assert!(order(&trace).starts_with("200 "));
        if sink.spans().is_empty() { Err("no span yet".to_owned()) } else { Ok(()) }
    });
}
