//! JWT-SVIDs: whose they are, what they say, who gets none. Their verification is tested where it is done (`douane-proto`),
//! and by clients that nobody here wrote in `tests/e2e/workload`.

use std::time::UNIX_EPOCH;

use douane_proto::{
    jwt,
    svid::{Svid, TrustBundle},
    wire::{IssueTokenRequest, IssueTokenResponse, identity_client::IdentityClient, issue_request::Evidence},
};
use tonic::{Code, Status};

use crate::{
    plane::{Ground, Plane},
    sidecar::{channel, issue, request, svid, tls},
};

async fn ask(
    ground: &Ground,
    plane: &Plane,
    (audience, lifetime_seconds): (&[&str], u32),
    own: Option<&Svid>,
) -> Result<IssueTokenResponse, Status> {
    let channel = channel(plane.address, tls(&ground.state().join("bundle.pem"), own)).await.unwrap();
    let audience = audience.iter().map(|one| (*one).to_owned()).collect();
    let request = IssueTokenRequest { audience, lifetime_seconds };
    IdentityClient::new(channel).issue_token(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn w9_a_token_is_of_whom_the_certificate_of_the_connection_proves() {
    let ground = Ground::new();
    let plane = ground.start().await;
    let file = ground.state().join("bundle.pem");
    let web = svid(plane.address, &file, ground.token("shop", "web")).await;

    let before = UNIX_EPOCH.elapsed().unwrap().as_secs();
    let answer = ask(&ground, &plane, (&["bank"], 0), Some(&web)).await.unwrap();

    let (request, _) = request(Evidence::ServiceAccountToken(ground.token("shop", "web")), 0);
    let bundle = issue(plane.address, &file, request).await.unwrap().bundle.unwrap();
    let bundle = TrustBundle::try_from(bundle).unwrap();
    let now = UNIX_EPOCH.elapsed().unwrap().as_secs();
    let keys = jwt::keys_of(&bundle.jwt_keys).unwrap();
    let token = jwt::verify_svid(&answer.token, "bank", |_| Some(keys.clone()), now).unwrap();
    assert_eq!(token.spiffe_id, "spiffe://cluster.local/ns/shop/sa/web");
    assert!((before + 300..=now + 300).contains(&token.claims.expires().unwrap()), "five minutes");
    assert_eq!(jwt::key_id(&answer.token).unwrap(), bundle.jwt_keys[0].key_id);
    assert_eq!(u64::try_from(answer.expires).ok(), token.claims.expires());
    plane.stop().await;
}

#[tokio::test]
async fn t1_without_a_certificate_there_is_no_token_and_without_an_audience_neither() {
    let ground = Ground::new();
    let plane = ground.start().await;
    let web = svid(plane.address, &ground.state().join("bundle.pem"), ground.token("shop", "web")).await;

    let refused = ask(&ground, &plane, (&["bank"], 0), None).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    for audience in [&[][..], &[""], &["bank", "a\u{7}b"]] {
        let refused = ask(&ground, &plane, (audience, 0), Some(&web)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{audience:?}: {refused}");
    }
    let page = plane.page("/metrics").await;
    assert!(
        page.contains(r#"reason="no_certificate"} 1"#) && page.contains(r#"reason="malformed"} 3"#),
        "{page}"
    );
    plane.stop().await;
}
