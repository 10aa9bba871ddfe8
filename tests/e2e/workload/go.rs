//! go-spiffe, the library that most workloads use. Built by `tests/counterparts.sh` where there is Go; else skipped aloud.

use std::process::Stdio;

use douane_tests::counterparts;
use serde_json::Value;

use super::{Served, WEB};
use crate::alone::on_the_sidecars_runtime;

#[test]
fn w5_w6_w9_go_spiffe_fetches_rotates_does_mutual_tls_and_verifies_tokens() {
    let Some(program) = counterparts::program("go-spiffe") else { return };
    on_the_sidecars_runtime(async {
        let served = Served::start().await;
        let mut go = tokio::process::Command::new(program);
        go.env("SPIFFE_ENDPOINT_SOCKET", served.endpoint()).stdin(Stdio::null()).kill_on_drop(true);
        let done = go.output().await.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let said: Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!(said["spiffe_id"], WEB);
        assert_eq!(said["peer"], WEB);
        assert_eq!(said["token_of"], WEB);
        assert_ne!(said["serials"][0], said["serials"][1]);
        assert!(said["refused"].as_str().unwrap().contains("audience"), "{said}");
        served.end().await;
    });
}
