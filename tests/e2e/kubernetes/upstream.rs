//! cert-manager above the authority, on a real API: its kind is defined there, and the test plays its part (an issuer with a root,
//! who approves, signs or denies). It is not cert-manager itself.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use douane_ca::{
    admin::{Answer, Command, call},
    config::{CertManager, IssuerRef, Upstream},
    state::StateFolder,
};
use douane_tests::{kubernetes::Cluster, wait::eventually};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::{Value, json};

use super::plane::{LIMIT, Plane, Pod, SHOP, installed, run_pod};

/// cert-manager's kind, as far as it is written and read here.
const KIND: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: certificaterequests.cert-manager.io, annotations: {api-approved.kubernetes.io: unapproved}}
spec:
  group: cert-manager.io
  scope: Namespaced
  names: {kind: CertificateRequest, listKind: CertificateRequestList, plural: certificaterequests, singular: certificaterequest}
  versions:
    - name: v1
      served: true
      storage: true
      subresources: {status: {}}
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec:
              type: object
              required: [issuerRef, request]
              properties:
                request: {type: string, format: byte}
                isCA: {type: boolean}
                duration: {type: string}
                usages: {type: array, items: {type: string, enum: [signing, digital signature, cert sign, crl sign]}}
                issuerRef:
                  type: object
                  required: [name]
                  properties: {name: {type: string}, kind: {type: string}, group: {type: string}}
            status: {type: object, x-kubernetes-preserve-unknown-fields: true}
";
/// What README tells whoever uses cert-manager to apply.
const RIGHTS: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: douane-ca-cert-manager, namespace: douane-system}
rules:
  - {apiGroups: [cert-manager.io], resources: [certificaterequests], verbs: [create, get, delete]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: douane-ca-cert-manager, namespace: douane-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: douane-ca-cert-manager}
subjects: [{kind: ServiceAccount, name: douane-ca, namespace: douane-system}]
";
const WEB: Pod<'_> = Pod {
    namespace: "shop",
    name: "web-1",
    app: "web",
    labels: "",
    sidecar: true,
    port: ("http", 8080),
    addresses: &["10.77.0.10"],
};

struct CertManagers {
    root: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl CertManagers {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Example Corp Root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = params.self_signed(&key).unwrap();
        Self { root, issuer: Issuer::new(params, key) }
    }

    fn sign(&self, request: &Value) -> Value {
        let spec = &request["spec"];
        assert_eq!((&spec["isCA"], &spec["issuerRef"]["name"]), (&json!(true), &json!("corp")));
        assert_eq!(spec["usages"], json!(["cert sign", "crl sign"]));
        let pem = STANDARD.decode(spec["request"].as_str().unwrap()).unwrap();
        let csr = CertificateSigningRequestParams::from_pem(std::str::from_utf8(&pem).unwrap()).unwrap();
        let CertificateSigningRequestParams { mut params, public_key } = csr;
        let life: u64 = spec["duration"].as_str().unwrap().strip_suffix('s').unwrap().parse().unwrap();
        let now = std::time::UNIX_EPOCH.elapsed().unwrap();
        let start = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = start + now.checked_sub(Duration::from_secs(30)).unwrap();
        params.not_after = start + now + Duration::from_secs(life);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        let signed = params.signed_by(&public_key, &self.issuer).unwrap();
        json!({
            "certificate": STANDARD.encode(signed.pem()),
            "ca": STANDARD.encode(self.root.pem()),
            "conditions": [
                {"type": "Approved", "status": "True", "reason": "cert-manager.io"},
                {"type": "Ready", "status": "True", "reason": "Issued"},
            ],
        })
    }
}

fn waiting(cluster: &Cluster) -> Vec<Value> {
    let listed = cluster.get("douane-system", "certificaterequests.cert-manager.io");
    let all = listed["items"].as_array().cloned().unwrap_or_default();
    all.into_iter().filter(|request| request["status"].is_null()).collect()
}

// Answers the next request.
fn answer(cluster: &Cluster, status: impl Fn(&Value) -> Value) {
    let request = eventually("a request comes", LIMIT, || {
        waiting(cluster).into_iter().next().ok_or_else(|| "none".to_owned())
    });
    let name =
        format!("certificaterequest.cert-manager.io/{}", request["metadata"]["name"].as_str().unwrap());
    cluster.set_status("douane-system", &name, &status(&request));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a real Kubernetes API server: tests/kubernetes/run"]
async fn an_issuer_of_cert_manager_signs_our_intermediates_and_what_it_denies_changes_nothing() {
    let cluster = installed();
    cluster.apply(KIND);
    let crd = "crd/certificaterequests.cert-manager.io";
    let said = cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", crd]);
    assert!(said.ok, "{}", said.err);
    cluster.apply(RIGHTS);
    let said = cluster.kubectl(&["apply", "-f", &format!("{SHOP}/namespaces.yaml")]);
    assert!(said.ok, "{}", said.err);
    run_pod(&cluster, &WEB);
    let managers = CertManagers::new();

    let issuer = IssuerRef { name: "corp".to_owned(), ..IssuerRef::default() };
    let starting = Plane::start_with(&cluster, |config| {
        config.authority.upstream = Some(Upstream::CertManager(CertManager { issuer }));
    });
    let signing = async { tokio::task::block_in_place(|| answer(&cluster, |it| managers.sign(it))) };
    let (plane, ()) = tokio::join!(starting, signing);
    plane.is_ready();
    let svid = plane.svid(&cluster, "shop", "web-1", "web").await;
    assert_eq!(svid.chain.len(), 2);
    let bundle = std::fs::read_to_string(plane.bundle()).unwrap();
    let (_, block) = bundle.split_once("-----BEGIN").unwrap();
    assert_eq!(
        block.replace(['\r', '\n'], ""),
        managers.root.pem().split_once("-----BEGIN").unwrap().1.replace(['\r', '\n'], "")
    );
    assert!(
        cluster.get("douane-system", "certificaterequests.cert-manager.io")["items"]
            .as_array()
            .unwrap()
            .is_empty()
    );

    // An operator asks for another one, and is told what the issuer has against it; the old one signs on.
    let folder = StateFolder::new(plane.state());
    let rotate = || {
        let folder = folder.clone();
        tokio::task::spawn_blocking(move || call(&folder, &Command::RotateIntermediate).unwrap())
    };
    let denied = rotate();
    let condition =
        json!({"conditions": [{"type": "Denied", "status": "True", "message": "not in office hours"}]});
    tokio::task::block_in_place(|| answer(&cluster, |_| condition.clone()));
    let Answer::Refused(why) = denied.await.unwrap() else { panic!("it was denied") };
    assert!(why.contains("not in office hours"), "{why}");
    assert_eq!(plane.svid(&cluster, "shop", "web-1", "web").await.chain[1], svid.chain[1]);

    let granted = rotate();
    tokio::task::block_in_place(|| answer(&cluster, |it| managers.sign(it)));
    assert!(matches!(granted.await.unwrap(), Answer::Done { .. }));
    assert_ne!(plane.svid(&cluster, "shop", "web-1", "web").await.chain[1], svid.chain[1]);
    plane.stop().await;
    assert!(waiting(&cluster).is_empty(), "nothing is left behind");
}
