//! Peers of other trust domains: each domain's own bundle vouches for it, and nobody else's.

use std::sync::Arc;

use douane_proto::{bundle::ForeignBundle, svid::Identity};

use rcgen::BasicConstraints;

use super::{Ca, LeafSpec, Mtls, ca_params, id, mtls, sockets, uncorked};
use crate::tls::{TlsError, handshake::Session};

const ORDERS_A: &str = "spiffe://a.example/ns/shop/sa/orders";
const WEB_B: &str = "spiffe://b.example/ns/shop/sa/web";
const WEB_C: &str = "spiffe://c.example/ns/shop/sa/web";

fn foreign(of: &[&Ca]) -> Arc<[ForeignBundle]> {
    of.iter()
        .map(|ca| ForeignBundle {
            trust_domain: ca.domain.clone(),
            roots: vec![ca.root.clone()],
            jwt_keys: r#"{"keys":[]}"#.into(),
        })
        .collect()
}

// Somebody of `signer` who says that they are `name`.
fn as_if(signer: &Ca, name: &'static str) -> Identity {
    signer.bad_identity(&LeafSpec { id: name, ..LeafSpec::default() })
}

// What a server that believes `federated` says to this client, who believes everybody whom it could meet.
async fn received(server: &Mtls, client: Identity, servers: &Ca) -> Result<Session, TlsError> {
    let client = mtls(client);
    client.trust_federated(&foreign(&[servers]));
    let (near, far) = sockets().await;
    let expected = id(ORDERS_A);
    let (accepted, _) = tokio::join!(server.accept(far), client.connect(near, &expected));
    accepted.map(|(_, session)| session)
}

#[test]
fn t12_a_root_vouches_for_its_own_domain_and_for_no_other_whoever_is_federated() {
    uncorked(async {
        let (a, b, c) = (Ca::new("a.example"), Ca::new("b.example"), Ca::new("c.example"));
        let server = mtls(a.identity(ORDERS_A));
        server.trust_federated(&foreign(&[&b, &c]));
        for (signer, name, passes) in [
            (&a, "spiffe://a.example/ns/shop/sa/web", true),
            (&a, WEB_B, false),
            (&a, WEB_C, false),
            (&b, "spiffe://a.example/ns/shop/sa/web", false),
            (&b, WEB_B, true),
            (&b, WEB_C, false),
            (&c, "spiffe://a.example/ns/shop/sa/web", false),
            (&c, WEB_B, false),
            (&c, WEB_C, true),
        ] {
            let outcome = received(&server, as_if(signer, name), &a).await;
            assert_eq!(outcome.is_ok(), passes, "{} signs {name}", signer.domain);
            if let Ok(session) = outcome {
                assert_eq!(session.peer, id(name));
            }
        }
        // And one that nobody federates with.
        let d = Ca::new("d.example");
        let stranger = received(&server, as_if(&d, "spiffe://d.example/ns/shop/sa/web"), &a).await;
        let why = stranger.unwrap_err().to_string();
        assert!(why.contains("another trust domain") && why.contains("not federated"), "{why}");
    });
}

#[test]
fn t21_a_root_of_another_domain_that_has_ended_vouches_for_nobody() {
    uncorked(async {
        let (a, mut params) = (Ca::new("a.example"), ca_params(BasicConstraints::Unconstrained));
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        let b = Ca::with_root("b.example", params);
        let server = mtls(a.identity(ORDERS_A));
        server.trust_federated(&foreign(&[&b]));

        let outcome = received(&server, as_if(&b, WEB_B), &a).await;

        let why = outcome.unwrap_err().to_string();
        assert!(why.contains("nobody is trusted"), "{why}");
    });
}

#[test]
fn t12_two_domains_that_share_a_root_are_told_apart_by_the_name_alone() {
    // Documented, not a defence: whose key signs for both can be both.
    uncorked(async {
        let (a, shared) = (Ca::new("a.example"), Ca::new("b.example"));
        let server = mtls(a.identity(ORDERS_A));
        let mut both = foreign(&[&shared, &shared]).to_vec();
        both[1].trust_domain = Ca::new("c.example").domain;
        server.trust_federated(&both.into());
        assert_eq!(received(&server, as_if(&shared, WEB_B), &a).await.unwrap().peer, id(WEB_B));
        assert_eq!(received(&server, as_if(&shared, WEB_C), &a).await.unwrap().peer, id(WEB_C));
        let ours = received(&server, as_if(&shared, "spiffe://a.example/ns/shop/sa/web"), &a).await;
        assert!(ours.is_err(), "but never us");
    });
}

#[test]
fn t21_a_bundle_of_our_own_name_or_with_a_broken_root_changes_nothing_for_us() {
    uncorked(async {
        let (a, b, forger) = (Ca::new("a.example"), Ca::new("b.example"), Ca::new("a.example"));
        let server = mtls(a.identity(ORDERS_A));
        let mut broken = foreign(&[&forger, &b]).to_vec();
        broken[1].roots.push(vec![1, 2, 3]);
        server.trust_federated(&broken.into());

        const WEB_A: &str = "spiffe://a.example/ns/shop/sa/web";
        assert!(received(&server, as_if(&forger, WEB_A), &a).await.is_err(), "our name is ours");
        assert!(received(&server, as_if(&a, WEB_A), &a).await.is_ok(), "and we go on");
        let why = received(&server, as_if(&b, WEB_B), &a).await.unwrap_err().to_string();
        assert!(why.contains("b.example") && why.contains("nobody is trusted"), "{why}");
    });
}

#[test]
fn row_1_5_a_relationship_that_ends_or_a_root_that_leaves_ends_the_sessions_it_vouched_for() {
    uncorked(async {
        let (a, b, next) = (Ca::new("a.example"), Ca::new("b.example"), Ca::new("b.example"));
        let server = mtls(a.identity(ORDERS_A));
        let mut both = foreign(&[&b]).to_vec();
        both[0].roots.push(next.root.clone());
        server.trust_federated(&foreign(&[&b]));
        let old = received(&server, as_if(&b, WEB_B), &a).await.unwrap();
        let own = received(&server, a.identity("spiffe://a.example/ns/shop/sa/web"), &a).await.unwrap();

        // A new root is one more.
        server.trust_federated(&both.clone().into());
        assert!(futures_util::poll!(Box::pin(server.distrusted(&old))).is_pending());
        let new = received(&server, as_if(&next, WEB_B), &a).await.unwrap();

        // The old one leaves, while somebody waits for that.
        let left = foreign(&[&next]);
        tokio::join!(server.distrusted(&old), async { server.trust_federated(&left) });
        assert!(futures_util::poll!(Box::pin(server.distrusted(&new))).is_pending());
        assert!(received(&server, as_if(&b, WEB_B), &a).await.is_err());

        // All of it ends, and nothing of ours.
        tokio::join!(server.distrusted(&new), async { server.trust_federated(&foreign(&[])) });
        assert!(received(&server, as_if(&next, WEB_B), &a).await.is_err());
        assert!(futures_util::poll!(Box::pin(server.distrusted(&own))).is_pending());
    });
}

#[test]
fn v1_a_server_of_a_federated_domain_is_exactly_who_was_expected() {
    uncorked(async {
        let (a, b) = (Ca::new("a.example"), Ca::new("b.example"));
        for (name, passes) in [(WEB_B, true), ("spiffe://b.example/ns/shop/sa/other", false)] {
            let server = mtls(b.bad_identity(&LeafSpec { id: name, ..LeafSpec::default() }));
            server.trust_federated(&foreign(&[&a]));
            let client = mtls(a.identity(ORDERS_A));
            client.trust_federated(&foreign(&[&b]));
            let (near, far) = sockets().await;
            let expected = id(WEB_B);
            let (_, connected) = tokio::join!(server.accept(far), client.connect(near, &expected));
            assert_eq!(connected.is_ok(), passes, "{name}");
        }
    });
}
