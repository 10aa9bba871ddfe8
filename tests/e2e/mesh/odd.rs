//! Ways that are not the straight one: undeclared protocols, a pod that calls itself, IPv6, datagrams, destinations where
//! nobody is.

use std::time::{Duration, Instant};

use douane_tests::{lab::Lab, processes, wait::eventually};
use serde_json::Value;

use super::{addresses, get, mesh};

const SOON: Duration = Duration::from_secs(30);

fn entry(lab: &Lab, pod: &str, address: &str) -> String {
    lab.exec(pod, &["shop", "ledger-say", address, "ENTRY one"]).out
}

#[test]
fn an_undeclared_port_takes_http_and_servers_that_speak_first() {
    let Some(lab) = mesh() else { return };
    let [v4, v6] = addresses(&lab, "mixed");
    for host in ["mixed", &v4, &v6] {
        let answer = get(&lab, "asker", &format!("http://{host}:9000/door"));
        assert!(answer.starts_with("200 "), "{host}: {answer}");
        let answer = entry(&lab, "asker", &format!("{host}:9001"));
        assert!(answer.contains("OK"), "{host}: {answer}");
    }
    // HTTP was understood.
    lab.recorded("mixed", |records| records.iter().any(|record| record["method"] == "GET"));

    // Nobody listens there, nobody is there: two different refusals.
    assert!(get(&lab, "asker", "http://mixed:9002/").starts_with("502 "));
    lab.refusal("mixed", "connect_failed");
    assert!(get(&lab, "asker", "http://empty/").starts_with("503 "));
    lab.refusal("asker", "no_ready_endpoint");
}

#[test]
fn the_main_paths_lead_over_ipv6_too_and_so_do_the_refusals() {
    let Some(lab) = mesh() else { return };
    let ([_, answerer], [_, keeper]) = (addresses(&lab, "answerer"), addresses(&lab, "keeper"));

    let inside = format!("http://{answerer}:8080/open/door");
    assert!(get(&lab, "asker", &inside).starts_with("200 "));
    assert!(get(&lab, "stranger", &inside).starts_with("403 "));
    assert!(entry(&lab, "asker", &format!("{keeper}:7000")).contains("OK"));
    assert!(!entry(&lab, "stranger", &format!("{keeper}:7000")).contains("OK"));
    assert!(!get(&lab, "tourist", &inside).starts_with("200 "));
    lab.refusal("answerer-1", "plaintext");
    assert!(get(&lab, "asker", "http://[2001:db8::77]:80/").starts_with("502 "));
    lab.refusal("asker", "unknown_destination");
}

#[test]
fn a_pod_that_calls_itself_is_judged_by_its_own_law() {
    let Some(lab) = mesh() else { return };
    for host in addresses(&lab, "answerer-1") {
        for (path, status) in [("open/door", "200 "), ("closed", "403 ")] {
            let answer = get(&lab, "answerer-1", &format!("http://{host}:8080/{path}"));
            assert!(answer.starts_with(status), "{host}/{path}: {answer}");
        }
    }
    let is_own = |it: &&Value| it["direction"] == "inbound" && it["peer_id"] == it["local_id"];
    let records = lab.recorded("answerer-1", |records| records.iter().filter(is_own).count() >= 4);
    let own: Vec<_> = records.iter().filter(is_own).collect();
    assert!(own.iter().all(|record| !record["tls"].to_string().contains("TLSv1")), "{own:#?}");
    assert!(own.iter().any(|record| record["refusal"] == "denied"), "{own:#?}");
}

#[test]
fn datagrams_between_pods_are_dropped_and_counted_on_both_sides() {
    let Some(lab) = mesh() else { return };
    let dropped = |pod: &str| -> u64 {
        let rules = lab.rules(pod);
        let drops = rules.lines().filter(|line| line.contains("udp") && line.contains("drop"));
        drops.filter_map(|line| line.split_once("packets ")?.1.split(' ').next()?.parse::<u64>().ok()).sum()
    };
    let [v4, v6] = addresses(&lab, "keeper");
    for (sender, counter) in [("asker", "asker"), ("tourist", "keeper")] {
        for host in [v4.as_str(), v6.trim_matches(['[', ']'])] {
            let before = dropped(counter);
            let script = format!("echo hello > /dev/udp/{host}/5353");
            lab.exec(sender, &["bash", "-c", &script]);
            eventually(&format!("{counter} counts it"), SOON, || {
                if dropped(counter) > before { Ok(()) } else { Err(lab.rules(counter)) }
            });
        }
    }
}

#[test]
fn without_a_control_plane_what_is_known_works_and_an_unknown_address_is_refused_after_a_second() {
    let Some(lab) = mesh() else { return };
    let known = || get(&lab, "asker", "http://answerer/open/door");
    assert!(known().starts_with("200 "));
    let control_plane = lab.control_plane();
    processes::signal(control_plane, "STOP");

    let began = Instant::now();
    let answer = get(&lab, "asker", "http://203.0.113.99/");
    let took = began.elapsed();
    assert!(answer.starts_with("503 "), "{answer}");
    assert!(took > Duration::from_millis(900) && took < SOON, "{took:?}");
    lab.refusal("asker", "control_plane_silent");
    assert!(known().starts_with("200 "));

    processes::signal(control_plane, "KILL");
    for _ in 0..20 {
        let answer = known();
        assert!(answer.starts_with("200 "), "{answer}");
    }
    eventually("a new control plane answers", SOON * 3, || {
        let answer = get(&lab, "asker", "http://203.0.113.98/");
        if answer.starts_with("502 ") { Ok(()) } else { Err(answer) }
    });
}
