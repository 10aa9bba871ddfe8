//! The alerts and dashboards of `kind-cluster/monitoring`: alerts fire when they should, and both ask only for figures that
//! a sidecar or the control plane really shows.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use douane_tests::counterparts;
use serde_json::Value;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../kind-cluster/monitoring")
}

fn dashboards() -> Vec<(PathBuf, Value)> {
    let read = fs::read_dir(folder().join("dashboards")).unwrap();
    let mut found: Vec<_> = read.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
        .into_iter()
        .map(|path| (path.clone(), serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()))
        .collect()
}

fn registrations() -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let folders = ["proxy/src/telemetry/metrics", "ca/src/metrics"];
    let files = folders.into_iter().flat_map(|folder| fs::read_dir(root.join(folder)).unwrap());
    files.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
}

fn promtool(arguments: &[&str]) -> Option<()> {
    let out = Command::new(counterparts::program("promtool")?)
        .args(arguments)
        .current_dir(folder())
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "promtool {arguments:?}:\n{said}");
    Some(())
}

#[test]
fn alerts_fire_when_they_should_and_a_healthy_mesh_is_silent() {
    promtool(&["check", "rules", "alerts.yaml"])
        .and_then(|()| promtool(&["test", "rules", "alerts_test.yaml"]));
}

#[test]
fn each_alert_is_tested_and_says_how_to_mend_it() {
    let rules = fs::read_to_string(folder().join("alerts.yaml")).unwrap();
    let tested = fs::read_to_string(folder().join("alerts_test.yaml")).unwrap();
    let alerts: Vec<_> = rules.split("- alert: ").skip(1).collect();
    assert!(alerts.len() > 15, "{}", alerts.len());
    for alert in alerts {
        let name = alert.lines().next().unwrap();
        assert!(tested.contains(&format!("alertname=\"{name}\"")), "{name} has no test");
        for part in ["summary:", "mend:", "severity:"] {
            assert!(alert.contains(part), "{name} has no {part}");
        }
    }
}

#[test]
fn alerts_and_dashboards_ask_only_for_figures_that_exist() {
    // A family without a series is not shown: names are looked up where they are registered.
    let sources = registrations();

    let rules = fs::read_to_string(folder().join("alerts.yaml")).unwrap();
    let mut asked = vec![("alerts.yaml".to_owned(), rules)];
    for (path, board) in dashboards() {
        asked.push((path.display().to_string(), board.to_string()));
    }
    let mut count = 0;
    for (place, text) in asked {
        for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            let is_figure = ["douane_", "http_server_", "http_client_", "rpc_", "process_"]
                .iter()
                .any(|it| word.starts_with(it));
            let is_label = word.starts_with("rpc_response") || word == "douane_proxy";
            if !is_figure || is_label {
                continue;
            }
            count += 1;
            let ends = ["_bucket", "_count", "_sum", "_total", "_info"];
            let family = ends.iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word);
            // The control plane's registry adds its prefix, and the unit.
            let own = family.strip_prefix("douane_ca_").unwrap_or(family);
            let names = [own, own.strip_suffix("_seconds").unwrap_or(own)];
            let is_shown = names.iter().any(|name| sources.contains(&format!("\"{name}\"")));
            assert!(is_shown, "{place} asks for {word}, which nobody shows");
        }
    }
    assert!(count > 60, "{count}");
}

#[test]
fn dashboards_can_be_imported_by_their_names() {
    let boards = dashboards();
    let uids: BTreeSet<_> = boards.iter().map(|(_, board)| board["uid"].as_str().unwrap()).collect();
    assert_eq!(uids, BTreeSet::from(["douane-ca", "douane-mesh", "douane-security", "douane-workload"]));
    for (path, board) in &boards {
        let panels = board["panels"].as_array().unwrap();
        let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
        assert_eq!(ids.len(), panels.len(), "{}", path.display());
        for panel in panels {
            assert!(panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()), "{panel:#}");
        }
    }
}
