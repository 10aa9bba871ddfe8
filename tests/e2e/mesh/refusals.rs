//! What the mesh refuses, provoked from outside: each refusal is one, and the sidecar's record says why.

use std::time::Duration;

use douane_tests::wait::eventually;

use super::{addresses, get, mesh};

#[test]
fn what_the_law_allows_passes_and_what_it_does_not_is_403_with_a_reason() {
    let Some(lab) = mesh() else { return };

    let allowed = get(&lab, "asker", "http://answerer/open/door");
    assert!(allowed.starts_with("200 "), "{allowed}");
    let path = get(&lab, "asker", "http://answerer/closed");
    assert!(path.starts_with("403 ") && !path.contains("policy"), "a stranger learns nothing: {path}");
    let who = get(&lab, "stranger", "http://answerer/open/door");
    assert!(who.starts_with("403 "), "{who}");

    let denied = eventually("both denials are recorded", Duration::from_secs(60), || {
        let mut records: Vec<_> =
            ["answerer-1", "answerer-2"].iter().flat_map(|pod| lab.records(pod)).collect();
        records.retain(|record| record["refusal"] == "denied");
        if records.len() == 2 { Ok(records) } else { Err(format!("{records:#?}")) }
    });
    for record in denied {
        assert!(
            record["policy"].as_str().is_some_and(|policy| policy.contains("town/answerer-callers")),
            "{record:#}"
        );
        assert!(record["reason"].is_string() && record["peer_id"].is_string(), "{record:#}");
    }
    // Their answer reached the callers' records, too: status and protection of the hop.
    lab.recorded("asker", |asked| {
        asked.iter().any(|record| record["status"] == 403 && record["tls"].to_string().contains("TLSv1.3"))
    });
}

#[test]
fn a_forbidden_opaque_stream_is_closed() {
    let Some(lab) = mesh() else { return };

    let allowed = lab.exec("asker", &["shop", "ledger-say", "keeper:7000", "ENTRY one"]);
    assert!(allowed.out.contains("OK"), "{allowed:?}");
    let refused = lab.exec("stranger", &["shop", "ledger-say", "keeper:7000", "ENTRY two"]);
    assert!(!refused.out.contains("OK") && refused.code != 0, "{refused:?}");

    lab.refusal("stranger", "peer_refused");
    let record = lab.refusal("keeper", "denied");
    assert!(
        record["policy"].as_str().is_some_and(|policy| policy.contains("town/keeper-callers")),
        "{record:#}"
    );
}

#[test]
fn plaintext_from_outside_the_mesh_is_refused_on_both_kinds_of_address() {
    let Some(lab) = mesh() else { return };
    for address in addresses(&lab, "keeper") {
        let ran = lab.exec("tourist", &["shop", "get", &format!("http://{address}:7000/")]);
        assert_ne!(ran.code, 0, "{address}: {ran:?}");
        let ran = lab.exec("tourist", &["shop", "ledger-say", &format!("{address}:7000"), "ENTRY one"]);
        assert!(!ran.out.contains("OK") && ran.code != 0, "{address}: {ran:?}");
    }
    lab.refusal("keeper", "plaintext");
}

#[test]
fn a_client_without_a_certificate_is_refused_in_the_handshake() {
    let Some(lab) = mesh() else { return };
    let keeper = lab.pod("keeper")["addresses"][0].as_str().unwrap().to_owned();

    let ran = lab.exec("tourist", &["shop", "tls-probe", &format!("{keeper}:7000"), "--alpn", "douane/1"]);
    assert_ne!(ran.code, 0, "{ran:?}");
    lab.refusal("keeper", "handshake_failed");
}

#[test]
fn the_sidecars_own_ports_are_no_way_in() {
    let Some(lab) = mesh() else { return };
    let ([own, own6], [other, other6]) = (addresses(&lab, "asker"), addresses(&lab, "keeper"));

    for (pod, host) in [
        ("asker", "127.0.0.1"),
        ("asker", "[::1]"),
        ("asker", &*own),
        ("asker", &*own6),
        ("asker", &*other),
        ("asker", &*other6),
        ("tourist", &*other),
        ("tourist", &*other6),
    ] {
        for port in [15001, 15006] {
            let answer = get(&lab, pod, &format!("http://{host}:{port}/"));
            // Whoever refuses may say so; nobody serves.
            assert!(!answer.starts_with(['1', '2', '3']), "{pod} -> {host}:{port}: {answer}");
        }
    }
    lab.refusal("keeper", "not_redirected");
    // Health is for everyone, and nothing else is on its port.
    for host in [&other, &other6] {
        let ready = get(&lab, "tourist", &format!("http://{host}:15020/readyz"));
        assert!(ready.starts_with("200 "), "{host}: {ready}");
        for path in ["/config", "/drain", "/snapshot", "/certificates", "/log-level"] {
            let answer = get(&lab, "tourist", &format!("http://{host}:15020{path}"));
            assert!(answer.starts_with("404 "), "{host}{path}: {answer}");
        }
    }
}

#[test]
fn an_address_that_no_resource_names_is_refused_with_the_yaml_that_would_allow_it() {
    let Some(lab) = mesh() else { return };

    let ran = get(&lab, "asker", "http://203.0.113.77:8080/");
    assert!(!ran.starts_with("200 "), "{ran}");
    let record = lab.refusal("asker", "unknown_destination");
    let hint = record["hint"].as_str().unwrap_or_default();
    assert!(hint.contains("kind: ServiceEntry") && hint.contains("203.0.113.77"), "{record:#}");
}

#[test]
fn a_port_that_a_service_does_not_have_is_refused() {
    let Some(lab) = mesh() else { return };

    let ran = get(&lab, "asker", "http://answerer:81/");
    assert!(!ran.starts_with("200 "), "{ran}");
    lab.refusal("asker", "unknown_port");
}

#[test]
fn bad_requests_and_connect_are_refused_before_they_leave_the_pod() {
    let Some(lab) = mesh() else { return };
    let cases = [
        (
            "two lengths",
            "POST / HTTP/1.1\\r\\nHost: answerer\\r\\nContent-Length: 3\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n",
            "400",
        ),
        ("no host", "GET /open HTTP/1.1\\r\\n\\r\\n", "400"),
        ("two hosts", "GET /open HTTP/1.1\\r\\nHost: answerer\\r\\nHost: keeper\\r\\n\\r\\n", "400"),
        (
            "a dot segment with a parameter",
            "GET /open/..;/closed HTTP/1.1\\r\\nHost: answerer\\r\\n\\r\\n",
            "400",
        ),
        ("CONNECT", "CONNECT keeper:7000 HTTP/1.1\\r\\nHost: keeper:7000\\r\\n\\r\\n", "405"),
    ];
    for (what, request, status) in cases {
        let script = format!("exec 3<>/dev/tcp/answerer/80; printf '{request}' >&3; timeout 5 head -n 1 <&3");
        let ran = lab.exec("asker", &["bash", "-c", &script]);
        assert!(ran.out.contains(status), "{what}: {status} expected: {ran:?}");
    }
    lab.refusal("asker", "bad_request");
    lab.refusal("asker", "connect_not_allowed");
}

#[test]
fn a_normalized_path_is_what_is_judged_and_sent_on() {
    let Some(lab) = mesh() else { return };
    let raw = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\\r\\nHost: answerer\\r\\nConnection: close\\r\\n\\r\\n");
        let script = format!("exec 3<>/dev/tcp/answerer/80; printf '{request}' >&3; timeout 5 cat <&3");
        lab.exec("asker", &["bash", "-c", &script]).out
    };
    let inside = raw("/closed/../open/%%64oor");
    assert!(inside.contains(" 200 ") && inside.contains("\"/open/door\""), "{inside}");
    let outside = raw("/open/../closed");
    assert!(outside.contains(" 403 "), "{outside}");
}
