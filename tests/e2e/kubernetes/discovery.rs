//! The mesh of a real API: who is where, what is pushed, what outlives the API server.

use std::time::Instant;

use douane_proto::{
    mesh::Dialect,
    snapshot::{Found, Question, Snapshot},
};
use douane_tests::{kubernetes::Cluster, wait::eventually};

use super::{
    plane::{LIMIT, Plane, Pod, SHOP, define, installed, run_pod},
    sidecar::Watch,
};

const WEB: Pod<'_> = Pod {
    namespace: "shop",
    name: "web-1",
    app: "web",
    labels: ", douane.io/inject: enabled",
    sidecar: true,
    port: ("http", 8080),
    addresses: &["10.77.0.10", "fd77::10"],
};
const ORDERS: Pod<'_> = Pod { name: "orders-1", app: "orders", addresses: &["10.77.0.11"], ..WEB };
const LEDGER: Pod<'_> =
    Pod { name: "ledger-1", app: "ledger", port: ("tcp", 7000), addresses: &["10.77.0.12"], ..WEB };
/// It asks for a sidecar and was let in without one.
const MISSED: Pod<'_> =
    Pod { name: "missed-1", app: "missed", sidecar: false, addresses: &["10.77.0.13"], ..WEB };

fn address(text: &str) -> Question {
    Question::Address(text.parse().unwrap())
}

fn host(text: &str) -> Question {
    Question::Host(text.to_owned())
}

fn shop(cluster: &Cluster) {
    let file = |name: &str| format!("{SHOP}/{name}.yaml");
    for arguments in [["apply", "-f", &file("namespaces")], ["apply", "-f", SHOP]] {
        let said = cluster.kubectl(&arguments);
        assert!(said.ok, "{}", said.err);
    }
    for pod in [&WEB, &ORDERS, &LEDGER, &MISSED] {
        run_pod(cluster, pod);
    }
}

fn endpoints(snapshot: &Snapshot, question: &Question) -> Vec<String> {
    match snapshot.answers.get(question) {
        Some(Found::Service(service)) => {
            service.endpoints.iter().map(|endpoint| endpoint.workload.key()).collect()
        }
        _ => Vec::new(),
    }
}

fn dialect(found: &Found) -> Dialect {
    match found {
        Found::Workload(workload) => workload.dialect,
        other => panic!("a workload, not {other:?}"),
    }
}

async fn sidecar(plane: &Plane, cluster: &Cluster, pod: &Pod<'_>) -> Watch {
    let svid = plane.svid(cluster, pod.namespace, pod.name, pod.app).await;
    plane.watch(&svid, &format!("{}/{}", pod.namespace, pod.name)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real Kubernetes API server: tests/kubernetes/run"]
async fn the_objects_of_an_api_are_the_mesh_and_its_changes_are_pushed() {
    let cluster = installed();
    shop(&cluster);
    let plane = Plane::start(&cluster).await;
    plane.is_ready();
    let mut web = sidecar(&plane, &cluster, &WEB).await;
    let mut ledger = sidecar(&plane, &cluster, &LEDGER).await;

    // Who is where.
    assert_eq!(web.snapshot.own.id.to_string(), "spiffe://cluster.local/ns/shop/sa/web");
    let orders = host("orders.shop");
    let Found::Service(service) = web.ask(&orders).await else { panic!("a service") };
    let cluster_ip = cluster.get("shop", "service/orders")["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert_eq!(service.addresses, [cluster_ip.parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(endpoints(&web.snapshot, &orders), ["shop/orders-1"]);
    assert_eq!(dialect(&web.ask(&address("10.77.0.11")).await), Dialect::Douane1);
    assert_eq!(dialect(&web.ask(&address("fd77::10")).await), Dialect::Douane1, "its second family");
    assert_eq!(dialect(&web.ask(&address("10.77.0.13")).await), Dialect::Plain, "a label is no sidecar");
    assert_eq!(ledger.policies(), ["shop/deny-by-default", "shop/ledger"]);
    assert_eq!(web.ask(&address("10.77.0.99")).await, Found::Unknown);

    // A change of the law.
    let began = Instant::now();
    cluster.apply(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: ledger-night, namespace: shop}\n\
         spec: {selector: {matchLabels: {app: ledger}}, action: DENY, rules: [{to: [{operation: {ports: ['7001']}}]}]}\n",
    );
    ledger.until_governed(&["shop/deny-by-default", "shop/ledger", "shop/ledger-night"]).await;
    eprintln!("a new policy was pushed {:?} after kubectl began", began.elapsed());
    cluster.delete("shop", "authorizationpolicy/ledger-night");
    ledger.until_governed(&["shop/deny-by-default", "shop/ledger"]).await;

    // A new pod behind the service; one that is about to end takes no new traffic; one that is gone is gone.
    run_pod(&cluster, &Pod { name: "orders-2", addresses: &["10.77.0.99"], ..ORDERS });
    web.until("the second pod", |now| endpoints(now, &orders) == ["shop/orders-1", "shop/orders-2"]).await;
    cluster.set_status(
        "shop",
        "pod/orders-1",
        &serde_json::json!({"conditions": [{"type": "Ready", "status": "False"}]}),
    );
    web.until("the first is not ready", |now| match &now.answers[&orders] {
        Found::Service(service) => service.endpoints.iter().any(|endpoint| !endpoint.workload.ready),
        _ => false,
    })
    .await;
    cluster.delete("shop", "pod/orders-1");
    web.until("the first is gone", |now| endpoints(now, &orders) == ["shop/orders-2"]).await;
    web.until("its address, too", |now| now.answers[&address("10.77.0.11")] == Found::Unknown).await;

    // Its address is somebody else's now.
    run_pod(&cluster, &Pod { name: "later-1", app: "later", addresses: &["10.77.0.11"], ..ORDERS });
    web.until("the next who has its address", |now| match &now.answers[&address("10.77.0.11")] {
        Found::Workload(workload) => workload.id.service_account() == "later",
        _ => false,
    })
    .await;
    assert_eq!(plane.status()["errors"].as_array().map(Vec::len), Some(0), "{}", plane.status());
    plane.stop().await;
}

// Here nobody writes them: the API server would name loopback.
fn api_servers(conditions: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: kubernetes, namespace: default, labels: \
         {{kubernetes.io/service-name: kubernetes}}}}\naddressType: IPv4\n\
         ports: [{{name: https, port: 6443, protocol: TCP}}]\n\
         endpoints: [{{addresses: [172.18.0.2]}}, {{addresses: [172.18.0.3], conditions: {{{conditions}}}}}]\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real Kubernetes API server: tests/kubernetes/run"]
async fn the_api_server_s_own_service_leads_to_it_from_within_the_mesh() {
    let cluster = installed();
    shop(&cluster);
    cluster.apply(&api_servers("ready: true"));
    cluster.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: elsewhere, namespace: shop}\n\
         spec: {type: ExternalName, externalName: db.example.com}\n",
    );
    let plane = Plane::start(&cluster).await;
    plane.is_ready();
    let mut web = sidecar(&plane, &cluster, &WEB).await;
    let service = cluster.get("default", "service/kubernetes");
    let question = address(service["spec"]["clusterIP"].as_str().unwrap());

    let Found::Service(found) = web.ask(&question).await else { panic!("a service") };
    assert_eq!(endpoints(&web.snapshot, &question), ["default/172.18.0.2", "default/172.18.0.3"]);
    let endpoint = &found.endpoints[0];
    assert_eq!((endpoint.workload.dialect, endpoint.targets[&443]), (Dialect::Plain, 6443));
    assert_eq!(dialect(&web.ask(&address("172.18.0.2")).await), Dialect::Plain, "by its own address, too");

    cluster.apply(&api_servers("ready: false, serving: true, terminating: true"));
    web.until("who is about to end takes nothing new", |now| {
        endpoints(now, &question) == ["default/172.18.0.2"]
    })
    .await;
    let status = plane.status();
    assert_eq!(status["errors"], serde_json::json!([]), "{status}");
    let warnings = status["warnings"].to_string();
    assert!(warnings.contains("shop/elsewhere is of type ExternalName"), "{warnings}");
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real Kubernetes API server: tests/kubernetes/run"]
async fn an_api_server_that_goes_away_takes_nothing_with_it_and_is_followed_again() {
    let mut cluster = installed();
    shop(&cluster);
    let plane = Plane::start(&cluster).await;
    plane.is_ready();
    let mut web = sidecar(&plane, &cluster, &WEB).await;
    let svid = plane.svid(&cluster, "shop", "orders-1", "orders").await;
    let orders = host("orders.shop");
    web.ask(&orders).await;

    cluster.kill();
    eventually("the control plane says so", LIMIT, || {
        let status = plane.status();
        let troubles = status["troubles"].as_array().map_or(0, Vec::len);
        if troubles > 0 { Ok(()) } else { Err(status.to_string()) }
    });
    let figures = plane.page("/metrics");
    assert!(!figures.contains("douane_ca_resource_errors 0"), "{figures}");
    // What was known last stays in force: also for a sidecar that comes only now.
    assert_eq!(plane.page("/readyz"), "ready\n");
    let late = plane.watch(&svid, "shop/orders-1").await;
    assert!(late.policies().contains(&"shop/deny-by-default".to_owned()), "{:?}", late.policies());
    assert_eq!(endpoints(&web.snapshot, &orders), ["shop/orders-1"]);

    cluster.restart();
    let back = Instant::now();
    // While nobody looked, as far as the control plane can know.
    cluster.delete("shop", "pod/orders-1");
    web.until("what was deleted is gone", |now| endpoints(now, &orders).is_empty()).await;
    eventually("nothing is wrong any more", LIMIT, || {
        let status = plane.status();
        let troubles = status["troubles"].as_array().map_or(1, Vec::len);
        if troubles == 0 { Ok(()) } else { Err(status.to_string()) }
    });
    eprintln!("followed again {:?} after the API server was ready", back.elapsed());
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real Kubernetes API server: tests/kubernetes/run"]
async fn what_was_deleted_while_nobody_watched_is_gone_and_kinds_that_come_later_are_found() {
    // Nobody installed Istio's kinds yet: that is no error.
    let cluster = Cluster::start();
    super::plane::admit(&cluster);
    cluster.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n");
    run_pod(&cluster, &LEDGER);
    let plane = Plane::start(&cluster).await;
    plane.is_ready();
    let mut ledger = sidecar(&plane, &cluster, &LEDGER).await;
    assert!(ledger.policies().is_empty(), "{:?}", ledger.policies());
    assert_eq!(plane.status()["troubles"].as_array().map(Vec::len), Some(0), "{}", plane.status());

    define(&cluster);
    cluster.apply(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: nothing, namespace: shop}\nspec: {}\n",
    );
    ledger.until_governed(&["shop/nothing"]).await;

    // A definition that is removed takes what it held with it.
    let said = cluster.kubectl(&["delete", "crd", "authorizationpolicies.security.istio.io"]);
    assert!(said.ok, "{}", said.err);
    ledger.until_governed(&[]).await;
    plane.stop().await;
}
