//! A collector that dies, is slow or full under load costs no request; what it missed is counted, and the next one gets what comes then.

use std::time::Duration;

use douane_tests::{lab::Lab, sink::Mood, wait::eventually};

use super::{
    backend::{Backend, Seen, over_both},
    fresh, get_traced, shop,
};

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
    let asked = ["shop", "load", "http://orders.shop/orders", "--seconds", &seconds, "--rate", "100"];
    let load = lab.exec("web", &asked);
    assert_eq!(load.code, 0, "no request fails: {load:?}");
}

#[test]
fn a_collector_that_is_slow_or_full_under_load_fails_no_request_and_is_served_again() {
    over_both(|backend| {
        let Some(Seen { lab, backend }) = shop(backend) else { return };
        for mood in [Mood::Silent, Mood::Full] {
            let before = dropped(&lab);
            backend.feels(mood);
            load(&lab);
            what_was_lost_is_counted(&lab, before);
            let kept = backend.spans().len();
            backend.feels(Mood::Well);
            is_served(&lab, &backend, kept);
        }
    });
}

#[test]
fn a_collector_that_dies_under_load_fails_no_request_and_the_next_one_is_served() {
    over_both(|backend| {
        let Some(seen) = shop(backend) else { return };
        dies_under_load(seen);
    });
}

pub(super) fn dies_under_load(seen: Seen) {
    let Seen { lab, mut backend } = seen;
    assert!(order(&lab, &fresh(0x500)).starts_with("200 "));
    backend.collected(&fresh(0x500), 2);

    let before = dropped(&lab);
    backend.is_killed();
    load(&lab);
    what_was_lost_is_counted(&lab, before);

    backend.is_back();
    is_served(&lab, &backend, 0);
}

fn order(lab: &Lab, trace: &str) -> String {
    get_traced(lab, "web", "http://orders.shop/orders", trace, "01")
}

fn dropped(lab: &Lab) -> f64 {
    figure(lab, "web", "douane_otel_spans_dropped_total")
}

fn what_was_lost_is_counted(lab: &Lab, before: f64) {
    eventually("what a collector did not take is counted", NOTICED, || {
        let dropped = dropped(lab);
        if dropped > before { Ok(()) } else { Err(format!("{dropped} dropped")) }
    });
}

fn is_served(lab: &Lab, backend: &Backend, before: usize) {
    let mut number = 0x700;
    eventually("a collector that is well again is served", NOTICED, || {
        number += 1;
        assert!(order(lab, &fresh(number)).starts_with("200 "));
        let after = backend.spans().len();
        if after > before { Ok(()) } else { Err("no span yet".to_owned()) }
    });
}
