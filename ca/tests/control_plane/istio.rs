//! Istio's certificate service: who gets what by it, and in which form. A client that nobody here wrote asks in
//! `tests/e2e/istio.rs`.

use douane_proto::{
    istio::{
        IstioCertificateRequest, IstioCertificateResponse,
        istio_certificate_service_client::IstioCertificateServiceClient,
    },
    svid::Leaf,
};
use rcgen::{CertificateParams, KeyPair};
use tonic::{Code, Request, Status};

use crate::{
    plane::{Ground, Plane},
    sidecar::{channel, tls},
};

const DAY: i64 = 24 * 3600;

fn csr(names: &[&str]) -> String {
    let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let key = KeyPair::generate().unwrap();
    CertificateParams::new(names).unwrap().serialize_request(&key).unwrap().pem().unwrap()
}

fn asking(csr: String) -> IstioCertificateRequest {
    IstioCertificateRequest { csr, validity_duration: 0, metadata: None }
}

async fn ask(
    ground: &Ground,
    plane: &Plane,
    request: IstioCertificateRequest,
    authorization: Option<String>,
) -> Result<IstioCertificateResponse, Status> {
    let channel = channel(plane.address, tls(&ground.state().join("bundle.pem"), None)).await.unwrap();
    let mut request = Request::new(request);
    if let Some(authorization) = authorization {
        request.metadata_mut().insert("authorization", authorization.parse().unwrap());
    }
    request.metadata_mut().insert("clusterid", "Kubernetes".parse().unwrap());
    let answer = IstioCertificateServiceClient::new(channel).create_certificate(request).await;
    answer.map(tonic::Response::into_inner)
}

fn bearer(ground: &Ground) -> Option<String> {
    Some(format!("Bearer {}", ground.token("shop", "web")))
}

fn leaf(answer: &IstioCertificateResponse) -> Leaf {
    Leaf::parse(pem::parse(&answer.cert_chain[0]).unwrap().contents()).unwrap()
}

#[tokio::test]
async fn a_bearer_token_gets_a_chain_of_pem_whose_last_element_is_the_roots() {
    let ground = Ground::new();
    let plane = ground.start().await;

    let answer = ask(&ground, &plane, asking(csr(&["evil.example"])), bearer(&ground)).await.unwrap();

    assert_eq!(leaf(&answer).id.to_string(), "spiffe://cluster.local/ns/shop/sa/web", "names are not read");
    assert_eq!(answer.cert_chain.len(), 3, "the leaf, its intermediate, the roots");
    let roots = std::fs::read_to_string(ground.state().join("bundle.pem")).unwrap();
    assert_eq!(pem::parse_many(&answer.cert_chain[2]).unwrap(), pem::parse_many(roots).unwrap());
    plane.stop().await;
}

#[tokio::test]
async fn a_lifetime_beyond_ours_is_cut_and_none_is_the_default() {
    let ground = Ground::new();
    let plane = ground.start().await;
    for (wanted, expected) in [(0, 3600), (-5, 3600), (600, 600), (90 * DAY, DAY), (i64::MAX, DAY)] {
        let request = IstioCertificateRequest { validity_duration: wanted, ..asking(csr(&[])) };
        let leaf = leaf(&ask(&ground, &plane, request, bearer(&ground)).await.unwrap());
        let life = leaf.not_after - leaf.not_before;
        assert!((expected..=expected + 60).contains(&life), "{wanted}: {life}");
    }
    plane.stop().await;
}

#[tokio::test]
async fn what_proves_nothing_or_cannot_be_read_gets_nothing() {
    let ground = Ground::new();
    let plane = ground.start().await;
    let basic = Some("Basic d2ViOndlYg==".to_owned());
    let foreign = Some(format!("Bearer {}", Ground::new().token("shop", "web")));
    let good = || bearer(&ground);
    for (csr, authorization, expected) in [
        (csr(&[]), None, Code::InvalidArgument),
        (csr(&[]), basic, Code::InvalidArgument),
        (csr(&[]), foreign, Code::Unauthenticated),
        ("no PEM".to_owned(), good(), Code::InvalidArgument),
        (csr(&[]).repeat(2), good(), Code::InvalidArgument),
    ] {
        let refused = ask(&ground, &plane, asking(csr), authorization).await.unwrap_err();
        assert_eq!(refused.code(), expected, "{refused}");
    }
    plane.stop().await;
}

#[tokio::test]
async fn t1_nobody_gets_a_certificate_for_somebody_else() {
    let ground = Ground::new();
    let plane = ground.start().await;
    let other = prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue(
            "spiffe://cluster.local/ns/shop/sa/orders".to_owned(),
        )),
    };
    let metadata = prost_types::Struct { fields: [("ImpersonatedIdentity".to_owned(), other)].into() };
    let request = IstioCertificateRequest { metadata: Some(metadata), ..asking(csr(&[])) };

    let refused = ask(&ground, &plane, request, bearer(&ground)).await.unwrap_err();

    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("its own token"), "{}", refused.message());
    assert!(plane.page("/metrics").await.contains(r#"reason="impersonation"} 1"#));
    plane.stop().await;
}
