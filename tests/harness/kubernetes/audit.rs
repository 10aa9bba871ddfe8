//! What the API server was asked, and by whom: its audit log, in the words of its access rules.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

/// Only service accounts are written down, and of their requests only what was asked.
const POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n\
                      - {level: Metadata, userGroups: ['system:serviceaccounts']}\n- {level: None}\n";

/// A request, as access rules name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// `list`.
    pub verb: String,
    /// Empty for Kubernetes' own.
    pub group: String,
    /// `pods`, `pods/status`.
    pub resource: String,
    /// Where there is one.
    pub namespace: String,
    /// Where one object is meant.
    pub name: String,
    /// What the API server answered.
    pub code: u64,
}

/// Writes the policy; answers with its file and the log's.
pub(super) fn write(folder: &Path) -> (String, String) {
    let file = folder.join("audit-policy.yaml");
    fs::write(&file, POLICY).expect("the folder is ours");
    (file.display().to_string(), log(folder))
}

/// Everything that this user asked.
pub(super) fn asked(folder: &Path, user: &str) -> BTreeSet<Request> {
    let log = fs::read_to_string(log(folder)).unwrap_or_default();
    // The last line may be half written.
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|event| text(event, "/user/username") == user).map(|event| request(&event)).collect()
}

fn request(event: &Value) -> Request {
    let resource = text(event, "/objectRef/resource");
    let sub = text(event, "/objectRef/subresource");
    Request {
        verb: text(event, "/verb").to_owned(),
        group: text(event, "/objectRef/apiGroup").to_owned(),
        resource: if sub.is_empty() { resource.to_owned() } else { format!("{resource}/{sub}") },
        namespace: text(event, "/objectRef/namespace").to_owned(),
        name: text(event, "/objectRef/name").to_owned(),
        code: event.pointer("/responseStatus/code").and_then(Value::as_u64).unwrap_or_default(),
    }
}

fn text<'a>(event: &'a Value, path: &str) -> &'a str {
    event.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn log(folder: &Path) -> String {
    folder.join("audit.log").display().to_string()
}
