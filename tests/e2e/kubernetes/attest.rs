//! Who asks, by the word of a real API server: its own tokens of living pods are taken, every other one is refused with what is
//! wrong with it.

use std::time::{Duration, Instant};

use douane_tests::kubernetes::Cluster;
use tonic::Code;

use super::{
    plane::{LIMIT, Plane, Pod, SHOP, installed, run_pod},
    sidecar,
};

/// What the authority remembers of a token, as its documentation says.
const REMEMBERED: Duration = Duration::from_secs(5);

const WEB: Pod<'_> = Pod {
    namespace: "shop",
    name: "web-1",
    app: "web",
    labels: "",
    sidecar: true,
    port: ("http", 8080),
    addresses: &["10.77.0.10"],
};
const ORDERS: Pod<'_> = Pod { name: "orders-1", app: "orders", addresses: &["10.77.0.11"], ..WEB };

fn bound(cluster: &Cluster, pod: &Pod<'_>) -> String {
    let options = ["--audience", "douane-ca", "--bound-object-kind", "Pod", "--bound-object-name", pod.name];
    cluster.token(pod.namespace, pod.app, &options)
}

// Asks until the answer has this code; the message of the first that has.
async fn until(plane: &Plane, token: &str, code: Code) -> (String, Duration) {
    let began = Instant::now();
    loop {
        let answer = sidecar::svid(plane.grpc, &plane.bundle(), token.to_owned()).await;
        let (said, message) = match answer {
            Ok(_) => (Code::Ok, String::new()),
            Err(status) => (status.code(), status.message().to_owned()),
        };
        if said == code {
            return (message, began.elapsed());
        }
        assert!(began.elapsed() < LIMIT, "still {said:?} ({message}), not {code:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real Kubernetes API server: tests/kubernetes/run"]
async fn t3_only_tokens_of_living_pods_attest_and_an_api_server_that_is_away_accepts_nobody() {
    let mut cluster = installed();
    let said = cluster.kubectl(&["apply", "-f", &format!("{SHOP}/namespaces.yaml")]);
    assert!(said.ok, "{}", said.err);
    run_pod(&cluster, &WEB);
    run_pod(&cluster, &ORDERS);
    let plane = Plane::start(&cluster).await;
    plane.is_ready();
    let refused = async |token: String| {
        let status = sidecar::svid(plane.grpc, &plane.bundle(), token).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
        status.message().to_owned()
    };

    // A living pod's.
    let web = bound(&cluster, &WEB);
    let svid = sidecar::svid(plane.grpc, &plane.bundle(), web.clone()).await.unwrap();
    assert_eq!(svid.leaf.id.to_string(), "spiffe://cluster.local/ns/shop/sa/web");

    // Of the same account, and not for us, or of no pod.
    let other = ["--bound-object-kind", "Pod", "--bound-object-name", "web-1"];
    let said = refused(cluster.token("shop", "web", &other)).await;
    assert!(said.contains("audience"), "{said}");
    let said = refused(cluster.token("shop", "web", &["--audience", "douane-ca"])).await;
    assert!(said.contains("bound to no pod"), "{said}");

    // A pod that has ended, one that is gone, and one that was made anew under its name.
    let orders = bound(&cluster, &ORDERS);
    cluster.set_status("shop", "pod/orders-1", &serde_json::json!({"phase": "Succeeded"}));
    let said = refused(orders).await;
    assert!(said.contains("the pod shop/orders-1 has ended"), "{said}");
    until(&plane, &web, Code::Ok).await;
    let fresh = bound(&cluster, &WEB);
    cluster.delete("shop", "pod/web-1");
    let said = refused(fresh.clone()).await;
    assert!(said.contains("the pod shop/web-1 is gone") || said.contains("TokenReview"), "{said}");
    let (said, after) = until(&plane, &web, Code::Unauthenticated).await;
    eprintln!(
        "a token that was good a moment before was refused {after:?} after its pod was deleted: {said}"
    );
    assert!(after < REMEMBERED + Duration::from_secs(5), "{after:?}");
    run_pod(&cluster, &WEB);
    until(&plane, &fresh, Code::Unauthenticated).await;

    // Without an API server nobody is accepted, nor is anybody told that the fault is theirs.
    let web = bound(&cluster, &WEB);
    until(&plane, &web, Code::Ok).await;
    cluster.kill();
    let (said, _) = until(&plane, &web, Code::Unavailable).await;
    assert!(said.contains("API server"), "{said}");
    cluster.restart();
    until(&plane, &web, Code::Ok).await;

    let page = plane.page("/metrics");
    for label in ["unbound", "token", "pod_ended", "review_away"] {
        assert!(page.contains(&format!("\"{label}\"")), "{label} is counted: {page}");
    }
    plane.stop().await;
}
