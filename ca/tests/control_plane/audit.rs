//! The audit log of a running control plane: who got what and who did not, on disk before the answer leaves.

use std::{fs, path::Path, process::Command};

use douane_ca::{
    audit::{self, Wanted},
    config::{Audit, Config},
};
use douane_proto::wire::issue_request::Evidence;
use serde_json::Value;
use tonic::Code;

use crate::{
    plane::{Ground, eventually},
    sidecar::{issue, request},
};

fn records(folder: &Path) -> Vec<Value> {
    let mut found = Vec::new();
    audit::matching(folder, &Wanted::default(), |record| found.push(serde_json::from_str(record).unwrap()))
        .unwrap();
    found
}

#[tokio::test]
async fn t19_every_certificate_and_every_refusal_is_recorded_before_its_answer() {
    let ground = Ground::new();
    let plane = ground.start().await;
    let bundle = ground.state().join("bundle.pem");
    let log = ground.state().join("audit");

    let own = records(&log).pop().unwrap();
    assert_eq!(
        (&own["event"], &own["evidence"]),
        (&"issued".into(), &"own".into()),
        "also what we show ourselves"
    );

    let token = ground.token("shop", "web");
    let (good, key) = request(Evidence::ServiceAccountToken(token.clone()), 60);
    issue(plane.address, &bundle, good).await.unwrap();
    let issued = records(&log).pop().unwrap();
    assert_eq!(issued["event"], "issued");
    assert_eq!(issued["identity"], "spiffe://cluster.local/ns/shop/sa/web");
    assert_eq!(issued["evidence"], "service_account_token");
    assert_eq!(issued["bound_to"], "web-1");
    let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &spki);
    let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(issued["key"], hash);
    for field in ["serial", "authority", "not_after", "peer", "time"] {
        assert!(!issued[field].is_null(), "{field}: {issued}");
    }

    let (bad, _) = request(Evidence::JoinToken(format!("douane-join-{}", "0".repeat(64))), 60);
    issue(plane.address, &bundle, bad).await.unwrap_err();
    let refused = records(&log).pop().unwrap();
    assert_eq!((&refused["event"], &refused["label"]), (&"refused".into(), &"join_token_unknown".into()));
    assert!(refused["reason"].as_str().unwrap().contains("unknown or already spent"), "{refused}");

    plane.stop().await;
    let report = audit::verify(&log, None).unwrap();
    assert!(report.faults.is_empty(), "{report:?}");
    for file in fs::read_dir(&log).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        assert!(!text.contains(&token) && !text.contains("douane-join-"), "no token is written down");
    }
}

#[tokio::test]
async fn t19_what_cannot_be_recorded_is_not_issued() {
    let ground = Ground::new();
    // Each record begins a file of its own: where the folder is away, none can be written.
    let audit = Audit { file_bytes: 1, ..Audit::default() };
    let plane = ground.start_with(Config { audit, ..ground.config() }).await;
    let bundle = ground.state().join("bundle.pem");
    let (log, away) = (ground.state().join("audit"), ground.state().join("away"));
    let ask = async || {
        let (request, _) = request(Evidence::ServiceAccountToken(ground.token("shop", "web")), 60);
        issue(plane.address, &bundle, request).await
    };
    ask().await.unwrap();
    fs::rename(&log, &away).unwrap();
    let refused = ask().await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    fs::rename(&away, &log).unwrap();
    eventually("it goes on by itself", async || ask().await.ok()).await;
    plane.stop().await;
    assert!(audit::verify(&log, None).unwrap().faults.is_empty());
}

#[tokio::test]
async fn the_operator_verifies_and_lists_the_log() {
    let ground = Ground::new();
    let plane = ground.start().await;
    let bundle = ground.state().join("bundle.pem");
    for account in ["web", "orders"] {
        let (request, _) = request(Evidence::ServiceAccountToken(ground.token("shop", account)), 60);
        issue(plane.address, &bundle, request).await.unwrap();
    }
    plane.stop().await;
    let douane = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_douane"));
        let output =
            command.args(["ca", "audit"]).args(args).env("DOUANE_DIR", ground.state()).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (whole, text) = douane(&["verify"]);
    assert!(whole && text.contains("the log is whole; "), "{text}");
    let (_, listed) = douane(&["list", "--identity", "shop/orders", "--since", "1h"]);
    assert_eq!(listed.lines().count(), 1, "{listed}");

    let file = ground.state().join("audit/0000000000000001.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("sa/web", "sa/evil")).unwrap();
    let (whole, text) = douane(&["verify", "-o", "json"]);
    let found: Value = serde_json::from_str(&text).unwrap();
    assert!(!whole && found["whole"] == false && found["faults"][0]["line"] == 3, "{found}");
}
