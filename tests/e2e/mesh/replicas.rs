//! Services without an address of their own, and endpoints that come and go while they are asked.

use std::{process::Stdio, time::Duration};

use douane_tests::{lab::Lab, wait::eventually};
use serde_json::Value;

use super::{addresses, get, lab, talking::Talking, yaml};

/// A change reaches sidecars within a second; the machine may be busy.
const SEEN: Duration = Duration::from_secs(60);
/// So many requests in a row went elsewhere: whoever was asked no more has gone.
const ENOUGH: usize = 20;

const HEADLESS: &str = "
apiVersion: v1
kind: Service
metadata: {name: each, namespace: town}
spec: {clusterIP: None, selector: {app: answerer}, ports: [{name: http, port: 8080}]}
";

/// Two pods, of which the service selects what the test says.
const GROUP: &str = "
apiVersion: v1
kind: Pod
metadata: {name: member-a, namespace: town, labels: {app: answerer, member: a, douane.io/inject: enabled}}
spec:
  serviceAccountName: answerer
  containers: [{name: app, command: [shop, partner, --listen, '[::]:8080'], ports: [{name: http, containerPort: 8080}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: member-b, namespace: town, labels: {app: answerer, member: b, douane.io/inject: enabled}}
spec:
  serviceAccountName: answerer
  containers: [{name: app, command: [shop, partner, --listen, '[::]:8080'], ports: [{name: http, containerPort: 8080}]}]
";

fn group(selected: &str) -> String {
    // Both, or one of them.
    let labels = if selected.len() == 1 { format!("member: {selected}") } else { "app: answerer".to_owned() };
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: group, namespace: town}}\n\
         spec: {{selector: {{{labels}}}, ports: [{{name: http, port: 80, targetPort: http}}]}}\n"
    )
}

#[test]
fn a_headless_service_is_reached_by_its_name_and_by_the_address_of_each_of_its_pods() {
    let files = [("mesh.yaml", yaml::MESH), ("law.yaml", yaml::LAW), ("headless.yaml", HEADLESS)];
    let Some(lab) = lab(&files) else { return };

    for host in ["each", "each.town.svc.cluster.local"] {
        let answer = get(&lab, "asker", &format!("http://{host}:8080/open/{host}"));
        assert!(answer.starts_with("200 "), "{host}: {answer}");
        let refused = get(&lab, "stranger", &format!("http://{host}:8080/open/{host}"));
        assert!(refused.starts_with("403 "), "{host}: {refused}");
    }
    for pod in ["answerer-1", "answerer-2"] {
        for host in addresses(&lab, pod) {
            let answer = get(&lab, "asker", &format!("http://{host}:8080/open/by-address"));
            assert!(answer.starts_with("200 "), "{host}: {answer}");
        }
        eventually(&format!("{pod} itself was asked, under mutual TLS"), SEEN, || {
            let records = lab.records(pod);
            let asked = records.iter().filter(|it| {
                it["path"] == "/open/by-address"
                    && it["tls"]["version"] == "TLSv1.3"
                    && it["peer_id"] == "spiffe://cluster.local/ns/town/sa/asker"
            });
            if asked.count() == 2 { Ok(()) } else { Err(format!("{records:#?}")) }
        });
    }
}

#[test]
fn endpoints_come_and_go_under_load_and_no_request_fails() {
    let files = [
        ("mesh.yaml", yaml::MESH),
        ("law.yaml", yaml::LAW),
        ("pods.yaml", GROUP),
        ("group.yaml", &*group("a")),
    ];
    let Some(lab) = lab(&files) else { return };
    // Until its input ends.
    let load = "echo begins; shop load http://group/open/door --rate 100 --seconds 300 & \
                read end; kill -TERM $!; wait $!";
    let load = Talking::of(lab.spawn("asker", &["bash", "-c", load], Stdio::piped()));
    only_are_asked(&lab, "a");

    for selected in ["both", "b", "both", "a", "b"] {
        lab.write("group.yaml", &group(selected));
        only_are_asked(&lab, selected);
    }

    let (told, well) = load.end();
    let told: Value = serde_json::from_str(&told).unwrap();
    assert!(well && told["failed"] == 0 && told["total"].as_u64() > Some(100), "{told}");
}

// Whoever is selected is asked, and nobody else is any more.
fn only_are_asked(lab: &Lab, selected: &str) {
    let asked = || ["member-a", "member-b"].map(|pod| lab.records(pod).len());
    let mut before = asked();
    eventually(&format!("only {selected} is asked"), SEEN, || {
        let now = asked();
        let [a, b] = [now[0] - before[0], now[1] - before[1]];
        let is_so = match selected {
            "a" if b == 0 => a > ENOUGH,
            "b" if a == 0 => b > ENOUGH,
            "both" => a > 0 && b > 0,
            _ => {
                before = now;
                false
            }
        };
        if is_so { Ok(()) } else { Err(format!("{before:?}, then {now:?}")) }
    });
}
