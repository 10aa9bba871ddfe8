//! The `spiffe` crate, as an application would use it.

use std::{fs, os::unix::fs::PermissionsExt as _, sync::Arc, time::Duration};

use spiffe::{SpiffeId, TrustDomain, WorkloadApiClient, X509Source, X509Svid};

use super::{Served, WEB};
use crate::alone::{ask, on_the_sidecars_runtime};

/// Two lives of a certificate.
const ROTATES: Duration = Duration::from_secs(90);

async fn source(served: &Served) -> X509Source {
    X509Source::builder().endpoint(served.endpoint()).build().await.unwrap()
}

fn leaf(svid: &Arc<X509Svid>) -> Vec<u8> {
    svid.cert_chain()[0].as_bytes().to_vec()
}

#[test]
fn w1_w6_a_stock_library_gets_the_pods_identity_with_a_key_of_its_own() {
    on_the_sidecars_runtime(async {
        let served = Served::start().await;
        let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(served.socket()), 0o777);

        let source = source(&served).await;
        let svid = source.svid().unwrap();

        assert_eq!(svid.spiffe_id(), &WEB.parse::<SpiffeId>().unwrap());
        assert_eq!(svid.cert_chain().len(), 2, "the leaf and its intermediate, no root");
        let domain = TrustDomain::new("cluster.local").unwrap();
        let bundle = source.try_bundle_for_trust_domain(&domain).unwrap();
        assert_eq!(bundle.authorities().len(), 1);
        let ours = ask(served.folder.path("run"), "certificates").await;
        let hex: String = leaf(&svid).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_ne!(ours["chain"][0], hex.as_str(), "the sidecar's own certificate stays its own");
        served.end().await;
    });
}

#[test]
fn w5_a_stock_library_follows_a_rotation_to_a_new_certificate_and_a_new_key() {
    on_the_sidecars_runtime(async {
        let served = Served::start().await;
        let source = source(&served).await;
        let first = source.svid().unwrap();
        let mut updates = source.updated();

        tokio::time::timeout(ROTATES, updates.changed()).await.expect("a rotation").unwrap();

        let second = source.svid().unwrap();
        assert_ne!(leaf(&first), leaf(&second));
        assert_ne!(first.private_key().as_bytes(), second.private_key().as_bytes());
        assert_eq!(first.spiffe_id(), second.spiffe_id());
        served.end().await;
    });
}

#[test]
fn w7_a_stock_library_gets_the_bundles_alone() {
    on_the_sidecars_runtime(async {
        let served = Served::start().await;
        let client = WorkloadApiClient::connect_to(served.endpoint()).await.unwrap();

        let bundles = client.fetch_x509_bundles().await.unwrap();

        let domain = TrustDomain::new("cluster.local").unwrap();
        assert_eq!(bundles.get(&domain).unwrap().authorities().len(), 1);
        served.end().await;
    });
}

#[test]
fn w8_w9_a_stock_library_gets_tokens_and_their_keys() {
    on_the_sidecars_runtime(async {
        let served = Served::start().await;
        let client = WorkloadApiClient::connect_to(served.endpoint()).await.unwrap();

        let token = client.fetch_jwt_svid(["bank", "shop"], None).await.unwrap();
        assert_eq!(token.spiffe_id().to_string(), WEB);
        let bundles = client.fetch_jwt_bundles().await.unwrap();
        let bundle = bundles.get(&TrustDomain::new("cluster.local").unwrap()).unwrap();
        assert!(bundle.find_jwt_authority(token.key_id()).is_some());
        client.validate_jwt_token("shop", token.token()).await.unwrap();
        client.validate_jwt_token("elsewhere", token.token()).await.unwrap_err();

        let nobody: [&str; 0] = [];
        client.fetch_jwt_svid(nobody, None).await.unwrap_err();
        served.end().await;
    });
}
