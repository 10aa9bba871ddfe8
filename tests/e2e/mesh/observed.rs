//! What an operator makes of the access logs of a real mesh: policies that lint clean and change no recorded verdict.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
    time::Duration,
};

use douane_tests::{lab::Lab, wait::eventually};
use serde_json::Value;

use super::{LAB, get, lab, yaml};

/// Records are written when a request ends, by a thread of their own.
const RECORDED: Duration = Duration::from_secs(60);
/// Whose law decides.
const PODS: [&str; 3] = ["answerer-1", "answerer-2", "keeper"];

#[test]
fn what_the_access_logs_of_a_mesh_suggest_lints_clean_and_changes_no_recorded_verdict() {
    let Some(lab) = lab(&[("mesh.yaml", yaml::MESH), ("law.yaml", yaml::LAW)]) else { return };
    for path in ["/open", "/open/1", "/open/2", "/open/3", "/open/4", "/open/5", "/open/door?secret=1"] {
        assert!(get(&lab, "asker", &format!("http://answerer{path}")).starts_with("200 "), "{path}");
    }
    assert!(lab.exec("asker", &["shop", "ledger-say", "keeper:7000", "ENTRY one"]).out.contains("OK"));
    assert!(get(&lab, "asker", "http://answerer/closed").starts_with("403 "));
    assert!(get(&lab, "stranger", "http://answerer/open").starts_with("403 "));
    assert_ne!(lab.exec("stranger", &["shop", "ledger-say", "keeper:7000", "ENTRY two"]).code, 0);
    let desk = Desk::of(&lab);

    let suggested = desk.policy(&["suggest", "--log", "access.log", "--resources", "mesh.yaml"]);

    assert_eq!(suggested.status.code(), Some(0), "{suggested:?}");
    let proposed = text(&suggested.stdout);
    for part in [
        "selector: {matchLabels: {app: answerer}}",
        "- source: {principals: [cluster.local/ns/town/sa/asker]}",
        "- operation: {methods: [GET], paths: [/open, /open/door, \"/open/{*}\"]}",
        "selector: {matchLabels: {app: keeper}}",
        "- operation: {ports: [\"7000\"]}",
    ] {
        assert!(proposed.contains(part), "{part} expected in:\n{proposed}");
    }
    assert!(!proposed.contains("stranger") && !proposed.contains("closed"), "{proposed}");
    assert!(text(&suggested.stderr).contains("3 requests were refused"), "{suggested:?}");
    desk.put("proposed.yaml", proposed);
    let linted = desk.policy(&["lint", "--strict", "proposed.yaml", "mesh.yaml"]);
    assert_eq!(linted.status.code(), Some(0), "{linted:?}");

    let same = desk.diff("proposed.yaml");
    assert_eq!((&same["compared"], &same["changed"]), (&11.into(), &0.into()), "{same:#}");
    let notes = same["notes"].to_string();
    assert!(!notes.contains("otherwise") && !notes.contains("left out"), "what the sidecars said: {notes}");

    // Who takes the law back is told so: the comparison does compare.
    let nobody = yaml::LAW.replace("sa/asker", "sa/somebody");
    desk.put("nobody.yaml", &nobody);
    let other = desk.diff("nobody.yaml");
    assert_eq!(other["changed"], 8, "{other:#}");
}

/// A folder with the mesh's files and the logs of its sidecars.
struct Desk(PathBuf);

impl Desk {
    fn of(lab: &Lab) -> Self {
        let folder = lab.runtime().join("desk");
        fs::create_dir_all(&folder).unwrap();
        let desk = Self(folder);
        desk.put("mesh.yaml", yaml::MESH);
        desk.put("law.yaml", yaml::LAW);
        let log = eventually("every request is recorded", RECORDED, || {
            let inbound = PODS.iter().flat_map(|pod| lab.records(pod));
            let inbound = inbound.filter(|record| record["direction"] == "inbound").count();
            if inbound == 11 {
                Ok(PODS.map(|pod| lab.log(pod)).concat())
            } else {
                Err(format!("{inbound} of 11"))
            }
        });
        desk.put("access.log", &log);
        desk
    }

    fn put(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
    }

    fn policy(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(LAB);
        command.args(["role-play", "douane", "policy"]).args(arguments).current_dir(&self.0);
        command.output().unwrap()
    }

    /// What the law of the mesh and another one say of what was recorded.
    fn diff(&self, new: &str) -> Value {
        let arguments =
            ["law.yaml", new, "--resources", "mesh.yaml", "--requests", "access.log", "-o", "json"];
        let output = self.policy(&[&["diff"][..], &arguments].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}
