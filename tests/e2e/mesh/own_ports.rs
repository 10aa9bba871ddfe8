//! The ports of the mesh itself (15001, 15006, 15012, 15020) are no way in: by no spelling of an address, not as the end of a
//! service that names them, and whoever a request says it is for.

use std::time::Duration;

use douane_tests::{lab::Lab, wait::eventually};

use super::{addresses, lab, mesh, yaml};

/// The control plane's, as the lab has it.
const CONTROL_PLANE: &str = "10.77.0.1:15012";

/// Leads to the sidecar of `keeper`, and to its own.
const TRICK: &str = "
apiVersion: v1
kind: Service
metadata: {name: trick, namespace: town}
spec:
  selector: {app: keeper}
  ports: [{name: http-a, port: 15001}, {name: http-b, port: 15006}, {name: tcp-c, port: 15020}, {name: http-d, port: 80, targetPort: 15006}]
---
apiVersion: v1
kind: Service
metadata: {name: self, namespace: town}
spec:
  selector: {app: asker}
  ports: [{name: http-a, port: 80, targetPort: 15001}, {name: http-b, port: 81, targetPort: 15006}, {name: http-c, port: 82, targetPort: 15020}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: asker-itself, namespace: town}
spec: {selector: {matchLabels: {app: asker}}, rules: [{}]}
";

/// Status and body of what curl is told; the status is 000 where nobody answers in HTTP.
fn curl(lab: &Lab, pod: &str, arguments: &[&str]) -> (String, String) {
    let usual = ["curl", "-sk", "--noproxy", "*", "--path-as-is", "-m", "10", "-w", "\n%{http_code}"];
    let told = lab.exec(pod, &[&usual, arguments].concat()).out;
    let (body, status) = told.rsplit_once('\n').unwrap_or(("", &told));
    (status.to_owned(), body.to_owned())
}

fn is_served(status: &str) -> bool {
    status.starts_with(['1', '2', '3'])
}

#[test]
fn an_ipv4_address_in_the_clothes_of_ipv6_leads_nowhere_else() {
    let Some(lab) = mesh() else { return };
    let ([own, _], [other, _]) = (addresses(&lab, "asker"), addresses(&lab, "keeper"));

    for (pod, host) in [("asker", "127.0.0.1"), ("asker", &*own), ("asker", &*other), ("tourist", &*other)] {
        for port in [15001, 15006] {
            let (status, body) = curl(&lab, pod, &[&format!("http://[::ffff:{host}]:{port}/")]);
            assert!(!is_served(&status), "{pod} -> {host}:{port}: {status} {body}");
        }
    }
    lab.refusal("keeper", "not_redirected");
    // What it is in IPv4: readiness for everyone.
    let (status, body) = curl(&lab, "tourist", &[&format!("http://[::ffff:{other}]:15020/readyz")]);
    assert_eq!((&*status, &*body), ("200", "ready\n"));
    // And the law is the same.
    let (status, _) = curl(&lab, "stranger", &[&format!("http://[::ffff:{other}]:7000/")]);
    assert!(!is_served(&status), "{status}");
}

#[test]
fn a_service_that_names_a_sidecars_own_port_leads_to_nobody() {
    let files = [("mesh.yaml", yaml::MESH), ("law.yaml", yaml::LAW), ("trick.yaml", TRICK)];
    let Some(lab) = lab(&files) else { return };
    let [own, _] = addresses(&lab, "asker");

    for url in [
        "http://trick:15001/",
        "http://trick:15006/",
        "http://trick:15020/readyz",
        "http://trick:80/",
        "http://self:80/",
        "http://self:81/",
        "http://self:82/metrics",
    ] {
        let (status, body) = curl(&lab, "asker", &[url]);
        assert!(!is_served(&status), "{url}: {status} {body}");
    }
    lab.refusal("keeper", "not_redirected");
    // Neither does a law that allows everything lead there.
    for port in [15001, 15006, 15020] {
        let own = format!("{own}:{port}");
        eventually(&format!("{own} is refused for what it is"), Duration::from_secs(60), || {
            let records = lab.records("asker");
            let refused = records.iter().any(|it| {
                it["direction"] == "inbound" && it["destination"] == own && it["refusal"] == "own_port"
            });
            if refused { Ok(()) } else { Err(format!("{records:#?}")) }
        });
    }
}

#[test]
fn an_application_does_not_reach_the_control_plane() {
    let Some(lab) = mesh() else { return };

    for url in [
        format!("https://{CONTROL_PLANE}/"),
        format!("https://[::ffff:{CONTROL_PLANE}/").replace(":15012", "]:15012"),
    ] {
        let (status, body) = curl(&lab, "asker", &["--http2", &url]);
        assert!(!is_served(&status), "{url}: {status} {body}");
    }
    let refused = lab.refusal("asker", "unknown_destination");
    assert_eq!(refused["destination"], CONTROL_PLANE, "{refused:#}");
}

#[test]
fn whoever_a_request_says_it_is_for_the_health_port_tells_only_what_everybody_may_know() {
    let Some(lab) = mesh() else { return };
    let [host, _] = addresses(&lab, "keeper");
    let at = |path: &str| format!("http://{host}:15020{path}");

    // As a browser would ask whose name was bound anew.
    for named in ["attacker.example", "127.0.0.1:15001", "localhost", "keeper.town.svc.cluster.local", ""] {
        let header = format!("Host: {named}");
        let (status, body) = curl(&lab, "tourist", &["-H", &header, "-D", "-", &at("/readyz")]);
        assert!(status == "200" && body.ends_with("\r\n\r\nready\n"), "{named}: {status} {body}");
        assert!(!body.to_lowercase().contains("access-control"), "{body}");
        for path in [
            "/config",
            "/drain",
            "/quitquitquit",
            "/shutdown",
            "/log-level",
            "/../config",
            "//metrics",
            "/readyz/",
        ] {
            let (status, body) = curl(&lab, "tourist", &["-H", &header, &at(path)]);
            assert_eq!((&*status, &*body), ("404", "not here\n"), "{named} {path}");
        }
    }
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUIT"] {
        for path in ["/readyz", "/metrics", "/drain"] {
            let (status, body) = curl(&lab, "tourist", &["-X", method, "-d", "x", &at(path)]);
            assert_eq!((&*status, &*body), ("405", "only GET\n"), "{method} {path}");
        }
    }
    // Nor is it a way on: a proxy's request is answered as any other.
    let (status, body) =
        curl(&lab, "tourist", &["--noproxy", "", "-x", &at(""), "http://10.77.0.11:7000/readyz"]);
    assert_eq!((&*status, &*body), ("200", "ready\n"));
    let (status, _) =
        curl(&lab, "tourist", &["--noproxy", "", "-p", "-x", &at(""), "http://10.77.0.11:7000/"]);
    assert!(!is_served(&status), "{status}");
    assert_eq!(curl(&lab, "tourist", &["-I", &at("/readyz")]).0, "200");
}
