//! PyPI's `spiffe` package, and grpcio's reflection client: neither knows us, nor the other.

use std::process::{Output, Stdio};

use douane_tests::counterparts;
use serde_json::Value;

use super::{Served, WEB};
use crate::alone::on_the_sidecars_runtime;

/// What `tests/foreign/workload_api.py` says of this socket; `None` where there is no Python with its packages.
async fn says(served: &Served, task: &'static str) -> Option<Value> {
    let mut python = tokio::process::Command::new(counterparts::python()?);
    python.arg(counterparts::script("workload_api.py")).arg(task);
    // All that an application is told.
    python.env("SPIFFE_ENDPOINT_SOCKET", served.endpoint()).stdin(Stdio::null()).kill_on_drop(true);
    let Output { status, stdout, stderr } = python.output().await.unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    Some(serde_json::from_slice(&stdout).unwrap())
}

fn asked(task: &'static str, check: impl AsyncFnOnce(Value)) {
    on_the_sidecars_runtime(async {
        let served = Served::start().await;
        if let Some(said) = says(&served, task).await {
            check(said).await;
        }
        served.end().await;
    });
}

#[test]
fn w10_a_stock_library_finds_the_socket_by_its_environment_alone() {
    asked("fetch", async |said: Value| {
        assert_eq!(said["spiffe_id"], WEB);
        assert_eq!(said["chain"], 2);
        assert_eq!(said["bundles"], serde_json::json!({"spiffe://cluster.local": 1}));
    });
}

#[test]
fn w5_another_stock_library_follows_a_rotation() {
    asked("watch", async |said: Value| {
        let serials = said["serials"].as_array().unwrap();
        assert_eq!(serials.len(), 3);
        assert!(serials[0] != serials[1] && serials[1] != serials[2], "{serials:?}");
    });
}

#[test]
fn w8_w9_a_stock_library_gets_a_token_that_it_and_the_socket_verify_for_its_audience_alone() {
    asked("token", async |said: Value| {
        assert_eq!(said["spiffe_id"], WEB);
        assert_eq!(said["audience"], serde_json::json!(["bank"]));
        assert_eq!(said["keys"], 1);
        assert!(said["for_another_audience"].as_str().unwrap().contains("audience"), "{said}");
        assert!(said["for_somebody_else"].as_str().unwrap().contains("no identity issued"), "{said}");
        assert_eq!(said["kept"], true, "asked for again at once, it is the same");
    });
}

#[test]
fn what_a_stock_library_fetched_does_mutual_tls() {
    asked("mtls", async |said: Value| {
        assert_eq!(said["client_saw"], WEB);
        assert_eq!(said["server_saw"], WEB);
    });
}

#[test]
fn w4_reflection_lists_the_service_without_a_package_and_w2_holds_for_it_too() {
    asked("list", async |said: Value| {
        let services = said["services"].as_array().unwrap();
        assert!(services.contains(&"SpiffeWorkloadAPI".into()), "{services:?}");
        assert_eq!(
            said["methods"],
            serde_json::json!([
                "FetchX509SVID",
                "FetchX509Bundles",
                "FetchJWTSVID",
                "FetchJWTBundles",
                "ValidateJWTSVID"
            ])
        );
        assert_eq!(said["without_header"], "INVALID_ARGUMENT");
    });
}
