//! Which names of protocols two ends agree on: ours, Istio's, or none.

use std::{net::Ipv4Addr, sync::Arc};

use rustls::pki_types::ServerName;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{
    super::{Alpn, Greeting, Offer, settings::Settings},
    Ca, ORDERS, Outcome, WEB, id, mtls, sockets, uncorked,
};

// A client with a certificate that offers `names`.
async fn offering(names: &[&[u8]]) -> Outcome {
    let ca = Ca::new("cluster.local");
    let settings = Settings::new(Arc::new(ca.identity(WEB)), Default::default()).unwrap();
    let mut config = (*settings.client(&id(ORDERS), Offer::Douane1).unwrap()).clone();
    config.alpn_protocols = names.iter().map(|name| name.to_vec()).collect();
    let (server_io, client_io) = sockets().await;
    let server = mtls(ca.identity(ORDERS));
    let name = ServerName::from(std::net::IpAddr::from(Ipv4Addr::LOCALHOST));
    let connect = TlsConnector::from(Arc::new(config)).connect(name, client_io);
    tokio::join!(server.accept(server_io), connect).0
}

// A server that chooses from `names`, and what we take its choice for.
async fn choosing(names: &[&[u8]], offer: Offer) -> Outcome {
    let ca = Ca::new("cluster.local");
    let settings = Settings::new(Arc::new(ca.identity(ORDERS)), Default::default()).unwrap();
    let mut config = (*settings.server).clone();
    config.alpn_protocols = names.iter().map(|name| name.to_vec()).collect();
    let (server_io, client_io) = sockets().await;
    let accept = TlsAcceptor::from(Arc::new(config)).accept(server_io);
    let (expected, client) = (id(ORDERS), mtls(ca.identity(WEB)));
    let greeting = Greeting { offer, server_name: None };
    tokio::join!(accept, client.connect_with(client_io, &expected, greeting)).1
}

fn agreed(outcome: Outcome) -> Alpn {
    outcome.map(|(_, session)| session.alpn).unwrap()
}

#[test]
fn what_istios_sidecars_and_any_client_offer_is_accepted() {
    uncorked(async {
        for (names, expected) in [
            (&[&b"douane/1"[..], b"istio-http/1.1"][..], Alpn::Douane1),
            (&[b"istio-http/1.1", b"istio", b"http/1.1"], Alpn::Http1),
            (&[b"istio-http/1.0", b"istio", b"http/1.0"], Alpn::Http1),
            (&[b"istio-h2", b"istio", b"h2"], Alpn::Http2),
            (&[b"istio-peer-exchange", b"istio"], Alpn::Unsaid),
            (&[b"h2"], Alpn::Http2),
            (&[b"http/1.1"], Alpn::Http1),
            (&[], Alpn::Unsaid),
        ] {
            assert_eq!(agreed(offering(names).await), expected, "{names:?}");
        }
    });
}

#[test]
fn istios_preamble_and_unknown_protocols_are_refused() {
    uncorked(async {
        for names in [&[&b"istio-peer-exchange"[..]][..], &[b"spdy/3"], &[b"douane/2"]] {
            let refused = offering(names).await.map(|(_, session)| session).unwrap_err();
            assert!(matches!(refused, super::TlsError::Alpn), "{refused}");
        }
    });
}

#[test]
fn whoever_answers_our_name_speaks_our_dialect_and_whoever_chooses_none_heeds_the_offer() {
    uncorked(async {
        for (names, offer, expected) in [
            (&[&b"douane/1"[..], b"istio-http/1.1"][..], Offer::Http1, Alpn::Douane1),
            (&[b"istio-http/1.1"], Offer::Http1, Alpn::Http1),
            (&[], Offer::Http1, Alpn::Http1),
            (&[b"douane/1", b"istio-http/1.1"], Offer::Http1Alone, Alpn::Http1),
            (&[b"istio-h2"], Offer::Http2, Alpn::Http2),
            (&[], Offer::Http2, Alpn::Http2),
            (&[b"istio"], Offer::Opaque, Alpn::Unsaid),
            (&[], Offer::Opaque, Alpn::Unsaid),
        ] {
            assert_eq!(agreed(choosing(names, offer).await), expected, "{names:?}");
        }
    });
}

#[test]
fn a_peer_of_ours_that_does_not_answer_our_name_is_refused() {
    uncorked(async {
        let refused = choosing(&[], Offer::Douane1).await.map(|(_, session)| session).unwrap_err();
        assert!(matches!(refused, super::TlsError::Alpn), "{refused}");
    });
}
