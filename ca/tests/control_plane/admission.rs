//! The admission webhook as an API server sees it: real TLS by our bundle and a DNS name, questions of the shape that
//! kube-apiserver sends.

use std::{io, net::SocketAddr, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use douane_ca::{
    admin::{Command as Order, call},
    config::{Config, Injection, Webhook},
    state::StateFolder,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::plane::{Ground, Plane, eventually};

const SERVICE: &str = "douane-ca.douane-system.svc";
const UID: &str = "705ab4f5-6393-11e8-b7cc-42010a800002";

fn config(ground: &Ground) -> Config {
    Config {
        webhook: Some(Webhook { listen: "127.0.0.1:0".parse().unwrap() }),
        injection: Injection { image: "registry.example/douane-proxy:1".to_owned(), ..Injection::default() },
        ..ground.config()
    }
}

fn roots(ground: &Ground) -> Vec<CertificateDer<'static>> {
    let file = ground.state().join("bundle.pem");
    CertificateDer::pem_file_iter(file).unwrap().map(Result::unwrap).collect()
}

// As Go's client does: the roots of the caBundle, and the service's DNS name.
async fn connect(
    address: SocketAddr,
    name: &'static str,
    roots: Vec<CertificateDer<'static>>,
) -> io::Result<TlsStream<TcpStream>> {
    let mut store = RootCertStore::empty();
    roots.into_iter().for_each(|root| store.add(root).unwrap());
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name).unwrap(), stream).await
}

async fn post(plane: &Plane, ground: &Ground, path: &str, body: &[u8]) -> (String, String) {
    let mut stream = connect(plane.webhook.unwrap(), SERVICE, roots(ground)).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {SERVICE}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: \
         close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // Whoever is refused early may find the door closed.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.to_owned(), body.to_owned())
}

fn review(kind: &str, group: &str, object: &Value) -> Value {
    json!({
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": UID,
            "kind": {"group": group, "version": "v1", "kind": kind},
            "resource": {"group": group, "version": "v1", "resource": "things"},
            "requestKind": {"group": group, "version": "v1", "kind": kind},
            "namespace": "shop",
            "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller", "groups": ["system:authenticated"]},
            "object": object,
            "oldObject": null,
            "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    })
}

async fn asked(plane: &Plane, ground: &Ground, path: &str, review: &Value) -> Value {
    let (head, body) = post(plane, ground, path, review.to_string().as_bytes()).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}\n{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["kind"], "AdmissionReview");
    assert_eq!(answer["response"]["uid"], UID);
    answer["response"].clone()
}

fn pod(change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = json!({
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"generateName": "web-6f7-", "labels": {"app": "web"}, "uid": "1", "managedFields": [{"manager": "x"}]},
        "spec": {
            "containers": [{
                "name": "web",
                "image": "web:1",
                "readinessProbe": {"httpGet": {"path": "/", "port": 8080, "scheme": "HTTP"}, "timeoutSeconds": 1},
                "fieldOfTheFuture": 1,
            }],
            "restartPolicy": "Always",
        },
    });
    change(&mut pod);
    pod
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_gets_its_sidecar_by_a_patch_of_what_changed() {
    let ground = Ground::new();
    let plane = ground.start_with(config(&ground)).await;

    let answer = asked(&plane, &ground, "/inject", &review("Pod", "", &pod(|_| {}))).await;

    assert_eq!(answer["allowed"], true);
    assert_eq!(answer["patchType"], "JSONPatch");
    let patch = STANDARD.decode(answer["patch"].as_str().unwrap()).unwrap();
    let patch: Vec<Value> = serde_json::from_slice(&patch).unwrap();
    let step = |path: &str| patch.iter().find(|step| step["path"] == path).unwrap().clone();
    let first = step("/spec/initContainers");
    assert_eq!(first["op"], "add");
    assert_eq!(first["value"][0]["name"], "douane-redirect");
    assert_eq!(first["value"][1]["restartPolicy"], "Always");
    assert_eq!(step("/metadata/labels/douane.io~1inject")["value"], "enabled");
    assert_eq!(step("/spec/containers")["value"][0]["fieldOfTheFuture"], 1);
    assert!(!patch.iter().any(|step| step["path"].as_str().unwrap().contains("managedFields")));
    eventually("it is counted", async || {
        let page = plane.page("/metrics").await;
        page.contains("douane_ca_admissions_total{outcome=\"injected\"} 1").then_some(())
    })
    .await;
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_passed_over_is_told_why_and_a_refused_one_is_refused() {
    let ground = Ground::new();
    let plane = ground.start_with(config(&ground)).await;

    let skipped = pod(|pod| pod["spec"]["hostNetwork"] = true.into());
    let answer = asked(&plane, &ground, "/inject", &review("Pod", "", &skipped)).await;
    assert_eq!(answer["allowed"], true);
    assert!(answer.get("patch").is_none());
    assert!(answer["warnings"][0].as_str().unwrap().contains("hostNetwork"), "{answer}");

    let refused = pod(|pod| pod["metadata"]["annotations"] = json!({"douane.io/skip-inbound-ports": "22"}));
    let answer = asked(&plane, &ground, "/inject", &review("Pod", "", &refused)).await;
    assert_eq!(answer["allowed"], false);
    assert!(answer["status"]["message"].as_str().unwrap().contains("injection.exclusions"), "{answer}");

    let other = asked(&plane, &ground, "/inject", &review("ConfigMap", "", &json!({}))).await;
    assert_eq!(other["allowed"], false, "what is not understood is not let in");
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_that_lint_calls_errors_are_rejected_and_its_warnings_are_shown() {
    let ground = Ground::new();
    let plane = ground.start_with(config(&ground)).await;
    let policy = |spec: Value| {
        let object = json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": "api", "namespace": "shop", "uid": "1", "creationTimestamp": "2026-11-23T10:00:00Z",
                "generation": 1, "managedFields": [{"manager": "kubectl"}]},
            "spec": spec,
        });
        review("AuthorizationPolicy", "security.istio.io", &object)
    };
    let sound = json!({"action": "ALLOW", "rules": [{"to": [{"operation": {"paths": ["/orders"]}}]}]});
    let answer = asked(&plane, &ground, "/validate", &policy(sound)).await;
    assert_eq!((&answer["allowed"], answer.get("warnings")), (&json!(true), None), "{answer}");

    let misspelt = json!({"action": "ALOW", "rules": []});
    let answer = asked(&plane, &ground, "/validate", &policy(misspelt)).await;
    assert_eq!(answer["allowed"], false);
    let said = answer["status"]["message"].as_str().unwrap();
    assert!(said.starts_with("douane: ") && said.contains("ALOW"), "{said}");

    let odd = json!({"action": "ALLOW", "rules": [{"to": [{"operation": {"paths": ["/a/*/b"]}}]}]});
    let answer = asked(&plane, &ground, "/validate", &policy(odd)).await;
    assert_eq!(answer["allowed"], true);
    assert!(answer["warnings"][0].as_str().unwrap().contains("AuthorizationPolicy shop/api"), "{answer}");
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_question_is_not_answered_with_yes() {
    let ground = Ground::new();
    let plane = ground.start_with(config(&ground)).await;
    let good = review("Pod", "", &pod(|_| {})).to_string();
    let twice = good.replacen("\"containers\":", "\"containers\":[],\"containers\":", 1);
    let large = vec![b' '; 3 * 1024 * 1024 + 1];
    for (path, body, code) in [
        ("/inject", &b"nonsense"[..], "400"),
        ("/inject", b"{}", "400"),
        ("/inject", b"{\"apiVersion\":\"admission.k8s.io/v1\",\"kind\":\"AdmissionReview\"}", "400"),
        ("/inject", good.replace("admission.k8s.io/v1", "admission.k8s.io/v1beta1").as_bytes(), "400"),
        ("/inject", good.replace(UID, "").as_bytes(), "400"),
        ("/inject", twice.as_bytes(), "400"),
        ("/inject", &[b'['; 100_000], "400"),
        ("/other", good.as_bytes(), "404"),
        ("/inject", &large, "413"),
    ] {
        let (head, body) = post(&plane, &ground, path, body).await;
        // A body that is too large may find the connection gone.
        let gone = code == "413" && head.is_empty();
        assert!(gone || head.starts_with(&format!("HTTP/1.1 {code}")), "{path} {code}: {head}\n{body}");
    }
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_certificate_follows_a_new_root_without_a_restart() {
    let ground = Ground::new();
    let plane = ground.start_with(config(&ground)).await;
    let address = plane.webhook.unwrap();
    let old = roots(&ground);
    assert!(
        connect(address, "elsewhere.douane-system.svc", old.clone()).await.is_err(),
        "its name is looked at"
    );

    let folder = StateFolder::new(ground.state());
    let order = move || call(&folder, &Order::RotateRoot { force: false });
    tokio::task::spawn_blocking(order).await.unwrap().unwrap();
    // Both roots vouch while the API server may know only one.
    let both = eventually("the new root", async || Some(roots(&ground)).filter(|all| all.len() == 2)).await;
    connect(address, SERVICE, old).await.unwrap();
    connect(address, SERVICE, both).await.unwrap();
    plane.stop().await;
}
