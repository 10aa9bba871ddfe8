//! Laws that select no workload.

use douane_proto::{policy::Scope, resource::Resource};

use crate::policy::destination::running;

/// Says so, where there are workloads among the files, and none that the scope selects. `root`: the root namespace.
pub(super) fn selects_nothing(scope: &Scope, resources: &[Resource], root: &str) -> Option<String> {
    let all = running(resources);
    if all.is_empty() || scope.selector.is_empty() {
        return None;
    }
    if all.iter().any(|running| scope.selects(running.namespace, running.labels, root)) {
        return None;
    }
    let labels: Vec<String> = scope.selector.iter().map(|(key, value)| format!("{key}: {value}")).collect();
    let elsewhere = all
        .iter()
        .find(|running| scope.selector.iter().all(|(key, value)| running.labels.get(key) == Some(value)));
    let hint = match elsewhere {
        Some(running) => format!("{} has these labels in another namespace", running.title()),
        None => "check it for a slip, or write the workload's manifest beside it".to_owned(),
    };
    Some(format!("the selector {{{}}} selects no workload of these files; {hint}", labels.join(", ")))
}
