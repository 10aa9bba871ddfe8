//! The lab itself: it comes up, refuses folders that cannot run, and leaves nothing behind however it ends.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use douane_tests::{processes, wait::eventually};

use super::{lab, started, yaml::PLAIN};

/// Namespaces are torn down by the kernel in the background.
const GONE: Duration = Duration::from_secs(60);

#[test]
fn pods_reach_each_other_by_name_and_by_both_kinds_of_address() {
    let Some(lab) = lab(&[("town.yaml", PLAIN)]) else { return };
    let addresses = lab.pod("answerer")["addresses"].clone();
    let v4 = addresses[0].as_str().expect("an IPv4 address").to_owned();
    let v6 = addresses[1].as_str().expect("an IPv6 address").to_owned();

    for host in [v4, format!("[{v6}]"), "answerer".into(), "answerer.town.svc.cluster.local".into()] {
        let ran = lab.exec("asker", &["shop", "get", &format!("http://{host}:8080/")]);
        assert!(ran.out.starts_with("200 "), "{host}: {ran:?}");
    }
    assert_eq!(lab.exec("asker", &["sh", "-c", "exit 7"]).code, 7, "an exit code passes through exec");
}

#[test]
fn ctrl_c_takes_everything_down_and_is_no_error() {
    let Some(mut lab) = lab(&[("town.yaml", PLAIN)]) else { return };
    let processes = processes::below(lab.pid());
    lab.signal("INT");
    assert_eq!(lab.ended(), 0, "{}", lab.said());
    nobody_is_left(&processes);
    nothing_is_left(lab.runtime());
}

#[test]
fn a_kill_9_leaves_no_process_behind() {
    let Some(mut lab) = lab(&[("town.yaml", PLAIN)]) else { return };
    let processes = processes::below(lab.pid());
    assert!(processes.len() > 2, "the lab has processes of its own: {processes:?}");
    lab.signal("KILL");
    lab.ended();
    nobody_is_left(&processes);
}

#[test]
fn a_folder_that_cannot_run_is_refused_with_file_and_line() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - name: app\n";
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: NAME}\nspec:\n  clusterIP: 10.96.0.7\n  ports: [{port: 80}]\n";
    let cases = [
        ("bad YAML", "kind: Pod\nmetadata: [".to_owned(), "town.yaml:"),
        ("a missing command", format!("{pod}    command: [no-such-program]\n"), "town.yaml:7"),
        (
            "a volume, which the lab has not",
            format!("{pod}    command: [sh]\n  volumes: [{{name: v}}]\n"),
            "town.yaml:8",
        ),
        (
            "an address twice",
            format!("{}---\n{}", service.replace("NAME", "a"), service.replace("NAME", "b")),
            "town.yaml:12",
        ),
        (
            "a kind that is not understood",
            "apiVersion: networking.istio.io/v1\nkind: EnvoyFilter\nmetadata: {name: a}\n".to_owned(),
            "town.yaml:2",
        ),
    ];
    for (what, text, place) in &cases {
        let Some(mut lab) = started(&[("town.yaml", text)]) else { return };
        assert_ne!(lab.ended(), 0, "{what} must be refused");
        let said = lab.said();
        assert!(said.contains(place), "{what}: {place} expected in:\n{said}");
        nothing_is_left(lab.runtime());
    }
}

fn nobody_is_left(processes: &[u32]) {
    eventually("every process of the lab is gone", GONE, || {
        let left: Vec<_> = processes.iter().filter(|pid| processes::is_alive(**pid)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

/// No file but the empty lock that keeps two labs apart.
fn nothing_is_left(runtime: &Path) {
    let mut left = walk(runtime);
    left.retain(|path| path.file_name().is_none_or(|name| name != "lock"));
    assert!(left.is_empty(), "files stay behind: {left:?}");
}

/// Every file below a folder.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
