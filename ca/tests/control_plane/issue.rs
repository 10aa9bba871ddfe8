//! Certificates: who gets one, what is in it, and who gets none.

use std::{fs, process::Command, time::Duration};

use douane_ca::{attest, state::StateFolder};
use douane_proto::{
    id::WorkloadId,
    svid::Leaf,
    wire::{IssueRequest, identity_client::IdentityClient, issue_request::Evidence},
};
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use tonic::Code;

use crate::{
    plane::{Ground, eventually, mode},
    sidecar::{channel, issue, request, svid, tls},
};

fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

#[tokio::test]
async fn a_service_account_token_gets_a_certificate_of_that_account() {
    let ground = Ground::new();
    let plane = ground.start().await;
    let bundle = ground.state().join("bundle.pem");

    let (request, _) = request(Evidence::ServiceAccountToken(ground.token("shop", "web")), 60);
    let response = issue(plane.address, &bundle, request).await.unwrap();

    let leaf = Leaf::parse(&response.chain[0]).unwrap();
    assert_eq!(leaf.id.to_string(), "spiffe://cluster.local/ns/shop/sa/web");
    assert_eq!(response.chain.len(), 2, "the leaf and its intermediate, no root");
    assert_eq!(leaf.not_after - leaf.not_before, 60 + 12, "backdated a fifth");
    let roots = response.bundle.unwrap().roots;
    assert_eq!(roots.len(), 1);
    assert!(
        plane
            .page("/metrics")
            .await
            .contains(r#"douane_ca_issued_total{evidence="service_account_token"} 1"#)
    );
    plane.stop().await;
}

#[tokio::test]
async fn a_token_that_is_not_for_us_gets_nothing() {
    let ground = Ground::new();
    let plane = ground.start().await;
    let bundle = ground.state().join("bundle.pem");
    let tokens = [
        ground.token_with("shop", "web", |claims| claims["aud"] = json!("somebody-else")),
        ground.token_with("shop", "web", |claims| claims["iss"] = json!("https://other")),
        ground.token_with("shop", "web", |claims| claims["exp"] = json!(now() - 60)),
        ground.token_with("shop", "web", |claims| claims["kubernetes.io"] = json!({})),
        ground.token_with("shop", "web", |claims| claims["sub"] = json!("system:serviceaccount:shop:orders")),
        ground.token_with("sh/op", "web", |_| {}),
        ground.token("douane-system", "douane-ca"),
        Ground::new().token("shop", "web"),
        "not a token".to_owned(),
    ];
    for token in tokens {
        let (request, _) = request(Evidence::ServiceAccountToken(token), 0);
        let refused = issue(plane.address, &bundle, request).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    }
    let nothing = IssueRequest { csr: vec![1], lifetime_seconds: 0, evidence: None };
    assert_eq!(issue(plane.address, &bundle, nothing).await.unwrap_err().code(), Code::InvalidArgument);
    plane.stop().await;
}

#[tokio::test]
async fn names_in_a_request_are_not_believed() {
    let ground = Ground::new();
    let plane = ground.start().await;
    let bundle = ground.state().join("bundle.pem");
    let key = KeyPair::generate().unwrap();
    let mut wishes = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    wishes
        .subject_alt_names
        .push(rcgen::SanType::URI("spiffe://cluster.local/ns/kube-system/sa/admin".try_into().unwrap()));
    let csr = wishes.serialize_request(&key).unwrap().der().to_vec();
    let evidence = Some(Evidence::ServiceAccountToken(ground.token("shop", "web")));
    let response =
        issue(plane.address, &bundle, IssueRequest { csr, lifetime_seconds: 0, evidence }).await.unwrap();
    let leaf = Leaf::parse(&response.chain[0]).unwrap();
    assert_eq!(leaf.id.service_account(), "web");
    plane.stop().await;
}

#[tokio::test]
async fn a_join_token_is_good_once_and_known_at_once() {
    let ground = Ground::new();
    let plane = ground.start().await;
    let bundle = ground.state().join("bundle.pem");
    let state = StateFolder::new(ground.state());
    let id: WorkloadId = "spiffe://cluster.local/ns/vm/sa/till".parse().unwrap();
    let token = attest::create_join_token(&state, &id, Duration::from_secs(60), now()).unwrap();

    // A broken request does not spend it.
    let broken = IssueRequest {
        csr: vec![0; 100],
        lifetime_seconds: 0,
        evidence: Some(Evidence::JoinToken(token.to_string())),
    };
    assert_eq!(issue(plane.address, &bundle, broken).await.unwrap_err().code(), Code::InvalidArgument);

    let (first, _) = request(Evidence::JoinToken(token.to_string()), 0);
    let response = issue(plane.address, &bundle, first).await.unwrap();
    assert_eq!(Leaf::parse(&response.chain[0]).unwrap().id, id);
    let (second, _) = request(Evidence::JoinToken(token.to_string()), 0);
    let refused = issue(plane.address, &bundle, second).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);

    let stale = attest::create_join_token(&state, &id, Duration::from_secs(1), now() - 10).unwrap();
    let (late, _) = request(Evidence::JoinToken(stale.to_string()), 0);
    assert_eq!(issue(plane.address, &bundle, late).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(fs::read_dir(state.join_tokens()).unwrap().count(), 0, "nothing of them is left");
    plane.stop().await;
}

#[tokio::test]
async fn many_who_present_one_join_token_get_one_certificate() {
    let ground = Ground::new();
    let plane = ground.start().await;
    let bundle = ground.state().join("bundle.pem");
    let id: WorkloadId = "spiffe://cluster.local/ns/vm/sa/till".parse().unwrap();
    let state = StateFolder::new(ground.state());
    let token = attest::create_join_token(&state, &id, Duration::from_secs(60), now()).unwrap();

    let channel = channel(plane.address, tls(&bundle, None)).await.unwrap();
    let tries = (0..8).map(|_| {
        let mut client = IdentityClient::new(channel.clone());
        let (request, _) = request(Evidence::JoinToken(token.to_string()), 0);
        tokio::spawn(async move { client.issue(request).await.is_ok() })
    });
    let mut certificates = 0;
    for one in tries.collect::<Vec<_>>() {
        certificates += usize::from(one.await.unwrap());
    }
    assert_eq!(certificates, 1);
    plane.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_the_root_and_a_second_plane_is_kept_out() {
    let ground = Ground::new();
    let plane = ground.start().await;
    let bundle = fs::read(ground.state().join("bundle.pem")).unwrap();
    assert_eq!(mode(&ground.state()), 0o700);
    assert_eq!(mode(&ground.state().join("authority")), 0o600);
    let second = douane_ca::app::App::bind(ground.config()).await.map(drop).unwrap_err();
    assert!(format!("{second:#}").contains("another control plane"), "{second:#}");
    plane.stop().await;

    let plane = ground.start().await;
    assert_eq!(fs::read(ground.state().join("bundle.pem")).unwrap(), bundle);
    let svid = svid(plane.address, &ground.state().join("bundle.pem"), ground.token("shop", "web")).await;
    assert_eq!(svid.leaf.id.service_account(), "web");
    plane.stop().await;
}

#[tokio::test]
async fn a_new_token_key_is_read_while_it_runs() {
    let ground = Ground::new();
    let plane = ground.start().await;
    let bundle = ground.state().join("bundle.pem");
    let other = Ground::new();
    fs::copy(other.home.path().join("jwks.json"), ground.home.path().join("jwks.json")).unwrap();
    eventually("a token of the new key is accepted", async || {
        let (request, _) = request(Evidence::ServiceAccountToken(other.token("shop", "web")), 0);
        issue(plane.address, &bundle, request).await.ok()
    })
    .await;
    plane.stop().await;
}

#[tokio::test]
async fn openssl_verifies_what_is_issued() {
    if Command::new("openssl").arg("version").output().is_err() {
        assert!(std::env::var_os("DOUANE_NO_SKIP").is_none(), "openssl is missing");
        eprintln!("SKIPPED: openssl is not installed");
        return;
    }
    let ground = Ground::new();
    let plane = ground.start().await;
    let bundle = ground.state().join("bundle.pem");
    let svid = svid(plane.address, &bundle, ground.token("shop", "web")).await;
    let file = |name: &str, der: &[u8]| {
        let path = ground.home.path().join(name);
        fs::write(&path, der).unwrap();
        path
    };
    let (leaf, signer) = (file("leaf.der", &svid.chain[0]), file("signer.der", &svid.chain[1]));
    let pem = ground.home.path().join("signer.pem");
    let mut convert = Command::new("openssl");
    convert.args(["x509", "-inform", "DER", "-in"]).arg(signer).arg("-out").arg(&pem);
    assert!(convert.status().unwrap().success());
    let verified = Command::new("openssl")
        .args(["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile"])
        .arg(bundle)
        .arg("-untrusted")
        .arg(pem)
        .arg(leaf)
        .output()
        .unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    plane.stop().await;
}

#[tokio::test]
async fn t10_the_control_plane_gives_nobody_a_session_to_resume() {
    use tokio::io::AsyncReadExt as _;
    let ground = Ground::new();
    let plane = ground.start().await;
    // A client that would resume if it could.
    let tls = tls(&ground.state().join("bundle.pem"), None);
    for _ in 0..3 {
        let stream = tokio::net::TcpStream::connect(plane.address).await.unwrap();
        let name = "douane-ca.douane-system.svc".try_into().unwrap();
        let mut stream = tls.connect(name, stream).await.unwrap();
        // Its first frame: whatever comes with the end of the handshake has come.
        stream.read_u8().await.unwrap();
        let (_, session) = stream.get_ref();
        assert_eq!(session.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(session.tls13_tickets_received(), 0);
    }
    plane.stop().await;
}
