//! Evidence besides service account tokens: certificates that came by a join token, processes of this machine, issuers
//! whose claims are mapped.

use std::{fs, process::Command, time::Duration};

use douane_ca::{
    attest,
    config::{Config, Oidc, Unix, User},
    state::StateFolder,
};
use douane_proto::{
    id::WorkloadId,
    svid::{Leaf, Svid},
    wire::{IssueRequest, IssueResponse, identity_client::IdentityClient, issue_request::Evidence},
};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::UnixStream;
use tonic::{Code, Status, transport::Endpoint};

use crate::{
    plane::{Ground, Plane},
    sidecar::{channel, issue, request, svid, tls},
};

fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

async fn join(ground: &Ground, plane: &Plane) -> Svid {
    let id: WorkloadId = "spiffe://cluster.local/ns/vm/sa/till".parse().unwrap();
    let state = StateFolder::new(ground.state());
    let token = attest::create_join_token(&state, &id, Duration::from_secs(60), now()).unwrap();
    let (request, key) = request(Evidence::JoinToken(token.to_string()), 60);
    let response = issue(plane.address, &state.bundle(), request).await.unwrap();
    Svid::parse(response.chain, key.serialize_der().into()).unwrap()
}

// Asks with nothing but the certificate that the connection shows.
async fn renew(ground: &Ground, plane: &Plane, shown: &Svid) -> Result<Svid, Status> {
    let channel = channel(plane.address, tls(&ground.state().join("bundle.pem"), Some(shown))).await.unwrap();
    let (request, key) = request(Evidence::JoinToken(String::new()), 60);
    let request = IssueRequest { evidence: None, ..request };
    let response = IdentityClient::new(channel).issue(request).await?.into_inner();
    Ok(Svid::parse(response.chain, key.serialize_der().into()).unwrap())
}

#[tokio::test]
async fn who_came_by_a_join_token_renews_by_certificate_and_nobody_else_does() {
    let ground = Ground::new();
    let plane = ground.start().await;
    let first = join(&ground, &plane).await;
    let second = renew(&ground, &plane, &first).await.unwrap();
    assert_eq!(second.leaf.id, first.leaf.id);
    let third = renew(&ground, &plane, &second).await.unwrap();

    let old = renew(&ground, &plane, &first).await.unwrap_err();
    assert_eq!(old.code(), Code::Unauthenticated);
    assert!(old.message().contains("taken its place"), "{old}");

    // A pod's token lives as long as its pod: its certificate alone renews nothing.
    let pod = svid(plane.address, &ground.state().join("bundle.pem"), ground.token("shop", "web")).await;
    let refused = renew(&ground, &plane, &pod).await.unwrap_err();
    assert!(refused.message().contains("did not come by a join token"), "{refused}");
    // Not even one of the same name.
    let twin = svid(plane.address, &ground.state().join("bundle.pem"), ground.token("vm", "till")).await;
    assert_eq!(renew(&ground, &plane, &twin).await.unwrap_err().code(), Code::Unauthenticated);

    // A restart forgets nobody.
    plane.stop().await;
    let plane = ground.start().await;
    renew(&ground, &plane, &third).await.unwrap();
    plane.stop().await;
}

#[tokio::test]
async fn t4_an_operator_lists_and_ends_what_came_by_a_join_token() {
    let ground = Ground::new();
    let plane = ground.start().await;
    let joined = join(&ground, &plane).await;
    let id: WorkloadId = "spiffe://cluster.local/ns/vm/sa/scale".parse().unwrap();
    let state = StateFolder::new(ground.state());
    let waiting = attest::create_join_token(&state, &id, Duration::from_secs(60), now()).unwrap();
    let douane = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_douane"));
        let output =
            command.args(["ca", "token"]).args(args).env("DOUANE_DIR", ground.state()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let listed: serde_json::Value = serde_json::from_str(&douane(&["list", "-o", "json"])).unwrap();
    assert_eq!((&listed[0]["identity"], &listed[0]["state"]), (&json!("vm/scale"), &json!("waiting")));
    assert_eq!((&listed[1]["identity"], &listed[1]["state"]), (&json!("vm/till"), &json!("joined")));
    assert!(!listed.to_string().contains(&*waiting), "never the token");

    douane(&["revoke", listed[0]["name"].as_str().unwrap()]);
    let (late, _) = request(Evidence::JoinToken(waiting.to_string()), 60);
    let refused = issue(plane.address, &state.bundle(), late).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);

    douane(&["revoke", "--identity", "vm/till"]);
    let refused = renew(&ground, &plane, &joined).await.unwrap_err();
    assert!(refused.message().contains("revoked"), "{refused}");
    assert!(douane(&["list"]).contains("revoked"));
    plane.stop().await;
}

#[tokio::test]
async fn a_process_of_this_machine_is_who_its_user_is() {
    let ground = Ground::new();
    let socket = ground.home.path().join("ca.sock");
    let user = |uid, service_account: &str| User {
        uid,
        namespace: "vm".to_owned(),
        service_account: service_account.to_owned(),
    };
    let own = rustix::process::getuid().as_raw();
    let ask = async || -> Result<IssueResponse, Status> {
        let path = socket.clone();
        let connect = tower_service_fn(move || {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://ca").connect_with_connector(connect).await.unwrap();
        let (request, _) = request(Evidence::JoinToken(String::new()), 60);
        let request = IssueRequest { evidence: None, ..request };
        Ok(IdentityClient::new(channel).issue(request).await?.into_inner())
    };
    let with =
        |identities| Config { unix: Some(Unix { socket: socket.clone(), identities }), ..ground.config() };
    let plane = ground.start_with(with(vec![user(own, "agent")])).await;
    let leaf = Leaf::parse(&ask().await.unwrap().chain[0]).unwrap();
    assert_eq!(leaf.id.to_string(), "spiffe://cluster.local/ns/vm/sa/agent");
    plane.stop().await;

    // The socket of the last one is in nobody's way.
    let plane = ground.start_with(with(vec![user(own + 1, "agent")])).await;
    let refused = ask().await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains(&format!("user {own}")), "{refused}");
    plane.stop().await;
}

#[tokio::test]
async fn t1_a_token_of_another_issuer_is_whom_its_claims_are_mapped_to() {
    let (ground, forge) = (Ground::new(), Ground::new());
    let oidc: Oidc = serde_saphyr::from_str(&format!(
        "
issuer: https://forge.test
audience: douane-ca
jwks: {}
identities:
- where: {{repository: shop/web}}
  namespace: ci
  serviceAccount: 'deploy-{{environment}}'
",
        forge.home.path().join("jwks.json").display()
    ))
    .unwrap();
    let plane = ground.start_with(Config { oidc: vec![oidc], ..ground.config() }).await;
    let bundle = ground.state().join("bundle.pem");
    let ask = async |token| {
        let (request, _) = request(Evidence::ServiceAccountToken(token), 60);
        issue(plane.address, &bundle, request).await
    };
    let token = |repository: &str, issuer: &str| {
        forge.token_with("kube-system", "admin", |claims| {
            claims["iss"] = json!(issuer);
            claims["sub"] = json!(format!("repo:{repository}"));
            claims["repository"] = json!(repository);
            claims["environment"] = json!("eu");
        })
    };
    let response = ask(token("shop/web", "https://forge.test")).await.unwrap();
    let leaf = Leaf::parse(&response.chain[0]).unwrap();
    assert_eq!(leaf.id.to_string(), "spiffe://cluster.local/ns/ci/sa/deploy-eu");
    assert!(ask(ground.token("shop", "web")).await.is_ok(), "the cluster's tokens still count");

    let refused = ask(token("shop/evil", "https://forge.test")).await.unwrap_err();
    assert!(refused.message().contains("no rule"), "{refused}");
    // The forge's key under the cluster's name: each issuer's tokens are held against its own keys only.
    for issuer in [crate::plane::ISSUER, "https://nobody.test"] {
        let refused = ask(token("shop/web", issuer)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    }
    let text = fs::read_to_string(ground.state().join("audit/0000000000000001.jsonl")).unwrap();
    assert!(text.contains("https://forge.test#repo:shop/web"), "{text}");
    plane.stop().await;
}

/// What tonic takes for a connector.
fn tower_service_fn<F, C, T>(connect: F) -> Connect<F>
where
    F: Fn() -> C,
    C: Future<Output = std::io::Result<T>>,
{
    Connect(connect)
}

struct Connect<F>(F);

impl<F, C, T> tower_service::Service<tonic::transport::Uri> for Connect<F>
where
    F: Fn() -> C,
    C: Future<Output = std::io::Result<T>>,
{
    type Response = T;
    type Error = std::io::Error;
    type Future = C;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: tonic::transport::Uri) -> C {
        (self.0)()
    }
}
