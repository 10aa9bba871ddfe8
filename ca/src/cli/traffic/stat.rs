//! `douane stat`.

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;

use super::{
    Output, Scope,
    edges::missing,
    figures,
    table::{Column, table, width},
};
use crate::{
    cli::print::print_text,
    traffic::view::{Side, View},
};

#[derive(Args)]
#[command(after_long_help = HELP)]
pub(in crate::cli) struct Stat {
    /// Only these workloads or services: NAME or NAMESPACE/NAME.
    names: Vec<String>,
    #[command(flatten)]
    scope: Scope,
    /// How it is printed.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

const HELP: &str = "\
Examples:
  douane stat --dir /var/lib/douane            every workload and service
  douane stat shop/orders --window 10s         one of them, the last 10 s
  douane stat -n shop -o json | jq '.workloads[] | select(.inbound.success < 0.99) | .name'

A workload's figures are its own sidecars' word: what it is asked (inbound); -o json also has what it asks (outbound). A
service's are the word of those who call it. The replicas of a workload are added up; of the replicas of the control plane itself
each answers in a cluster (on a shared folder the one that leads), for the sidecars that are connected to it. Success counts 5xx, errors of gRPC servers and denials as lost; - is unknown.

JSON: windowSeconds, workloads [{name, identity, sidecars, inbound, outbound}] and services [{name, side}], each side as
`douane edges --help` says.

Exit codes: 0; 1 there is no answer, or nothing is called so.";

/// Asks and prints.
pub(in crate::cli) fn run(asked: &Stat) -> Result<()> {
    let view = only(asked.scope.view()?, &asked.names);
    if !asked.names.is_empty() && view.workloads.is_empty() && view.services.is_empty() {
        bail!(
            "nothing that has talked is called {}: `douane stat` without a name lists what there is",
            asked.names.join(" or ")
        );
    }
    match asked.output {
        Output::Json => {
            let View { window_seconds, workloads, services, .. } = &view;
            let printed =
                json!({ "windowSeconds": window_seconds, "workloads": workloads, "services": services });
            print_text(&format!("{}\n", serde_json::to_string_pretty(&printed)?))
        }
        Output::Text => print_text(&text(&view, width())),
    }
}

fn only(mut view: View, names: &[String]) -> View {
    let is_meant = |own: &str| {
        names.is_empty()
            || names.iter().any(|name| own == name || own.split_once('/').is_some_and(|(_, own)| own == name))
    };
    view.workloads.retain(|workload| is_meant(&workload.name));
    view.services.retain(|service| is_meant(&service.name));
    view
}

pub(super) fn text(view: &View, width: Option<usize>) -> String {
    let workloads = view.workloads.iter().map(|it| row(&it.name, "workload", &it.inbound));
    let services = view.services.iter().map(|it| row(&it.name, "service", &it.side));
    let rows: Vec<_> = workloads.chain(services).collect();
    if rows.is_empty() {
        return "No sidecar is connected to this control plane.\n".to_owned();
    }
    table(&COLUMNS, &rows, width) + &missing(view)
}

const COLUMNS: [Column; 9] = [
    Column::Name("NAME"),
    Column::Word("KIND"),
    Column::Figure("REQ/S"),
    Column::Figure("SUCCESS"),
    Column::Figure("DENIED"),
    Column::Figure("P50"),
    Column::Figure("P95"),
    Column::Figure("P99"),
    Column::Figure("STREAMS"),
];

fn row(name: &str, kind: &str, side: &Side) -> Vec<String> {
    vec![
        name.to_owned(),
        kind.to_owned(),
        figures::rate(Some(side)),
        figures::success(Some(side)),
        side.window.denied.saturating_add(side.window.streams_denied).to_string(),
        figures::milliseconds(side.p50_ms),
        figures::milliseconds(side.p95_ms),
        figures::milliseconds(side.p99_ms),
        figures::streams(Some(side)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::view::{Counts, Service};

    fn side() -> Side {
        Side {
            requests_per_second: Some(12_345.6),
            success: Some(0.5),
            p50_ms: Some(99.0),
            p95_ms: Some(99.0),
            p99_ms: Some(999.0),
            streams_open: 10,
            window: Counts { denied: 100_000, streams: 10, ..Counts::default() },
            total: Counts::default(),
        }
    }

    #[test]
    fn the_table_fits_eighty_columns_and_a_name_needs_no_namespace() {
        let service = |name: &str| Service { name: name.to_owned(), side: side() };
        let services = vec![service("a-namespace-of-length/a-service-of-length"), service("shop/orders")];
        let view = View { services, ..View::default() };

        let whole = text(&view, Some(80));
        assert!(whole.lines().all(|line| line.chars().count() <= 80), "{whole}");
        for name in ["orders", "shop/orders"] {
            assert_eq!(only(view.clone(), &[name.to_owned()]).services.len(), 1, "{name}");
        }
        assert!(only(view, &["order".to_owned()]).services.is_empty());
    }
}
