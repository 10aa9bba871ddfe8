//! What an operator sees of a real mesh's traffic: `douane edges` and its like, over the control plane's own socket.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, Output},
    time::Duration,
};

use douane_tests::{lab::Lab, processes, wait::eventually};
use serde_json::Value;

use super::{LAB, get, lab, yaml};

/// Sidecars tell every five seconds.
const TOLD: Duration = Duration::from_secs(40);

/// The commands of an operator who stands beside the control plane.
struct Operator<'a>(&'a Lab);

impl Operator<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        self.0.douane(arguments)
    }

    // `douane-lab-UID/PID/ca` in the runtime folder.
    fn dir(&self) -> PathBuf {
        let below = |folder: PathBuf| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let labs = below(self.0.runtime().to_owned()).filter(|path| path.is_dir()).flat_map(below);
        let mut found = labs.map(|lab| lab.join("ca")).filter(|dir| dir.is_dir());
        found.next().expect("the lab has a control plane")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["-o", "json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    /// The edges, as soon as they are what is awaited.
    fn edges(&self, are_awaited: impl Fn(&Value) -> bool) -> Value {
        eventually("the edges are told", TOLD, || {
            let edges = self.json(&["edges"]);
            if are_awaited(&edges) { Ok(edges) } else { Err(format!("{edges:#}")) }
        })
    }
}

/// The edge between these two.
fn edge<'a>(view: &'a Value, from: &str, to: &str) -> &'a Value {
    let edges = view["edges"].as_array().unwrap();
    let is_it = |edge: &&Value| edge["from"]["name"] == from && edge["to"]["name"] == to;
    edges.iter().find(is_it).unwrap_or(&Value::Null)
}

#[test]
fn the_edges_of_known_calls_are_told_from_both_ends_with_counts_and_mtls() {
    let Some(lab) = lab(&[("mesh.yaml", yaml::MESH), ("law.yaml", yaml::LAW)]) else { return };
    let operator = Operator(&lab);
    for _ in 0..5 {
        assert!(get(&lab, "asker", "http://answerer/open?secret=1").starts_with("200 "));
    }
    assert!(get(&lab, "asker", "http://answerer/closed").starts_with("403 "));
    assert!(get(&lab, "stranger", "http://answerer/open").starts_with("403 "));
    assert!(lab.exec("asker", &["shop", "ledger-say", "keeper:7000", "ENTRY one"]).out.contains("OK"));

    let view = operator.edges(|view| {
        let allowed = edge(view, "town/asker", "town/answerer");
        allowed["destination"]["total"]["requests"] == 6
            && allowed["source"]["total"]["requests"] == 6
            && edge(view, "town/stranger", "town/answerer")["destination"]["total"]["denied"] == 1
            && edge(view, "town/asker", "town/keeper")["destination"]["total"]["streams"] == 1
    });

    let asked = edge(&view, "town/asker", "town/answerer");
    assert_eq!(asked["tls"], "mtls", "{asked:#}");
    assert_eq!(asked["from"]["identity"], "spiffe://cluster.local/ns/town/sa/asker");
    assert_eq!(asked["to"]["identity"], "spiffe://cluster.local/ns/town/sa/answerer");
    assert_eq!(asked["services"], serde_json::json!(["town/answerer"]));
    let destination = &asked["destination"];
    assert_eq!((&destination["total"]["denied"], &destination["total"]["failures"]), (&1.into(), &0.into()));
    assert!(destination["p50Ms"].as_f64().is_some_and(|ms| ms > 0.0), "{asked:#}");
    let stranger = edge(&view, "town/stranger", "town/answerer");
    assert_eq!((&stranger["tls"], &stranger["destination"]["success"]), (&"mtls".into(), &0.0.into()));
    let stream = edge(&view, "town/asker", "town/keeper");
    assert_eq!((&stream["tls"], &stream["destination"]["total"]["requests"]), (&"mtls".into(), &0.into()));
    assert!(!view.to_string().contains("secret"), "no word of a request is told: {view:#}");

    let table = operator.run(&["edges", "-n", "town"]);
    let text = String::from_utf8(table.stdout).unwrap();
    let line = text.lines().find(|line| line.starts_with("town/asker") && line.contains("town/answerer"));
    assert!(line.is_some_and(|line| line.contains(" yes ") && line.contains("both")), "{text}");
    let nowhere = operator.run(&["edges", "-n", "nowhere"]);
    assert!(String::from_utf8(nowhere.stdout).unwrap().starts_with("Nobody has talked"));
}

#[test]
fn the_figures_of_a_sidecar_that_dies_are_gone_and_those_of_the_next_one_begin_at_zero() {
    let Some(lab) = lab(&[("mesh.yaml", yaml::MESH), ("law.yaml", yaml::LAW)]) else { return };
    let operator = Operator(&lab);
    assert!(get(&lab, "asker", "http://answerer/open").starts_with("200 "));
    operator.edges(|view| edge(view, "town/asker", "town/answerer")["source"]["total"]["requests"] == 1);

    let asker = lab.sidecar("asker");
    processes::signal(asker, "KILL");
    super::is_back(&lab, "asker");

    let view = operator.edges(|view| {
        let edge = edge(view, "town/asker", "town/answerer");
        edge["source"].is_null() && !edge["destination"].is_null()
    });
    assert!(view["sidecars"].as_u64().is_some_and(|sidecars| sidecars >= 5), "{view:#}");
}

#[test]
fn another_user_of_the_machine_learns_nothing_and_is_told_who_may() {
    let Some(lab) = lab(&[("mesh.yaml", yaml::PLAIN)]) else { return };
    let operator = Operator(&lab);
    if !processes::is_root() {
        eprintln!("skipped: only root can become somebody else");
        return;
    }

    let mut stranger = Command::new(LAB);
    stranger.args(["role-play", "douane", "edges", "--dir"]).arg(operator.dir());
    let asked = stranger.uid(NOBODY).gid(NOBODY).output().unwrap();

    assert_eq!((asked.status.code(), asked.stdout.len()), (Some(1), 0), "{asked:?}");
    let why = String::from_utf8(asked.stderr).unwrap();
    assert!(why.contains("the control plane's own user and by root only"), "{why}");
    let gone = operator.command(&["edges", "--dir", "/nowhere"]).output().unwrap();
    let why = String::from_utf8(gone.stderr).unwrap();
    assert!(why.contains("no control plane runs on /nowhere"), "{why}");
}

/// Whoever has no files and no processes.
const NOBODY: u32 = 65_534;
