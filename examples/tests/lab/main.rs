//! The lab without a mesh: pods, names, containers, and that nothing is left behind. As root and as anybody.

#![expect(clippy::unwrap_used, reason = "what a test sets up works, or the test fails")]

mod started;

use std::{fs, process::Stdio};

use serde_json::Value;
use started::{Folder, Started, eventually, lab, signal};

/// A server in two replicas behind a service, and somebody to ask it.
const PAIR: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: partner, namespace: town}
spec:
  replicas: 2
  selector: {matchLabels: {app: partner}}
  template:
    metadata: {labels: {app: partner}}
    spec:
      containers:
        - name: partner
          image: passed/over:1
          command: ["shop", "partner"]
          args: ["--listen", "[::]:$(PORT)"]
          env:
            - {name: PORT, value: "80"}
            - {name: OWN, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
          ports: [{name: http, containerPort: 80}]
          resources: {limits: {memory: 1Gi}}
---
apiVersion: v1
kind: Service
metadata: {name: partner, namespace: town}
spec:
  selector: {app: partner}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: town}
spec:
  serviceAccountName: asker
  containers:
    - {name: sleep, command: [shop, sleep]}
"#;

/// The same with sidecars, and a law that lets the client in.
fn meshed() -> Vec<(&'static str, String)> {
    let label = "labels: {douane.io/inject: enabled";
    let pair = PAIR.replace("labels: {app", &format!("{label}, app"));
    let pair = pair
        .replace("{name: client, namespace: town}", &format!("{{name: client, namespace: town, {label}}}}}"));
    let law = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: let-in, namespace: town}\n\
               spec: {rules: [{from: [{source: {principals: [cluster.local/ns/town/sa/asker]}}]}]}\n";
    vec![("pair.yaml", pair), ("law.yaml", law.to_owned())]
}

#[test]
fn pods_reach_each_other_by_both_families_and_by_service_names() {
    let Some(lab) = Started::with(&[("pair.yaml", PAIR)]) else { return };

    for host in ["10.77.0.11", "[fd77::b]", "partner", "partner.town", "partner.town.svc.cluster.local"] {
        let answer = lab.exec("client", &["shop", "get", &format!("http://{host}/")]);

        assert!(answer.starts_with("200 "), "{host}: {answer}");
    }
}

#[test]
fn an_application_has_its_environment_and_no_privilege() {
    let Some(lab) = Started::with(&[("pair.yaml", PAIR)]) else { return };

    let environment = lab.exec("town/partner-2", &["env"]);
    let status = lab.exec("town/partner-2", &["cat", "/proc/self/status"]);

    assert!(environment.contains("OWN=10.77.0.12\n"), "{environment}");
    assert!(environment.contains("HOSTNAME=partner-2\n"), "{environment}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(status.contains(&format!("{set}:\t0000000000000000\n")), "{status}");
    }
    assert!(status.contains("NoNewPrivs:\t1\n"), "{status}");
}

#[test]
fn an_interrupt_ends_all_in_order() {
    let Some(mut lab) = Started::with(&[("pair.yaml", PAIR)]) else { return };
    let processes = lab.processes();

    lab.signal("INT");

    assert!(lab.wait().success());
    assert!(processes.len() >= 5, "launcher, init, daemon, containers: {processes:?}");
    eventually("nothing is left", || lab.nothing_is_left_of(&processes));
}

#[test]
fn a_demo_that_was_interrupted_is_no_success() {
    if Started::with(&[("pair.yaml", PAIR)]).is_none() {
        return;
    }
    let nothing: [(&str, &str); 0] = [];
    let folder = Folder::with(&nothing);
    let mut demo = lab(&folder).arg("demo").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("the demo's lab is there", || {
        lab(&folder).arg("status").stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    });

    signal("INT", demo.id());

    assert_eq!(demo.wait().unwrap().code(), Some(130));
    assert!(folder.no_lab_is_left());
}

#[test]
fn a_killed_launcher_leaves_nothing_behind() {
    let Some(mut lab) = Started::with(&[("pair.yaml", PAIR)]) else { return };
    let processes = lab.processes();

    lab.signal("KILL");

    lab.wait();
    eventually("nothing is left", || lab.nothing_is_left_of(&processes));
}

#[test]
fn a_killed_daemon_leaves_nothing_behind() {
    let Some(mut lab) = Started::with(&[("pair.yaml", PAIR)]) else { return };
    let processes = lab.processes();

    lab.kill("lab-daemon");

    assert!(!lab.wait().success());
    eventually("nothing is left", || lab.nothing_is_left_of(&processes));
}

#[test]
fn a_container_that_ends_is_started_again() {
    let Some(lab) = Started::with(&[("pair.yaml", PAIR)]) else { return };

    lab.kill("shop\0partner");

    eventually("the partner answers again", || {
        lab.exec("client", &["shop", "get", "http://10.77.0.11/"]).starts_with("200 ")
    });
    assert!(lab.said().contains("starts again"), "{}", lab.said());
}

#[test]
fn a_sidecar_that_dies_is_back_at_once() {
    let Some(lab) = Started::with(&meshed()) else { return };
    let ask = || lab.exec("client", &["shop", "get", "http://partner/"]);
    assert!(ask().starts_with("200 "), "{}", ask());

    lab.kill("douane-proxy\0run");

    eventually("the pods reach each other again", || ask().starts_with("200 "));
    assert!(lab.said().contains("client sidecar: signal: 9 (SIGKILL); starts again"), "{}", lab.said());
}

#[test]
fn an_application_sees_neither_its_sidecars_secrets_nor_the_labs_own_files() {
    let Some(lab) = Started::with(&meshed()) else { return };
    let labs = lab.folder().labs();
    let list = format!("ls -A /run/douane /run/secrets/douane {labs}");

    let seen = lab.exec("client", &["sh", "-c", &list]);
    let token = lab.run(&["exec", "-c", "douane-proxy", "client", "--", "ls", "-A", "/run/secrets/douane"]);

    assert_eq!(seen, format!("/run/douane:\n\n/run/secrets/douane:\n\n{labs}:\n"));
    assert_eq!(token, "bundle.pem\ntoken\n");
}

#[test]
fn a_service_that_comes_later_gets_its_names() {
    let Some(lab) = Started::with(&[("pair.yaml", PAIR)]) else { return };
    let later = "apiVersion: v1\nkind: Service\nmetadata: {name: later, namespace: town}\n\
                 spec: {selector: {app: partner}, ports: [{port: 80}]}\n";

    lab.folder().write("later.yaml", later);

    eventually("the name leads to the partner", || {
        lab.exec("client", &["shop", "get", "http://later/"]).starts_with("200 ")
    });
    lab.folder().remove("later.yaml");
    eventually("the name is gone", || !lab.exec("client", &["cat", "/etc/hosts"]).contains("later"));
}

#[test]
fn a_file_that_breaks_while_the_lab_runs_is_named_with_its_line() {
    let Some(lab) = Started::with(&[("pair.yaml", PAIR)]) else { return };

    lab.folder().write("law.yaml", "kind: Pod\nmetadata: [");

    eventually("the operator is told", || lab.said().contains("law.yaml:2: "));
    assert!(lab.exec("client", &["shop", "get", "http://partner/"]).starts_with("200 "));
}

#[test]
fn status_is_an_array_for_programs() {
    let Some(lab) = Started::with(&[("pair.yaml", PAIR)]) else { return };

    let status: Value = serde_json::from_str(&lab.run(&["status", "-o", "json"])).unwrap();

    let client = &status[0];
    assert_eq!(client["pod"], "client");
    assert_eq!(client["addresses"][0], "10.77.0.13");
    assert_eq!(client["spiffe_id"], Value::Null, "nobody proves who a pod without a sidecar is");
    assert_eq!(client["meshed"], false);
    assert_eq!(client["ready"], true);
    assert!(fs::exists(client["log"].as_str().unwrap()).unwrap());
}

#[test]
fn a_folder_that_cannot_run_says_where_and_leaves_nothing() {
    let pod = |spec: &str| format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n{spec}");
    let service = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  clusterIP: 10.96.0.7\n---\n"
        )
    };
    let cases = [
        (
            pod("  containers:\n  - {name: c, command: [no-such-program]}\n"),
            "a.yaml:6: container c: no program",
        ),
        (pod("  containers:\n  - {name: c, image: some}\n"), "a.yaml:6: container c has no command"),
        (pod("  volumes: []\n  containers:\n  - {name: c\n"), "a.yaml:7: this is no valid YAML"),
        (
            pod("  volumes:\n  - {name: v}\n  containers:\n  - {name: c, command: [sh]}\n"),
            "a.yaml:5: the lab mounts no",
        ),
        (service("one") + &service("two"), "a.yaml:11: address 10.96.0.7 is already taken at"),
    ];
    for (text, expected) in cases {
        let folder = Folder::with(&[("a.yaml", &text)]);

        let done = lab(&folder).args(["up", folder.yaml()]).output().unwrap();

        let said = String::from_utf8(done.stderr).unwrap();
        assert!(!done.status.success(), "{text}");
        assert!(said.contains(expected), "{said}\nfor\n{text}");
        assert!(folder.no_lab_is_left(), "{text}");
    }
}

#[test]
fn a_variable_that_is_none_is_refused_with_what_to_write() {
    let folder = Folder::with(&[("pair.yaml", PAIR)]);
    for (given, expected) in [
        ("DOUANE_TRACE_SAMPLER", "write it as NAME=VALUE"),
        ("=0.01", "\"\" is no name of a variable; write letters, digits and _, as in NAME=VALUE"),
        ("1A=0.01", "\"1A\" is no name of a variable"),
        ("TRACE SAMPLER=0.01", "\"TRACE SAMPLER\" is no name of a variable"),
    ] {
        let done = lab(&folder).args(["up", folder.yaml(), "--sidecar-env", given]).output().unwrap();

        let said = String::from_utf8(done.stderr).unwrap();
        assert!(!done.status.success() && said.contains(expected), "{given}: {said}");
        assert!(folder.no_lab_is_left(), "{given}");
    }
}
