//! An application in a pod of the lab: told nothing but an environment variable, it has its identity.

use douane_tests::{counterparts, lab::Lab, namespaces};
use serde_json::Value;

const LAB: &str = env!("CARGO_BIN_EXE_lab-under-test");
const TOWN: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: asker, namespace: town}
---
apiVersion: v1
kind: Pod
metadata: {name: asker, namespace: town, labels: {douane.io/inject: enabled}}
spec: {serviceAccountName: asker, containers: [{name: app, command: [shop, sleep]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: tourist, namespace: town}
spec: {containers: [{name: app, command: [shop, sleep]}]}
";

#[test]
fn w10_an_application_of_the_lab_finds_its_identity_and_not_its_sidecars_own_files() {
    let Some(python) = counterparts::python() else { return };
    let Some(lab) = namespaces::are_available().then(|| Lab::up(LAB, &[("town.yaml", TOWN)])) else { return };
    let script = counterparts::script("workload_api.py");

    let ran = lab.exec("town/asker", &[python.to_str().unwrap(), script.to_str().unwrap(), "fetch"]);

    assert_eq!(ran.code, 0, "{ran:?}");
    let said: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(said["spiffe_id"], "spiffe://cluster.local/ns/town/sa/asker");
    let seen = lab.exec("town/asker", &["sh", "-c", "ls -A /run/douane; ls /run/spiffe"]);
    assert_eq!(seen.out.trim(), "workload.sock", "{seen:?}");
    let without = lab.exec("town/tourist", &["sh", "-c", "echo \"[$SPIFFE_ENDPOINT_SOCKET]\""]);
    assert_eq!(without.out.trim(), "[]", "a pod without a sidecar is told of none");
}
