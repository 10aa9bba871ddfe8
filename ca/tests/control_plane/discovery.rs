//! Discovery: who may watch, what comes first, what is pushed, and what broken files do.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use douane_proto::{
    mesh::{Dialect, Protocol},
    snapshot::{Found, Question},
};
use tonic::Code;

use crate::{
    plane::{Ground, Plane, eventually},
    sidecar::{Watch, svid},
};

pub(crate) const PODS: &str = "
apiVersion: v1
kind: Pod
metadata:
  name: web-1
  namespace: shop
  labels: {app: web, douane.io/inject: enabled}
  ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: web, uid: x}]
spec:
  serviceAccountName: web
  containers: [{name: web, image: x}]
status: {podIP: 10.77.0.10, podIPs: [{ip: 10.77.0.10}, {ip: 'fd77::10'}]}
---
apiVersion: v1
kind: Pod
metadata:
  name: orders-1
  namespace: shop
  labels: {app: orders, douane.io/inject: enabled}
spec:
  serviceAccountName: orders
  containers: [{name: orders, image: x, ports: [{name: api, containerPort: 8080}]}]
status: {podIP: 10.77.0.11}
---
apiVersion: v1
kind: Service
metadata: {name: orders, namespace: shop}
spec:
  clusterIP: 10.96.0.7
  selector: {app: orders}
  ports: [{name: http, port: 80, targetPort: api}]
";

const ALLOW_WEB: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: orders, namespace: shop}
spec:
  selector: {matchLabels: {app: orders}}
  rules:
    - from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]
";

pub(crate) async fn watch(ground: &Ground, plane: &Plane, account: &str) -> Watch {
    let bundle = ground.state().join("bundle.pem");
    let svid = svid(plane.address, &bundle, ground.token("shop", account)).await;
    Watch::open(plane.address, &bundle, Some(&svid), &format!("shop/{account}-1")).await.unwrap()
}

fn ground() -> Ground {
    let ground = Ground::new();
    ground.write("pods.yaml", PODS);
    ground.write("law.yaml", ALLOW_WEB);
    ground
}

#[tokio::test]
async fn the_first_delta_is_the_whole_of_what_concerns_the_pod() {
    let ground = ground();
    let plane = ground.start().await;
    let watch = watch(&ground, &plane, "orders").await;
    assert!(watch.last.full);
    assert_eq!(watch.last.sequence, 1);
    assert_eq!(watch.policies(), ["shop/orders"]);
    assert!(watch.last.answers.is_empty());
    let policy = &watch.last.policies.as_ref().unwrap().policies[0];
    assert_eq!(policy.requires, [douane_proto::features::POLICY_V1]);
    assert_eq!(watch.last.bundle.as_ref().unwrap().roots.len(), 1);
    let snapshot = watch.snapshot.as_ref().unwrap();
    assert_eq!(snapshot.own.key(), "shop/orders-1");
    assert_eq!(snapshot.own.protocol(8080), Protocol::Http1, "by the service's port name");
    assert_eq!(snapshot.mesh.root_namespace, "istio-system");
    plane.stop().await;
}

#[tokio::test]
async fn who_proves_no_identity_or_another_one_watches_nothing() {
    let ground = ground();
    let plane = ground.start().await;
    let bundle = ground.state().join("bundle.pem");
    let stranger = Watch::open(plane.address, &bundle, None, "shop/orders-1").await.map(drop).unwrap_err();
    assert_eq!(stranger.code(), Code::Unauthenticated);
    let web = svid(plane.address, &bundle, ground.token("shop", "web")).await;
    let thief = Watch::open(plane.address, &bundle, Some(&web), "shop/orders-1").await.map(drop).unwrap_err();
    assert_eq!(thief.code(), Code::PermissionDenied);

    // A valid certificate of another authority is refused in the handshake.
    let elsewhere = Ground::new();
    let other = elsewhere.start().await;
    let foreign =
        svid(other.address, &elsewhere.state().join("bundle.pem"), elsewhere.token("shop", "orders")).await;
    let refused = Watch::open(plane.address, &bundle, Some(&foreign), "shop/orders-1").await;
    assert!(refused.is_err());
    other.stop().await;
    plane.stop().await;
}

#[tokio::test]
async fn what_a_sidecar_has_learned_of_its_own_ports_is_pushed_to_those_who_watch_it() {
    let ground = ground();
    ground.write(
        "db.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: db-1, namespace: shop, labels: {douane.io/inject: enabled}}\n\
         spec: {serviceAccountName: db, containers: [{name: db, image: x}]}\nstatus: {podIP: 10.77.0.12}\n",
    );
    let plane = ground.start().await;
    let mut web = watch(&ground, &plane, "web").await;
    let db = watch(&ground, &plane, "db").await;
    let orders = Question::Address("10.77.0.11".parse().unwrap());
    let of_db = Question::Address("10.77.0.12".parse().unwrap());
    web.ask(orders.clone()).await;
    web.ask(of_db.clone()).await;
    let learned = |found: Found| match found {
        Found::Workload(workload) => workload.learned.clone(),
        other => panic!("a pod, not {other:?}"),
    };

    db.tell(&[(3306, Protocol::Tcp)]).await;
    web.next().await.unwrap();
    assert_eq!(learned(web.found(&of_db)), BTreeMap::from([(3306, Protocol::Tcp)]));
    assert!(learned(web.found(&orders)).is_empty(), "its word holds for its own ports only");

    db.tell(&[(3306, Protocol::Http1)]).await;
    web.next().await.unwrap();
    assert!(learned(web.found(&of_db)).is_empty(), "of a port that speaks this and that nothing is known");
    plane.stop().await;
}

#[tokio::test]
async fn what_is_asked_is_answered_and_its_changes_are_pushed() {
    let ground = ground();
    let plane = ground.start().await;
    let mut web = watch(&ground, &plane, "web").await;

    let service = Question::Address("10.96.0.7".parse().unwrap());
    let Found::Service(orders) = web.ask(service.clone()).await else { panic!("a service") };
    assert_eq!(orders.hosts[0], "orders.shop.svc.cluster.local");
    assert_eq!(orders.port(80).unwrap().protocol, Protocol::Http1);
    assert_eq!(orders.endpoints[0].targets[&80], 8080);
    assert_eq!(orders.endpoints[0].workload.dialect, Dialect::Douane1);
    for host in ["orders", "orders.shop", "orders.shop.svc", "ORDERS.shop.svc.cluster.local"] {
        assert!(
            matches!(web.ask(Question::Host(host.to_ascii_lowercase())).await, Found::Service(_)),
            "{host}"
        );
    }
    let unknown = Question::Host("api.example.com".to_owned());
    assert_eq!(web.ask(unknown.clone()).await, Found::Unknown);

    // What nobody of this stream asked for is not pushed; what it watches is.
    ground.write(
        "outside.yaml",
        "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: shop}
spec:
  hosts: [api.example.com]
  addresses: [192.0.2.7]
  ports: [{number: 443, name: tls, protocol: TLS}]
  resolution: STATIC
",
    );
    web.next().await.unwrap();
    assert_eq!(web.last.answers.len(), 1);
    let Found::External(api) = web.found(&unknown) else { panic!("an outside host") };
    assert_eq!(api.port(443).unwrap().protocol, Protocol::Tcp);

    ground.write("more.yaml", &PODS_MORE.replace("NAME", "orders-2").replace("ADDRESS", "10.77.0.12"));
    loop {
        web.next().await.unwrap();
        let Found::Service(orders) = web.found(&service) else { panic!("a service") };
        if orders.endpoints.len() == 2 {
            break;
        }
    }
    plane.stop().await;
}

const PODS_MORE: &str = "
apiVersion: v1
kind: Pod
metadata: {name: NAME, namespace: shop, labels: {app: orders, douane.io/inject: enabled}}
spec: {serviceAccountName: orders, containers: [{name: orders, image: x, ports: [{name: api, containerPort: 8080}]}]}
status: {podIP: ADDRESS}
";

#[tokio::test]
async fn an_edited_policy_reaches_the_sidecar_within_a_second() {
    let ground = ground();
    let plane = ground.start().await;
    let mut orders = watch(&ground, &plane, "orders").await;
    // A machine that others keep busy may be late with one of them.
    let mut took = Vec::new();
    for (account, sequence) in ["till", "kiosk", "desk", "van", "fair"].iter().zip(2..) {
        let started = Instant::now();
        ground.write("law.yaml", &ALLOW_WEB.replace("sa/web", &format!("sa/{account}")));
        orders.next().await.unwrap();
        took.push(started.elapsed());
        assert!(!orders.last.full);
        assert_eq!(orders.last.sequence, sequence);
        let policy = &orders.last.policies.as_ref().unwrap().policies[0];
        assert_eq!(policy.rules[0].from[0].principals, [format!("cluster.local/ns/shop/sa/{account}")]);
    }
    assert!(took.iter().any(|took| *took < Duration::from_secs(1)), "{took:?}");

    ground.write(
        "deny.yaml",
        &ALLOW_WEB.replace("name: orders", "name: nobody").replace("spec:", "spec:\n  action: DENY"),
    );
    orders.next().await.unwrap();
    assert_eq!(orders.policies().len(), 2);
    plane.stop().await;
}

#[tokio::test]
async fn a_broken_file_changes_nothing_and_is_reported_with_its_line() {
    let ground = ground();
    let plane = ground.start().await;
    let mut orders = watch(&ground, &plane, "orders").await;
    let cases = [
        ("rules: [", "law.yaml:"),
        ("", "law.yaml:"),
        (&ALLOW_WEB[..ALLOW_WEB.len() - 40], "law.yaml:"),
        (&ALLOW_WEB.replace("rules", "rulez"), "law.yaml:7"),
        (&ALLOW_WEB.replace("selector:", "action: DENIES\n  selector:"), "law.yaml:6"),
    ];
    for (text, place) in cases {
        ground.write("law.yaml", text);
        eventually("the error is reported", async || {
            let status = plane.page("/status").await;
            (status.contains(place) && !status.contains(r#""errors":[]"#)).then_some(())
        })
        .await;
        eventually("it is counted", async || {
            plane.page("/metrics").await.contains("douane_ca_resource_errors 1").then_some(())
        })
        .await;
        ground.write("law.yaml", ALLOW_WEB);
        eventually("it is mended", async || {
            plane.page("/status").await.contains(r#""errors":[]"#).then_some(())
        })
        .await;
    }
    assert!(orders.is_silent(Duration::from_millis(700)).await, "the law never changed");
    plane.stop().await;
}

#[tokio::test]
async fn only_a_lasting_removal_removes() {
    let ground = ground();
    let plane = ground.start().await;
    let mut orders = watch(&ground, &plane, "orders").await;
    let started = Instant::now();
    fs::remove_file(ground.mesh().join("law.yaml")).unwrap();
    orders.next().await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(500), "{:?}", started.elapsed());
    assert_eq!(orders.last.policies.as_ref().unwrap().policies.len(), 0);
    plane.stop().await;
}

#[tokio::test]
async fn an_empty_folder_in_the_place_of_one_with_files_removes_nothing() {
    let ground = ground();
    let plane = ground.start().await;
    let orders = watch(&ground, &plane, "orders").await;
    assert_eq!(orders.policies(), ["shop/orders"]);
    // As when a volume is unmounted: the mount point stays.
    let away = ground.home.path().join("away");
    fs::rename(ground.mesh(), &away).unwrap();
    fs::create_dir(ground.mesh()).unwrap();
    let said =
        async |plane: &Plane| plane.page("/status").await.contains("a volume not mounted").then_some(());
    eventually("the empty folder is an error", async || said(&plane).await).await;
    plane.stop().await;

    // Nor does a restart meanwhile.
    let plane = ground.start().await;
    eventually("it is an error again", async || said(&plane).await).await;
    let orders = watch(&ground, &plane, "orders").await;
    assert_eq!(orders.policies(), ["shop/orders"]);

    // In the folder that is known, the last file may be removed like any other.
    fs::remove_dir(ground.mesh()).unwrap();
    fs::rename(&away, ground.mesh()).unwrap();
    eventually("all is well", async || plane.page("/status").await.contains("\"errors\":[]").then_some(()))
        .await;
    fs::remove_file(ground.mesh().join("law.yaml")).unwrap();
    fs::remove_file(ground.mesh().join("pods.yaml")).unwrap();
    eventually("all is gone", async || plane.page("/status").await.contains("\"objects\":0").then_some(()))
        .await;
    plane.stop().await;
}

#[tokio::test]
async fn a_link_that_leads_nowhere_removes_nothing() {
    let ground = ground();
    let target = ground.home.path().join("target.yaml");
    fs::rename(ground.mesh().join("law.yaml"), &target).unwrap();
    std::os::unix::fs::symlink(&target, ground.mesh().join("law.yaml")).unwrap();
    let plane = ground.start().await;
    fs::remove_file(&target).unwrap();
    let told = "a link that leads nowhere";
    eventually("it is an error", async || plane.page("/status").await.contains(told).then_some(())).await;
    let orders = watch(&ground, &plane, "orders").await;
    assert_eq!(orders.policies(), ["shop/orders"]);
    plane.stop().await;
}

#[tokio::test]
async fn the_last_good_law_survives_a_restart_with_a_broken_file() {
    let ground = ground();
    let plane = ground.start().await;
    let before = watch(&ground, &plane, "orders").await;
    plane.stop().await;
    ground.write("law.yaml", "kind: [");
    let plane = ground.start().await;
    let after = watch(&ground, &plane, "orders").await;
    assert_eq!(after.last.policies, before.last.policies);
    assert_ne!(after.last.epoch, before.last.epoch);
    plane.stop().await;
}

#[tokio::test]
async fn a_law_that_was_never_readable_denies_what_it_names() {
    let ground = ground();
    ground.write("law.yaml", &ALLOW_WEB.replace("rules", "rulez"));
    let plane = ground.start().await;
    let orders = watch(&ground, &plane, "orders").await;
    let policy = &orders.last.policies.as_ref().unwrap().policies[0];
    assert_eq!(policy.action(), douane_proto::wire::Action::Deny);
    assert_eq!(policy.rules.len(), 1, "one rule that matches everything");
    let web = watch(&ground, &plane, "web").await;
    assert!(web.last.policies.as_ref().unwrap().policies.is_empty(), "its selector names orders only");
    plane.stop().await;
}

#[tokio::test]
async fn a_law_of_which_nothing_is_readable_stops_everybody_until_it_is_mended() {
    let ground = ground();
    ground.write("law.yaml", "[");
    let plane = ground.start().await;
    assert!(plane.page("/readyz").await.starts_with("HTTP/1.1 503"));
    let mut opening = Box::pin(watch(&ground, &plane, "orders"));
    let early = tokio::time::timeout(Duration::from_millis(700), &mut opening).await;
    assert!(early.is_err(), "nothing is served");
    ground.write("law.yaml", ALLOW_WEB);
    let orders = opening.await;
    assert_eq!(orders.policies(), ["shop/orders"]);
    plane.stop().await;
}

#[tokio::test]
async fn a_sidecar_that_comes_before_its_pod_is_told_once_the_pod_is_known() {
    let ground = Ground::new();
    let plane = ground.start().await;
    let mut opening = Box::pin(watch(&ground, &plane, "orders"));
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut opening).await.is_err());
    ground.write("pods.yaml", PODS);
    let orders = opening.await;
    assert_eq!(orders.snapshot.unwrap().own.name, "orders-1");
    plane.stop().await;
}

#[tokio::test]
async fn a_new_file_that_is_broken_changes_nothing_not_even_after_a_restart() {
    let ground = ground();
    let plane = ground.start().await;
    ground.write("half.yaml", "kind: AuthorizationPolicy\n");
    eventually("the error is reported", async || {
        plane.page("/status").await.contains("half.yaml:1").then_some(())
    })
    .await;
    let orders = watch(&ground, &plane, "orders").await;
    assert_eq!(orders.policies(), ["shop/orders"]);
    plane.stop().await;
    let plane = ground.start().await;
    assert!(plane.page("/status").await.contains("half.yaml:1"));
    let orders = watch(&ground, &plane, "orders").await;
    assert_eq!(orders.policies(), ["shop/orders"]);
    plane.stop().await;
}
