//! The certificates and keys of a Kubernetes of our own: one authority, the API server's and an administrator's
//! certificate, and the key that service account tokens are signed with.

use std::{fs, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Writes all of them into `folder`: `ca.crt`, `server.crt`, `server.key`, `admin.crt`, `admin.key`, `sa.key`, `sa.pub`.
pub(super) fn write(folder: &Path) {
    let put = |name: &str, text: String| fs::write(folder.join(name), text).expect("the folder is ours");
    let authority_key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.distinguished_name.push(DnType::CommonName, "kubernetes");
    let certificate = params.self_signed(&authority_key).expect("a root");
    put("ca.crt", certificate.pem());
    let authority = Issuer::new(params, authority_key);

    let names = ["127.0.0.1", "localhost", "kubernetes.default.svc", "10.96.0.1"].map(str::to_owned);
    let mut server = CertificateParams::new(names).expect("names and addresses");
    server.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let mut admin = CertificateParams::default();
    admin.distinguished_name.push(DnType::CommonName, "admin");
    // Kubernetes' own group of those who may do anything.
    admin.distinguished_name.push(DnType::OrganizationName, "system:masters");
    admin.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    for (name, params) in [("server", server), ("admin", admin)] {
        let key = KeyPair::generate().expect("a key");
        put(&format!("{name}.crt"), params.signed_by(&key, &authority).expect("a certificate").pem());
        put(&format!("{name}.key"), key.serialize_pem());
    }

    let tokens = KeyPair::generate().expect("a key");
    put("sa.key", tokens.serialize_pem());
    put("sa.pub", tokens.public_key_pem());
}
