//! A trust domain by its other names: who passes under one, and what ends when it is one no longer.

use douane_proto::id::TrustDomain;

use super::{Ca, LeafSpec, ORDERS, WEB, id, mtls, sockets, uncorked};

#[test]
fn a_peer_under_another_name_of_the_trust_domain_passes_while_it_is_one() {
    const OLD_WEB: &str = "spiffe://old.example/ns/shop/sa/web";
    uncorked(async {
        let ca = Ca::new("cluster.local");
        let server = mtls(ca.identity(ORDERS));
        let client = mtls(ca.bad_identity(&LeafSpec { id: OLD_WEB, ..LeafSpec::default() }));
        server.trust_aliases(&[TrustDomain::parse("old.example").unwrap()]);
        let (near, far) = sockets().await;

        let expected = id(ORDERS);
        let (accepted, connected) = tokio::join!(server.accept(far), client.connect(near, &expected));

        let (_kept, session) = accepted.unwrap();
        connected.unwrap();
        assert_eq!(session.peer, id(OLD_WEB));
        tokio::join!(server.distrusted(&session), async { server.trust_aliases(&[]) });
        let (near, far) = sockets().await;
        let (refused, _) = tokio::join!(server.accept(far), client.connect(near, &expected));
        assert!(refused.unwrap_err().to_string().contains("another trust domain"));
    });
}

#[test]
fn the_expected_server_may_answer_under_another_name_of_the_trust_domain_and_nobody_else_may() {
    const OLD: [&str; 2] = ["spiffe://old.example/ns/shop/sa/orders", "spiffe://old.example/ns/shop/sa/web"];
    uncorked(async {
        let ca = Ca::new("cluster.local");
        for (presented, passes) in [(OLD[0], true), (OLD[1], false)] {
            let server = mtls(ca.bad_identity(&LeafSpec { id: presented, ..LeafSpec::default() }));
            let client = mtls(ca.identity(WEB));
            client.trust_aliases(&[TrustDomain::parse("old.example").unwrap()]);
            let (near, far) = sockets().await;

            let expected = id(ORDERS);
            let (_, connected) = tokio::join!(server.accept(far), client.connect(near, &expected));

            assert_eq!(connected.is_ok(), passes, "{presented}");
        }
    });
}
