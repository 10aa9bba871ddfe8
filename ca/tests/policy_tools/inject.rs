//! `douane inject` over manifests as users write them: golden files, and the words of the command.
//!
//! `UPDATE_GOLDEN=1` writes the golden files anew; read the difference as code.

use std::{fs, path::PathBuf};

use douane_ca::{
    config::{Config, Injection, Permission},
    inject::{Done, Fate, Task, Terms, rewrite},
};

use crate::desk::Desk;

const POD: &str =
    "apiVersion: v1\nkind: Pod\nmetadata: {name: app}\nspec:\n  containers:\n  - {name: app, image: app}\n";

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/policy_tools/golden/inject")
}

pub(crate) fn terms() -> Terms {
    let settings = Injection {
        image: "registry.example/douane-proxy:1".to_owned(),
        exclusions: Permission::Permitted,
        ..Injection::default()
    };
    Terms::of(&Config { injection: settings, ..Config::default() })
}

fn injected(text: &str) -> Done {
    rewrite(text, Task::Inject { terms: &terms(), namespace: "default" }).unwrap()
}

fn given() -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(golden()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| !file.to_string_lossy().ends_with(".injected.yaml"));
    files.sort();
    assert!(files.len() >= 12, "{files:?}");
    files
}

// What was done, and what was said of it.
fn told(done: &Done) -> String {
    let mut text = String::new();
    for told in &done.told {
        let said = match &told.fate {
            Fate::Injected(changes, warnings) => {
                let mut lines: Vec<_> = changes.iter().map(|it| format!("#   {}", it.what)).collect();
                lines.extend(warnings.iter().map(|it| format!("#   warning: {it}")));
                format!("injected\n{}", lines.join("\n"))
            }
            Fate::Skipped(why) => format!("skipped: {why}"),
            other => format!("{other:?}"),
        };
        text.push_str(&format!("# {} (line {}): {said}\n", told.subject, told.line));
    }
    text
}

#[test]
fn manifests_become_what_the_golden_files_say() {
    for file in given() {
        let done = injected(&fs::read_to_string(&file).unwrap());
        let text = format!("{}{}", told(&done), done.text());
        let expected = file.with_extension("injected.yaml");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&expected, &text).unwrap();
        }
        let golden = fs::read_to_string(&expected).unwrap_or_default();
        assert_eq!(text, golden, "{}: UPDATE_GOLDEN=1 writes it anew", file.display());
    }
}

#[test]
fn injecting_twice_is_injecting_once_and_uninjecting_gives_back_what_was() {
    for file in given() {
        let text = fs::read_to_string(&file).unwrap();
        let once = injected(&text);
        let twice = injected(&once.text());
        assert_eq!(once.text(), twice.text(), "{}", file.display());
        assert!(twice.told.iter().all(|it| matches!(it.fate, Fate::Unchanged | Fate::Skipped(_))));

        let back = rewrite(&once.text(), Task::Uninject).unwrap();
        let objects = |done: &Done| done.documents.iter().map(|it| it.object.clone()).collect::<Vec<_>>();
        let original = rewrite(&text, Task::Uninject).unwrap();
        assert_eq!(objects(&back), objects(&original), "{}", file.display());
    }
}

#[test]
fn documents_that_nothing_happens_to_pass_byte_for_byte() {
    let text = fs::read_to_string(golden().join("many.yaml")).unwrap();

    let done = injected(&text);

    assert_eq!(done.documents.iter().filter(|it| it.text != it.before).count(), 1);
    assert!(done.text().contains(
        "  name:   shop        # stays as it is, blanks and all\n---\n# An empty document.\n---\n"
    ));
    let elsewhere = "apiVersion: v1\nkind:   ConfigMap # untouched\nmetadata: {name: a}";
    assert_eq!(injected(elsewhere).text(), elsewhere);
}

#[test]
fn a_pod_of_older_settings_is_brought_up_to_those_of_now() {
    let old = injected(POD).text();
    let mut terms = terms();
    terms.settings.image = "registry.example/douane-proxy:2".to_owned();
    terms.settings.order = douane_ca::config::Order::Classic;

    let new = rewrite(&old, Task::Inject { terms: &terms, namespace: "default" }).unwrap().text();

    let direct = rewrite(POD, Task::Inject { terms: &terms, namespace: "default" }).unwrap().text();
    assert_eq!(new, direct);
    assert!(!new.contains("douane-proxy:1\n"));
}

#[test]
fn pods_that_must_not_run_are_refused_with_a_reason() {
    let refused = |change: &dyn Fn(String) -> String| {
        let text = change(POD.to_owned());
        let done = injected(&text);
        match &done.told[0].fate {
            Fate::Refused(why) => why.clone(),
            other => panic!("{text}: {other:?}"),
        }
    };
    for (change, said) in [
        (
            ("image: app}", "image: app, securityContext: {runAsUser: 2112}}"),
            "container app runs as uid 2112",
        ),
        (("spec:\n", "spec:\n  securityContext: {runAsUser: 2112}\n"), "every container as uid 2112"),
        (("{name: app, ", "{name: douane-proxy, "), "is called douane-proxy already"),
        (("image: app}", "image: app, ports: [{containerPort: 15006}]}"), "declares port 15006"),
        (
            ("spec:\n", "spec:\n  volumes: [{name: douane-run, emptyDir: {}}]\n"),
            "a volume is called douane-run",
        ),
        (
            ("metadata: {name: app}", "metadata: {annotations: {douane.io/udb: allow}}"),
            "douane.io/udp is the nearest",
        ),
        (
            ("metadata: {name: app}", "metadata: {annotations: {douane.io/status: x}}"),
            "is not what the injector writes",
        ),
        (
            ("metadata: {name: app}", "metadata: {labels: {douane.io/inject: 'true'}}"),
            "write enabled or disabled",
        ),
        (
            ("image: app}", "image: app, readinessProbe: {httpGet: {port: http}}}"),
            "readinessProbe of container app names a port that the container does not declare",
        ),
        (
            ("spec:\n  containers:\n  - {name: app, image: app}\n", "spec: {containers: []}\n"),
            "has no containers",
        ),
        (("spec:\n", "spec:\n  hostNetwork: \"yes\"\n"), "hostNetwork is neither true nor false"),
    ] {
        let why = refused(&|text| text.replace(change.0, change.1));
        assert!(why.contains(said), "{why:?} does not say {said:?}");
    }
    let job = "metadata: {annotations: {douane.io/native-sidecar: 'false'}}";
    let why = refused(&|text| {
        text.replace("metadata: {name: app}", job).replace("spec:\n", "spec:\n  restartPolicy: Never\n")
    });
    assert!(why.contains("in the classic order its sidecar never would"), "{why}");
}

#[test]
fn the_command_reads_files_folders_and_the_standard_input() {
    let desk =
        Desk::new().with("pods/a.yaml", POD).with("pods/b.yml", "kind: Nothing\n").with("pods/c.txt", "x");

    let from_folder = desk.run(&["inject", "-f", "pods"], "");
    from_folder.exits(0).says("name: douane-redirect").says("---\nkind: Nothing\n");
    assert!(from_folder.err.contains("pods/a.yaml:1: Pod app: injected"), "{}", from_folder.err);

    let from_input = desk.run(&["inject", "-f", "-"], POD);
    assert!(from_folder.out.starts_with(&from_input.exits(0).out));
    let back = desk.run(&["uninject", "-f", "-"], &from_input.out);
    back.exits(0).says("image: app\n");
    assert!(!back.out.contains("douane"), "{}", back.out);
}

#[test]
fn the_command_writes_json_where_it_is_asked_to() {
    let desk = Desk::new().with("pod.yaml", POD);

    let one = desk.run(&["inject", "-f", "pod.yaml", "-o", "json"], "").exits(0).json();
    assert_eq!(one["kind"], "Pod");
    let two = desk.run(&["inject", "-f", "pod.yaml", "-f", "pod.yaml", "-o", "json"], "").exits(0).json();
    assert_eq!(two["kind"], "List");
    assert_eq!(two["items"][1], one);
    // JSON is YAML.
    let again = desk.run(&["inject", "-f", "-"], &one.to_string());
    again.exits(0);
    assert!(again.err.contains("it has its sidecar already"), "{}", again.err);
}

#[test]
fn the_command_explains_each_change_and_shows_differences() {
    let desk = Desk::new().with("pod.yaml", POD);

    desk.run(&["inject", "-f", "pod.yaml", "--explain"], "")
        .exits(0)
        .says("pod.yaml:1: Pod app: injected\n  init container douane-redirect, before all others\n      brings the pod's");
    let diff = desk.run(&["inject", "-f", "pod.yaml", "--diff"], "");
    diff.exits(0).says("--- pod.yaml\n+++ pod.yaml (injected)\n@@ ").says("\n+  - name: douane-redirect\n");
    assert!(!diff.out.lines().skip(2).any(|line| line.starts_with('-')), "nothing goes: {}", diff.out);
}

#[test]
fn a_refused_pod_writes_nothing_and_an_unreadable_file_is_told_with_its_line() {
    let refused =
        format!("{POD}---\n{}", POD.replace("{name: app}", "{annotations: {douane.io/colour: red}}"));
    let desk = Desk::new().with("pods.yaml", &refused).with("torn.yaml", "a: 1\n---\nkind: [\n");

    let said = desk.run(&["inject", "-f", "pods.yaml"], "");
    said.exits(1);
    assert_eq!(said.out, "", "half of a file must not be applied");
    assert!(said.err.contains("pods.yaml:8: Pod : refused: the annotation douane.io/colour"), "{}", said.err);

    let torn = desk.run(&["inject", "-f", "torn.yaml"], "");
    torn.exits(2);
    assert!(torn.err.contains("torn.yaml:"), "{}", torn.err);
    desk.run(&["inject", "-f", "absent.yaml"], "").exits(2);
}

#[test]
fn the_mesh_configuration_says_what_pods_get() {
    let config = "injection:\n  image: own/proxy:7\n  order: classic\n  resources: {cpuLimit: '1'}\ntrustDomain: example.org\n";
    let desk = Desk::new().with("mesh.yaml", config).with("bad.yaml", "injection: {imagee: x}\n");

    let said = desk.run(&["inject", "-f", "-", "--mesh-config", "mesh.yaml"], POD);
    said.exits(0).says("image: own/proxy:7").says("value: example.org").says("postStart:").says("cpu: \"1\"");
    desk.run(
        &["inject", "-f", "-", "--mesh-config", "mesh.yaml", "--image", "b:1", "--order", "native"],
        POD,
    )
    .exits(0)
    .says("image: b:1")
    .says("restartPolicy: Always");
    assert!(desk.run(&["inject", "-f", "-", "--mesh-config", "bad.yaml"], POD).err.contains("imagee"));
}
