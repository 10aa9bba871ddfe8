//! Against an API server that knows a few paths and writes down what it is told.

use std::sync::Mutex;

use douane_proto::id::TrustDomain;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Response,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::*;

type Told = Arc<Mutex<Vec<(String, Value)>>>;

// What it holds, by path without a query.
async fn api_server(holds: Value) -> (Client, Told) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let told = Told::default();
    let heard = Arc::clone(&told);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (holds, heard) = (holds.clone(), Arc::clone(&heard));
            let service = service_fn(move |request: Request<Incoming>| {
                let (holds, heard) = (holds.clone(), Arc::clone(&heard));
                async move {
                    let path = request.uri().path().to_owned();
                    let is_patch = request.method() == http::Method::PATCH;
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    if is_patch {
                        heard.lock().unwrap().push((path, serde_json::from_slice(&body).unwrap()));
                        return Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(
                            "{}",
                        ))));
                    }
                    let found = holds.get(&path);
                    let missing = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                        "message": "not found", "reason": "NotFound", "code": 404});
                    let mut answer =
                        Response::new(Full::new(Bytes::from(found.unwrap_or(&missing).to_string())));
                    if found.is_none() {
                        *answer.status_mut() = http::StatusCode::NOT_FOUND;
                    }
                    Ok(answer)
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    let config = kube::Config::new(format!("http://{address}").parse().unwrap());
    (Client::try_from(config).unwrap(), told)
}

const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/douane";

fn cluster(bundle: &str, root: &str) -> Value {
    let webhook = |name: &str| json!({"name": name, "clientConfig": {"caBundle": bundle}});
    json!({
        MUTATING: {"webhooks": [webhook("one"), webhook("two")]},
        "/api/v1/namespaces": {"items": [
            {"metadata": {"name": "shop"}, "status": {"phase": "Active"}},
            {"metadata": {"name": "gone"}, "status": {"phase": "Terminating"}},
        ]},
        "/api/v1/configmaps": {"items": [{"metadata": {"namespace": "shop"}, "data": {"root.pem": root}}]},
    })
}

#[tokio::test]
async fn api_servers_and_namespaces_are_told_of_the_roots_of_now() {
    let (client, told) = api_server(cluster("b2xk", "old")).await;

    tell(&client, "roots of now").await.unwrap();

    let told = told.lock().unwrap().clone();
    let [(webhooks, steps), (map, written)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(webhooks, MUTATING);
    assert_eq!(steps[0], json!({"op": "test", "path": "/webhooks/0/name", "value": "one"}));
    let bundle = STANDARD.encode("roots of now");
    assert_eq!(steps[3], json!({"op": "add", "path": "/webhooks/1/clientConfig/caBundle", "value": bundle}));
    assert_eq!(map, "/api/v1/namespaces/shop/configmaps/douane-root");
    assert_eq!(written["data"], json!({"root.pem": "roots of now"}));
}

#[tokio::test]
async fn who_knows_the_roots_is_told_nothing() {
    let (client, told) = api_server(cluster(&STANDARD.encode("roots"), "roots")).await;

    tell(&client, "roots").await.unwrap();

    assert!(told.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_new_root_is_told_of_at_once() {
    let (client, told) = api_server(cluster("b2xk", "old")).await;
    let domain = TrustDomain::parse("cluster.local").unwrap();
    let bundle = |roots: Vec<Vec<u8>>| Arc::new(TrustBundle::of_roots(domain.clone(), roots));
    let (publish, published) = watch::channel(bundle(vec![vec![1]]));
    let stop = CancellationToken::new();
    let keeping = tokio::spawn(keep_known(client, published, stop.clone()));

    let both = bundle(vec![vec![1], vec![2]]);
    publish.send_replace(Arc::clone(&both));

    let expected = text(&both);
    assert_eq!(expected.matches("BEGIN CERTIFICATE").count(), 2);
    let limit = time::Instant::now() + Duration::from_secs(20);
    let is_told = || told.lock().unwrap().iter().any(|(_, body)| body["data"]["root.pem"] == *expected);
    while !is_told() {
        assert!(time::Instant::now() < limit, "not told of both roots");
        time::sleep(Duration::from_millis(10)).await;
    }
    stop.cancel();
    keeping.await.unwrap();
}
