//! What is told of the law's work: the audit log, and what policies in a dry run would have decided.

use douane_proto::{mesh::Protocol, mtls::MtlsMode, wire};
use http::Request;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::{
    apps::{client1, full, greet_and_echo, http1, mirror, raw},
    pods::{Lines, Shop, eventually, run, vip},
};

fn on_path(name: &str, action: wire::Action, path: &str) -> wire::Policy {
    let operation = wire::Operation { paths: vec![path.to_owned()], ..wire::Operation::default() };
    wire::Policy {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        action: action.into(),
        rules: vec![wire::Rule { to: vec![operation], ..wire::Rule::default() }],
        ..wire::Policy::default()
    }
}

async fn get(shop: &Shop, path: &str) -> u16 {
    let mut client = client1(shop.web.connect(vip()).await).await;
    let request = Request::get(path).header("host", "orders").header("x-secret", "s3cret");
    client.send_request(request.body(full("")).unwrap()).await.unwrap().status().as_u16()
}

/// The lines, once there are as many.
async fn lines(log: &Lines, count: usize) -> Vec<Value> {
    eventually("the lines are written", || log.read().len() >= count).await;
    let lines = log.read();
    assert_eq!(lines.len(), count, "{lines:?}");
    lines
}

#[test]
fn what_an_audit_policy_names_is_told_and_nothing_else_that_is_allowed() {
    run(async {
        let shop = Shop::open(Protocol::Http1, |stream| http1(stream, mirror)).await;
        shop.orders.rule(vec![on_path("watch", wire::Action::Audit, "/admin*")]);

        for path in ["/a", "/admin/keys?token=s3cret"] {
            assert_eq!(get(&shop, path).await, 200);
        }

        let told = &lines(&shop.orders.audit, 1).await[0];
        for (field, expected) in [
            ("kind", "audit"),
            ("decision", "allow"),
            ("audited_by", "shop/watch rule 1"),
            ("peer_id", "spiffe://cluster.local/ns/shop/sa/web"),
            ("local_id", "spiffe://cluster.local/ns/shop/sa/orders"),
            ("method", "GET"),
            ("host", "orders"),
            ("path", "/admin/keys"),
        ] {
            assert_eq!(told[field], expected, "{field}");
        }
        assert_eq!(told["destination"], shop.pod().to_string());
        assert_eq!(told["trace_id"].as_str().unwrap().len(), 32);
        assert!(!told.to_string().contains("s3cret"), "{told}");
        let access = lines(&shop.orders.access, 2).await;
        let of = |path: &str| &access.iter().find(|line| line["path"] == path).unwrap()["audit"];
        assert_eq!((of("/a"), of("/admin/keys")), (&Value::Null, &"shop/watch rule 1".into()));
        assert!(shop.web.audit.read().is_empty(), "the receiver tells");
    });
}

#[test]
fn each_denial_is_told_with_its_policy_and_rule_or_its_reason() {
    run(async {
        let shop = Shop::open(Protocol::Http1, |stream| http1(stream, mirror)).await;
        shop.orders.rule(vec![on_path("no", wire::Action::Deny, "/secret")]);

        assert_eq!(get(&shop, "/secret").await, 403);
        assert_eq!(get(&shop, "/a%00").await, 400);
        let mut plain = shop.orders.knock(shop.pod()).await;
        plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();

        let told = lines(&shop.orders.audit, 3).await;
        let of = |refusal: &str| told.iter().find(|line| line["refusal"] == refusal).unwrap();
        assert!(told.iter().all(|line| line["decision"] == "deny"));
        let denied = of("denied");
        assert_eq!((&denied["policy"], &denied["rule"]), (&"shop/no".into(), &1.into()));
        assert!(denied["reason"].as_str().unwrap().contains("shop/no"), "{denied}");
        assert_eq!(of("bad_request")["status"], 400);
        let plaintext = of("plaintext");
        assert_eq!(plaintext["peer_id"], Value::Null);
        assert!(plaintext["peer_addr"].as_str().unwrap().starts_with("127.0.0.1:"), "{plaintext}");
    });
}

#[test]
fn a_denied_plaintext_stream_is_told_without_an_identity() {
    run(async {
        let shop = Shop::open(Protocol::Tcp, greet_and_echo).await;
        shop.orders.takes(MtlsMode::Permissive);
        let everything =
            wire::Policy { rules: vec![wire::Rule::default()], ..on_path("no", wire::Action::Deny, "/") };
        shop.orders.rule(vec![everything]);

        assert_eq!(raw(&mut shop.orders.knock(shop.pod()).await, b"x", "").await, "");

        let told = &lines(&shop.orders.audit, 1).await[0];
        assert_eq!((&told["peer_id"], &told["policy"]), (&Value::Null, &"shop/no".into()));
        assert_eq!(told.get("method"), None);
    });
}

#[test]
fn a_dry_run_changes_nothing_and_is_told_and_counted() {
    run(async {
        let shop = Shop::open(Protocol::Http1, |stream| http1(stream, mirror)).await;
        let mut trial = on_path("trial", wire::Action::Deny, "/a");
        trial.dry_run = true;
        shop.orders.rule(vec![trial]);

        for path in ["/a", "/b"] {
            assert_eq!(get(&shop, path).await, 200);
        }

        let told = lines(&shop.orders.access, 2).await;
        let of = |path: &str| told.iter().find(|line| line["path"] == path).unwrap();
        assert_eq!(of("/a")["decision"], "allow");
        assert_eq!(of("/a")["dry_run"]["would"], "deny");
        assert_eq!(of("/a")["dry_run"]["policy"], "shop/trial rule 1");
        assert_eq!(of("/b")["dry_run"]["would"], "allow");
        let counts = || shop.orders.metrics().matches("douane_dry_run_decisions_total{").count();
        eventually("both are counted", || counts() == 2).await;
        let metrics = shop.orders.metrics();
        for line in [
            "douane_dry_run_decisions_total{would=\"deny\",policy=\"shop/trial rule 1\"} 1",
            "douane_dry_run_decisions_total{would=\"allow\",policy=\"\"} 1",
        ] {
            assert!(metrics.contains(line), "{line}\nis missing in\n{metrics}");
        }
        assert!(shop.orders.audit.read().is_empty(), "nothing was denied");
    });
}
