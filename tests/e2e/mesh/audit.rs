//! The audit log of real sidecars: what was denied and what an AUDIT policy names is in it, and nothing else.

use std::time::Duration;

use douane_tests::wait::eventually;
use serde_json::Value;

use super::{get, lab, yaml};

/// Lines are written by a thread of its own.
const WRITTEN: Duration = Duration::from_secs(60);
const WATCH: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: watch, namespace: town}
spec:
  action: AUDIT
  selector: {matchLabels: {app: answerer}}
  rules:
  - to: [{operation: {paths: [/open/watched]}}]
";

#[test]
fn a_sidecar_tells_denials_and_what_an_audit_policy_names_in_a_file_that_only_it_can_read() {
    let Some(lab) = lab(&[("mesh.yaml", yaml::MESH), ("law.yaml", yaml::LAW), ("watch.yaml", WATCH)]) else {
        return;
    };
    assert!(get(&lab, "asker", "http://answerer/open/door").starts_with("200 "));
    assert!(get(&lab, "asker", "http://answerer/open/watched?token=s3cret").starts_with("200 "));
    assert!(get(&lab, "asker", "http://answerer/closed?token=s3cret").starts_with("403 "));
    assert!(get(&lab, "stranger", "http://answerer/open/door").starts_with("403 "));

    let lines = eventually("three lines are written", WRITTEN, || {
        let lines: Vec<Value> = ["answerer-1", "answerer-2"].iter().flat_map(|pod| lab.audit(pod)).collect();
        if lines.len() >= 3 { Ok(lines) } else { Err(format!("{lines:#?}")) }
    });

    assert_eq!(lines.len(), 3, "what is allowed and not watched is not told: {lines:#?}");
    let find = |peer: &str, path: &str| {
        let peer = format!("spiffe://cluster.local/ns/town/sa/{peer}");
        let found = lines.iter().find(|line| line["peer_id"] == peer && line["path"] == path);
        found.unwrap_or_else(|| panic!("{peer} {path} is not in {lines:#?}"))
    };
    let watched = find("asker", "/open/watched");
    assert_eq!(
        (&watched["decision"], &watched["audited_by"]),
        (&"allow".into(), &"town/watch rule 1".into())
    );
    assert_eq!((&watched["status"], &watched["method"]), (&200.into(), &"GET".into()));
    for (peer, path) in [("asker", "/closed"), ("stranger", "/open/door")] {
        let denied = find(peer, path);
        assert_eq!((&denied["decision"], &denied["status"]), (&"deny".into(), &403.into()), "{denied:#}");
        assert_eq!(denied["policy"], "town/answerer-callers", "{denied:#}");
        assert!(denied["reason"].is_string() && denied["trace_id"].is_string(), "{denied:#}");
    }
    assert!(!Value::from(lines).to_string().contains("s3cret"), "a query is nobody's business");
    let peeked = lab.exec("answerer-1", &["cat", "/run/douane/audit.log"]);
    assert_ne!(peeked.code, 0, "its application does not see it: {peeked:?}");
}
