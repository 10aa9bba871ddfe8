//! What is the same for every command: the standard input as a file, a reader that goes away, help, and what is missing.

use std::process::Stdio;

use crate::desk::Desk;

const LAW: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: shop}
spec: {rules: [{to: [{operation: {methods: [GET]}}]}]}
";

const CASES: &str = "
- name: one
  files: [law.yaml]
  workload: {namespace: shop}
  requests: [{source: {principal: cluster.local/ns/shop/sa/web}, expect: allow}]
";

const LOG: &str = r#"{"kind":"access","direction":"inbound","protocol":"h2","namespace":"shop","pod":"a","service":"a","method":"GET","authority":"a","path":"/","status":200,"peer_id":"spiffe://cluster.local/ns/shop/sa/web","peer_addr":"10.0.0.1:1","destination":"10.0.0.2:80","decision":"allow"}
"#;

#[test]
fn a_file_may_be_the_standard_input() {
    let desk = Desk::new().with("law.yaml", LAW);
    desk.policy_reading(&["lint", "-"], LAW).exits(0).says("0 errors, 0 warnings");
    desk.policy_reading(&["lint", "-"], "kind: [").exits(1).says("-:1: error");
    desk.policy_reading(&["test", "-"], CASES).exits(0).says("1 passed");
    desk.policy_reading(&["suggest", "--log", "-"], LOG).exits(0).says("paths: [/]");
    desk.policy_reading(&["diff", "law.yaml", "law.yaml", "--requests", "-"], CASES).exits(0).says("0 of 1");
    let arguments =
        ["can-i", "--resources", "-", "--from", "shop/web", "--workload", "shop/a", "--label", "app=a"];
    desk.policy_reading(&[&arguments[..], &["--port", "80", "GET", "/"]].concat(), LAW)
        .exits(0)
        .says("yes: ");
}

#[test]
fn other_lines_may_stand_among_those_of_a_log() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: shop, labels: {app: a}}\nspec: {containers: [{name: a}]}\n---";
    let desk = Desk::new().with("law.yaml", &format!("{pod}{LAW}"));
    let log = format!("listening on port 80\n{LOG}");
    let said = desk.policy_reading(&["diff", "law.yaml", "law.yaml", "--requests", "-"], &log);
    said.exits(0).says("0 of 1 requests change").says("1 lines are no JSON");
}

#[test]
fn a_reader_that_goes_away_is_no_error_and_leaves_the_verdict() {
    let desk = Desk::new().with("law.yaml", LAW).with("broken.yaml", "kind: [");
    for (file, format, code) in [("law.yaml", "text", 0), ("law.yaml", "json", 0), ("broken.yaml", "text", 1)]
    {
        let mut command = desk.command(&["lint", file, "-o", format]);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command.stdin(Stdio::null()).stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{file} {format}");
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn what_cannot_be_read_is_named_once_and_is_no_answer() {
    let desk = Desk::new().with("law.yaml", LAW).with("cases.yaml", CASES).with("folder/.hidden", "");
    for arguments in [
        &["lint", "nowhere"][..],
        &["test", "nowhere"],
        &["suggest", "--log", "nowhere"],
        &["diff", "law.yaml", "nowhere", "--requests", "cases.yaml"],
        &["diff", "law.yaml", "law.yaml", "--requests", "nowhere"],
        &["can-i", "--resources", "nowhere", "--from", "a/b", "--workload", "a/b", "--port", "1"],
    ] {
        let said = desk.policy(arguments);
        said.exits(2);
        assert!(said.err.contains("nowhere"), "{}", said.err);
        assert_eq!(said.err.matches("No such file").count(), 1, "{}", said.err);
    }
    for arguments in [&["lint", "folder"][..], &["test", "folder"], &["suggest", "--log", "folder"]] {
        desk.policy(arguments).exits(2);
    }
}

#[test]
fn no_line_of_an_example_in_the_help_is_broken() {
    let desk = Desk::new();
    let said = desk.policy(&["test", "--help"]);
    let (_, after) = said.exits(0).out.split_once("network is needed.").unwrap();
    let (example, _) = after.split_once("Of a case").unwrap();
    // The example itself is a case file, and passes.
    desk.policy_reading(&["test", "-"], example).exits(0).says("3 passed, 0 failed");
    for command in ["lint", "test", "can-i", "explain", "diff", "suggest"] {
        let said = desk.policy(&[command, "--help"]);
        said.exits(0).says("Exit codes:");
    }
}
