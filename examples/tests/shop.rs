//! The shop's folder is what the demo runs and what an operator applies to a cluster.

use std::{fs, path::PathBuf};

use douane_examples::lab::{folder, plan::Plan};

fn shop() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../kind-cluster/shop"))
}

#[test]
fn the_shops_folder_runs_in_a_lab() {
    let resources = folder::read(&shop()).unwrap();

    let plan = Plan::make(&resources, |program| program == "shop").unwrap();

    let meshed = plan.pods.iter().filter(|pod| pod.injected).count();
    assert_eq!((plan.pods.len(), meshed, plan.services.len()), (7, 6, 4));
}

#[test]
fn the_law_holds_the_strict_peer_authentication_of_any_mesh() {
    let text = fs::read_to_string(shop().join("policy-strict.yaml")).unwrap();

    let object: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let expected = [
        "apiVersion: security.istio.io/v1beta1",
        "kind: PeerAuthentication",
        "metadata:",
        "  name: default",
        "  namespace: istio-system",
        "spec:",
        "  mtls:",
        "    mode: STRICT",
    ];
    assert_eq!(object, expected);
}
