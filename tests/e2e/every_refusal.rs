//! Each reason to say no has a test that provokes it: no label of `refusal.rs` may go unnamed by the test files.

use std::{
    fs,
    path::{Path, PathBuf},
};

#[test]
fn each_refusal_is_named_by_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let source = fs::read_to_string(root.join("proxy/src/refusal.rs")).expect("the refusals");
    let labels: Vec<&str> = source.lines().filter_map(label).collect();
    assert!(labels.len() > 20, "the labels are found: {labels:?}");

    let tests: String = ["tests/e2e", "proxy/tests"]
        .iter()
        .flat_map(|folder| files_below(&root.join(folder)))
        .map(|file| fs::read_to_string(file).expect("a test file"))
        .collect();
    let unnamed: Vec<_> = labels.iter().filter(|label| !tests.contains(&format!("\"{label}\""))).collect();
    assert!(unnamed.is_empty(), "refusals that no test provokes: {unnamed:?}");
}

/// The label of a line such as `Self::Variant(_) => "label",`.
fn label(line: &str) -> Option<&str> {
    let (variant, label) = line.trim().split_once(" => \"")?;
    variant.starts_with("Self::").then(|| label.trim_end_matches("\","))
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(folder).expect("a folder of tests").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}
