//! What an operator sees of a real mesh's traffic: `douane edges` and its like, over the control plane's own socket.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use douane_tests::{lab::Lab, processes, wait::eventually};
use serde_json::Value;

use super::{LAB, get, lab, yaml};

/// Sidecars tell every five seconds.
const TOLD: Duration = Duration::from_secs(90);

/// The commands of an operator who stands beside the control plane.
pub(super) struct Operator<'a>(pub(super) &'a Lab);

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

    pub(super) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub(super) fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["-o", "json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    /// The edges, as soon as they are what is awaited.
    pub(super) fn edges(&self, are_awaited: impl Fn(&Value) -> bool) -> Value {
        eventually("the edges are told", TOLD, || {
            let edges = self.json(&["edges"]);
            if are_awaited(&edges) { Ok(edges) } else { Err(format!("{edges:#}")) }
        })
    }
}

/// The edge between these two.
pub(super) fn edge<'a>(view: &'a Value, from: &str, to: &str) -> &'a Value {
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

    // Seven requests came to its sidecars, of which two were denied.
    let stat = operator.json(&["stat", "answerer"]);
    let workload = &stat["workloads"][0];
    assert_eq!((&workload["name"], &workload["sidecars"]), (&"town/answerer".into(), &2.into()), "{stat:#}");
    assert_eq!(workload["inbound"]["total"]["requests"], 7);
    let window = &workload["inbound"]["window"];
    let (requests, denied) = (window["requests"].as_f64().unwrap(), window["denied"].as_f64().unwrap());
    let success = workload["inbound"]["success"].as_f64().unwrap();
    assert!(requests >= 1.0 && (success - (requests - denied) / requests).abs() < 0.001, "{stat:#}");
    assert_eq!(stat["services"][0]["name"], "town/answerer", "by the callers' word: {stat:#}");
    let top = operator.run(&["top", "--once"]);
    let text = String::from_utf8(top.stdout).unwrap();
    assert!(text.contains("the last 60 s") && text.contains("town/keeper"), "{text}");
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
fn a_tap_sees_what_it_asks_for_while_it_happens_and_no_query_and_no_header() {
    let Some(lab) = lab(&[("mesh.yaml", yaml::MESH), ("law.yaml", yaml::LAW)]) else { return };
    let operator = Operator(&lab);
    let asked =
        ["tap", "--from", "town/asker", "--to", "town/answerer", "--path", "/open/seen", "-o", "json"];
    let mut tap = operator.command(&asked).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(tap.stdout.take().unwrap()).lines();
    let (told, heard) = mpsc::channel();
    let reader = thread::spawn(move || {
        while let Some(Ok(line)) = lines.next() {
            let _ = told.send(line);
        }
    });

    // Until the tap is open nobody sees anything.
    let first = eventually("a request is seen live", TOLD, || {
        assert!(get(&lab, "stranger", "http://answerer/open/seen").starts_with("403 "));
        assert!(get(&lab, "asker", "http://answerer/open/unseen").starts_with("200 "));
        assert!(get(&lab, "asker", "http://answerer/open/seen/1?token=secret").starts_with("200 "));
        heard.recv_timeout(Duration::from_secs(1)).map_err(|error| error.to_string())
    });
    tap.kill().unwrap();
    tap.wait().unwrap();
    reader.join().unwrap();

    let rest: Vec<String> = heard.try_iter().collect();
    for line in [&first].into_iter().chain(&rest) {
        let seen: Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (&seen["from"]["name"], &seen["to"]["name"]),
            (&"town/asker".into(), &"town/answerer".into())
        );
        assert_eq!((&seen["end"], &seen["path"]), (&"destination".into(), &"/open/seen/1".into()), "{line}");
        assert_eq!(
            (&seen["method"], &seen["status"], &seen["decision"]),
            (&"GET".into(), &200.into(), &"allow".into())
        );
        assert!(seen["tls"].as_str().is_some_and(|tls| tls.starts_with("TLSv1.3")), "{line}");
        assert!(seen["place"].as_str().is_some_and(|place| place.contains("law.yaml:")), "{line}");
        assert!(!line.contains("secret") && !line.contains("token"), "{line}");
    }
    let nobody = operator.run(&["tap", "--from", "town/nobody"]);
    let why = String::from_utf8(nobody.stderr).unwrap();
    assert!(nobody.status.code() == Some(1) && why.contains("town/asker"), "it says who there is: {why}");
}

#[test]
fn the_story_of_a_denied_request_names_both_ends_the_rule_and_what_to_change() {
    let Some(lab) = lab(&[("mesh.yaml", yaml::MESH), ("law.yaml", yaml::LAW)]) else { return };
    let operator = Operator(&lab);
    assert!(get(&lab, "asker", "http://answerer/closed?token=secret").starts_with("403 "));
    let source = lab.recorded("asker", |records| records.iter().any(|record| record["status"] == 403));
    let trace = source.iter().find(|record| record["status"] == 403).unwrap()["trace_id"].as_str().unwrap();

    let story = operator.json(&["why", trace]);

    let hop = &story["hops"][0];
    assert_eq!(story["hops"].as_array().unwrap().len(), 1, "{story:#}");
    assert_eq!((&hop["source"]["toldBy"], &hop["source"]["status"]), (&"town/asker".into(), &403.into()));
    assert_eq!(
        (&hop["destination"]["to"]["name"], &hop["destination"]["denied"]),
        (&"town/answerer".into(), &true.into())
    );
    let stop = &story["stopped"];
    assert_eq!(stop["policy"], "town/answerer-callers rule 1", "{story:#}");
    let place = stop["place"].as_str().unwrap();
    // The rule's own line.
    let line = 1 + yaml::LAW.lines().position(|line| line.contains("sa/answerer]")).unwrap();
    assert!(place.ends_with(&format!("law.yaml:{line}")), "{place}");
    assert!(
        stop["reason"].as_str().is_some_and(|reason| reason.contains("path /closed is not in")),
        "{stop:#}"
    );
    assert!(stop["mend"].to_string().contains("paths: [/closed]"), "{stop:#}");
    assert!(!story.to_string().contains("secret"), "{story:#}");

    let text = String::from_utf8(operator.run(&["why", trace]).stdout).unwrap();
    for part in ["town/asker -> town/answerer  GET /closed", "the law of town/answerer denied it", place] {
        assert!(text.contains(part), "{part} expected in:\n{text}");
    }
    // The same from the logs alone, when no sidecar remembers it.
    let span = hop["destination"]["spanId"].as_str().unwrap();
    let mut command = Command::new(LAB);
    command.args(["role-play", "douane", "why", trace, "-o", "json"]);
    for pod in ["asker", "answerer-1", "answerer-2"] {
        command.arg("--log").arg(lab.pod(pod)["log"].as_str().unwrap());
    }
    let logged = command.output().unwrap();
    let logged: Value =
        serde_json::from_slice(&logged.stdout).unwrap_or_else(|error| panic!("{error}: {logged:?}"));
    assert_eq!(logged["hops"][0]["source"]["status"], 403, "{logged:#}");
    assert_eq!(logged["hops"][0]["destination"]["spanId"], span, "{logged:#}");
    assert_eq!(logged["stopped"]["policy"], stop["policy"]);

    let unknown = operator.run(&["why", &"0".repeat(32)]);
    let why = String::from_utf8(unknown.stderr).unwrap();
    assert!(unknown.status.code() == Some(1) && why.contains("connected sidecars remembers it"), "{why}");
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
