//! An agent that nobody here wrote asks for certificates as Istio's do, over its own TLS and with its own idea of the wire;
//! openssl verifies what it got.

use std::{path::Path, process::Command};

use douane_tests::{counterparts, loopback};

use crate::alone::{ControlPlane, Folder, with_token};

/// Asks with a key of this kind; what the agent says. `None`, said aloud, where there is no Python with its packages.
fn ask(folder: &Folder, kind: &str, impersonated: &[&str]) -> Option<String> {
    let python = counterparts::python()?;
    let control_plane = ControlPlane::start(folder, loopback::own());
    let mut agent = Command::new(python);
    agent.arg(counterparts::script("istio_ca.py")).arg(control_plane.address.to_string());
    agent.args([folder.path("state/bundle.pem"), folder.path("token"), folder.path("")]);
    let said = agent.arg(kind).args(impersonated).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    Some(String::from_utf8(said.stdout).unwrap().trim().to_owned())
}

fn openssl(folder: &Folder, program: &Path, arguments: &[&str]) -> String {
    let done = Command::new(program).args(arguments).current_dir(folder.path("")).output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

fn gets_a_certificate(kind: &str) {
    let folder = with_token("shop");
    let Some(said) = ask(&folder, kind, &[]) else { return };
    assert_eq!(said, "OK");
    let Some(program) = counterparts::program("openssl") else { return };
    for purpose in ["sslserver", "sslclient"] {
        let chain = ["-CAfile", "roots.pem", "-untrusted", "issuers.pem", "leaf.pem"];
        openssl(&folder, &program, &[&["verify", "-x509_strict", "-purpose", purpose][..], &chain].concat());
    }
    let names = openssl(&folder, &program, &["x509", "-noout", "-ext", "subjectAltName", "-in", "leaf.pem"]);
    assert!(names.contains("URI:spiffe://cluster.local/ns/shop/sa/web"), "{names}");
    assert_eq!(names.matches("URI:").count(), 1, "{names}");
}

#[test]
fn an_agent_of_istios_gets_a_certificate_for_an_rsa_key_which_openssl_verifies() {
    gets_a_certificate("rsa");
}

#[test]
fn an_agent_of_istios_gets_a_certificate_for_an_elliptic_key_which_openssl_verifies() {
    gets_a_certificate("ec");
}

#[test]
fn an_agent_of_istios_that_asks_for_somebody_else_is_told_that_it_may_not() {
    let folder = with_token("shop");
    let Some(said) = ask(&folder, "ec", &["spiffe://cluster.local/ns/shop/sa/orders"]) else { return };
    assert_eq!(said, "PERMISSION_DENIED");
}
