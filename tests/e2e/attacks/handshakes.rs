//! TLS as no honest peer speaks it, by foreign programs: only TLS 1.3 with a certificate is taken, nothing is resumed, and
//! no bytes make the sidecar panic.

use std::{fs, process::Command};

use douane_tests::counterparts;
use serde_json::{Value, json};

use super::pair::{Pair, foreign, say};

fn pair() -> Option<Pair> {
    Pair::before_h11(json!({ "protocol": "http1" }))
}

fn shake(pair: &Pair, case: &str) -> Option<Value> {
    foreign("tls_hello.py", &[case, &pair.peer.to_string(), pair.svid().to_str().unwrap()])
}

fn are_refused(cases: &[&str]) {
    let Some(mut pair) = pair() else { return };
    for case in cases {
        let Some(told) = shake(&pair, case) else { return };
        assert_eq!(told["accepted"], false, "{case}: {told}");
    }
    assert_eq!(pair.forwarded(), "");
    // Whether it was wrong, or never went on.
    pair.recorded("orders", |record| {
        record["refusal"].as_str().is_some_and(|label| label.starts_with("handshake_"))
    });
    pair.is_well();
}

#[test]
fn an_honest_handshake_of_a_foreign_library_is_taken_also_in_records_of_one_byte() {
    let Some(pair) = pair() else { return };
    for case in ["honest", "one_byte_records"] {
        let Some(told) = shake(&pair, case) else { return };
        assert_eq!(
            (&told["accepted"], &told["version"]),
            (&json!(true), &json!("TLS 1.3")),
            "{case}: {told}"
        );
    }
}

#[test]
fn older_versions_of_tls_are_refused() {
    are_refused(&["tls12", "tls11", "tls10", "ssl3", "ssl2"]);
}

#[test]
fn a_peer_without_a_certificate_or_with_weak_terms_is_refused() {
    are_refused(&["no_certificate", "weak_group", "anonymous", "compression", "no_extensions"]);
}

#[test]
fn malformed_handshakes_are_refused_and_nothing_panics() {
    are_refused(&[
        "empty_record",
        "huge_record",
        "huge_handshake",
        "alert_first",
        "data_first",
        "ccs_flood",
        "garbage",
    ]);
}

#[test]
fn early_data_is_never_read() {
    are_refused(&["early_data"]);
}

#[test]
fn plaintext_and_a_proxys_preface_are_refused() {
    let Some(mut pair) = pair() else { return };
    for bytes in [
        &b"GET /a HTTP/1.1\r\nHost: orders\r\n\r\n"[..],
        b"PROXY TCP4 127.0.0.1 127.0.2.1 1 80\r\nGET /a HTTP/1.1\r\nHost: orders\r\n\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\x02\x01\0\x01\0\x50GET /a HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-x\r\n",
    ] {
        let told = say(pair.peer, bytes);
        assert!(told.statuses().is_empty(), "{told:?}");
    }
    assert_eq!(pair.forwarded(), "");
    pair.refusal("orders", "plaintext");
    pair.is_well();
}

#[test]
fn openssl_gets_neither_an_older_version_nor_a_renegotiation_nor_a_session_to_resume() {
    let (Some(openssl), Some(mut pair)) = (counterparts::program("openssl"), pair()) else { return };
    let svid = pair.svid();
    let folder = svid.parent().unwrap();
    let session = folder.join("session");
    let script = |arguments: &str, input: &str| {
        let command = format!(
            "(printf '{input}'; sleep 1) | timeout 8 '{}' s_client -connect {} -cert '{}' -alpn douane/1 {arguments} 2>&1",
            openssl.display(),
            pair.peer,
            svid.display(),
        );
        let output = Command::new("bash").arg("-c").arg(command).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };

    let usual = script(&format!("-sess_out '{}'", session.display()), "");
    assert!(usual.contains("TLSv1.3") && usual.contains("ALPN protocol: douane/1"), "{usual}");
    assert!(!fs::exists(&session).unwrap(), "a session was given: {usual}");
    for older in ["-tls1_2", "-tls1_1", "-tls1"] {
        let told = script(older, "");
        assert!(!told.contains("ALPN protocol: douane/1"), "{older}: {told}");
    }
    // `R` asks for a renegotiation, `k` for a key update with an answer.
    let renegotiated = script("", "R\\nk\\nK\\n");
    assert!(!renegotiated.contains("verify return:1\nRENEGOTIATING\ndepth"), "{renegotiated}");
    pair.is_well();
}

#[test]
fn sslyze_finds_tls_1_3_and_nothing_else() {
    let (Some(python), Some(pair)) = (counterparts::python(), pair()) else { return };
    let found = pair.svid().with_file_name("sslyze.json");
    let (certificate, key) = split(&pair);
    let output = Command::new(python)
        .args(["-m", "sslyze", "--cert", &certificate, "--key", &key, "--mozilla_config=disable"])
        .args(["--sslv2", "--sslv3", "--tlsv1", "--tlsv1_1", "--tlsv1_2", "--tlsv1_3"])
        .args([
            "--compression",
            "--reneg",
            "--resum",
            "--heartbleed",
            "--openssl_ccs",
            "--robot",
            "--early_data",
            "--fallback",
        ])
        .arg(format!("--json_out={}", found.display()))
        .arg(pair.peer.to_string())
        .output()
        .unwrap();
    let text = fs::read_to_string(&found).unwrap_or_else(|_| panic!("{output:?}"));
    let told: Value = serde_json::from_str(&text).unwrap();
    let scan = &told["server_scan_results"][0]["scan_result"];
    let of = |name: &str| scan[name]["result"].clone();
    for older in ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1", "tls_1_2"] {
        assert_eq!(
            of(&format!("{older}_cipher_suites"))["is_tls_version_supported"],
            false,
            "{older}: {scan:#}"
        );
    }
    assert_eq!(of("tls_1_3_cipher_suites")["is_tls_version_supported"], true, "{scan:#}");
    for (scan, finding) in [
        ("heartbleed", "is_vulnerable_to_heartbleed"),
        ("openssl_ccs_injection", "is_vulnerable_to_ccs_injection"),
        ("tls_compression", "supports_compression"),
        ("tls_1_3_early_data", "supports_early_data"),
        ("session_renegotiation", "is_vulnerable_to_client_renegotiation_dos"),
    ] {
        assert_ne!(of(scan)[finding], true, "{scan}: {:#}", of(scan));
    }
}

#[test]
fn testssl_finds_tls_1_3_no_weak_cipher_and_no_known_hole() {
    let (Some(testssl), Some(pair)) = (counterparts::program("testssl"), pair()) else { return };
    let found = pair.svid().with_file_name("testssl.json");
    let output = Command::new(testssl)
        .args([
            "-p",
            "-s",
            "-f",
            "-U",
            "-q",
            "--color",
            "0",
            "--warnings",
            "off",
            "--connect-timeout",
            "5",
            "--openssl-timeout",
            "5",
        ])
        .arg("--jsonfile")
        .arg(&found)
        .arg(pair.peer.to_string())
        .output()
        .unwrap();
    let text = fs::read_to_string(&found).unwrap_or_else(|_| panic!("{output:?}"));
    let told: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let findings = told.as_array().unwrap();
    let of = |id: &str| {
        findings.iter().find(|finding| finding["id"] == id).map(|finding| finding["finding"].to_string())
    };
    for older in ["SSLv2", "SSLv3", "TLS1", "TLS1_1", "TLS1_2"] {
        let finding = of(older).unwrap_or_else(|| panic!("{older}: {text}"));
        assert!(finding.contains("not offered"), "{older}: {finding}");
    }
    let newest = of("TLS1_3").unwrap_or_default();
    assert!(newest.contains("offered") && !newest.contains("not offered"), "{text}");
    for weak in ["cipherlist_NULL", "cipherlist_aNULL", "cipherlist_EXPORT", "cipherlist_LOW"] {
        assert_eq!(of(weak).as_deref(), Some("\"not offered\""), "{weak}: {text}");
    }
    for known in
        ["heartbleed", "CCS", "ROBOT", "secure_client_renego", "CRIME_TLS", "DROWN", "LUCKY13", "RC4"]
    {
        assert!(of(known).is_some(), "{known} was not tried: {text}");
    }
    for finding in findings {
        // WARN speaks of the scanner itself.
        let harmless =
            ["OK", "INFO", "DEBUG", "WARN"].iter().any(|severity| finding["severity"] == *severity);
        assert!(harmless, "{finding}");
    }
}

// Two files, as sslyze wants them.
fn split(pair: &Pair) -> (String, String) {
    let text = fs::read_to_string(pair.svid()).unwrap();
    let (certificate, key) = text.split_at(text.find("-----BEGIN PRIVATE KEY").unwrap());
    let write = |name: &str, text: &str| {
        let path = pair.svid().with_file_name(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    (write("certificate.pem", certificate), write("key.pem", key))
}
