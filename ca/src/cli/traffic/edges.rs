//! `douane edges`.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::{
    Output, Scope, figures,
    table::{Column, table, width},
};
use crate::{
    cli::print::print_text,
    traffic::view::{Edge, View},
};

#[derive(Args)]
#[command(after_long_help = HELP)]
pub(in crate::cli) struct Edges {
    #[command(flatten)]
    scope: Scope,
    /// How it is printed.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

const HELP: &str = "\
Examples:
  douane edges --dir /var/lib/douane                who talks to whom, now
  douane edges -n shop --window 10s                 one namespace, the last 10 s
  douane edges -o json | jq '.edges[] | select(.tls != \"mtls\") | [.from.name, .to.name]'

Columns: FROM and TO are workloads by their proven identities (a service where nobody proved one, `unknown` where
neither is known). MTLS: was all of it mutual TLS? `-`: nothing got through. REQ/S, SUCCESS, P50 and
P99 are of requests within the window; success counts 5xx, errors of gRPC servers and denials as lost. STREAMS: opaque
streams open now + ended in the window. SEEN BY: which end's sidecars told; where both did, the figures are the
destination's. Sidecars tell every 5 s; the replicas of a workload are added up. Where the control plane itself has replicas,
each answers in a cluster (with `ca --replica` the one that leads), for the sidecars that are connected to it: if those are not
all, that is said.

JSON: windowSeconds, sidecars (that told), knownSidecars (that the mesh has), leftOut (more edges than are counted), and edges: from and to {name, kind, identity}, tls
(mtls, none, mixed, null), services, source and destination {requestsPerSecond, success, p50Ms, p95Ms, p99Ms,
streamsOpen, window and total {requests, failures, denied, streams, streamFailures, streamsDenied, bytesIn, bytesOut}}.
What is unknown is null; total counts since the sidecars began.";

/// Asks and prints.
pub(in crate::cli) fn run(asked: &Edges) -> Result<()> {
    let view = asked.scope.view()?;
    match asked.output {
        Output::Json => {
            let View { window_seconds, sidecars, known_sidecars, left_out, edges, .. } = &view;
            let printed = json!({
                "windowSeconds": window_seconds,
                "sidecars": sidecars,
                "knownSidecars": known_sidecars,
                "leftOut": left_out,
                "edges": edges,
            });
            print_text(&format!("{}\n", serde_json::to_string_pretty(&printed)?))
        }
        Output::Text => print_text(&text(&view, width())),
    }
}

pub(super) fn text(view: &View, width: Option<usize>) -> String {
    if view.edges.is_empty() {
        let nothing = match view.sidecars {
            0 => "No sidecar is connected to this control plane.\n".to_owned(),
            sidecars => format!("Nobody has talked to anybody yet ({sidecars} sidecars are connected).\n"),
        };
        return nothing + &missing(view);
    }
    let rows: Vec<_> = view.edges.iter().map(row).collect();
    let mut text = table(&COLUMNS, &rows, width);
    if view.left_out {
        text.push_str("There are more edges than are counted one by one.\n");
    }
    text.push_str(&missing(view));
    text
}

/// Whose word is not in it.
pub(super) fn missing(view: &View) -> String {
    let View { sidecars, known_sidecars, .. } = view;
    if sidecars >= known_sidecars {
        return String::new();
    }
    format!(
        "Told by {sidecars} of {known_sidecars} sidecars: the others are not connected to this replica.\n"
    )
}

const COLUMNS: [Column; 9] = [
    Column::Name("FROM"),
    Column::Name("TO"),
    Column::Word("MTLS"),
    Column::Figure("REQ/S"),
    Column::Figure("SUCCESS"),
    Column::Figure("P50"),
    Column::Figure("P99"),
    Column::Figure("STREAMS"),
    Column::Word("SEEN BY"),
];

fn row(edge: &Edge) -> Vec<String> {
    let best = edge.best();
    vec![
        edge.from.name.clone(),
        edge.to.name.clone(),
        figures::tls(edge.tls).to_owned(),
        figures::rate(best),
        figures::success(best),
        figures::milliseconds(best.and_then(|side| side.p50_ms)),
        figures::milliseconds(best.and_then(|side| side.p99_ms)),
        figures::streams(best),
        match (&edge.source, &edge.destination) {
            (Some(_), Some(_)) => "both",
            (Some(_), None) => "source",
            (None, Some(_)) => "dest.",
            (None, None) => figures::NONE,
        }
        .to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::view::{Counts, End, Kind, Side, Tls};

    fn end(name: &str) -> End {
        End { name: name.to_owned(), kind: Kind::Workload, identity: None }
    }

    #[test]
    fn the_table_fits_eighty_columns() {
        let side = Side {
            requests_per_second: Some(12_345.6),
            success: Some(1.0),
            p50_ms: Some(99.0),
            p95_ms: None,
            p99_ms: Some(999.0),
            streams_open: 100,
            window: Counts { streams: 100, ..Counts::default() },
            total: Counts::default(),
        };
        let edge = Edge {
            from: end("a-namespace/a-workload-with-a-name"),
            to: end("another-namespace/another-workload"),
            tls: Some(Tls::Mtls),
            services: Vec::new(),
            source: Some(side),
            destination: None,
        };
        let view = View { sidecars: 1, edges: vec![edge], ..View::default() };

        let text = text(&view, Some(80));

        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("12345.6   100.0%") && text.contains("source"), "{text}");
    }

    #[test]
    fn a_mesh_in_which_nothing_happens_says_so() {
        assert!(text(&View::default(), None).contains("No sidecar"));
        assert!(text(&View { sidecars: 3, ..View::default() }, None).contains("3 sidecars"));
    }

    #[test]
    fn what_only_another_replica_of_the_control_plane_has_heard_is_not_passed_over_in_silence() {
        let view = |sidecars, known_sidecars| View { sidecars, known_sidecars, ..View::default() };
        assert!(
            text(&view(2, 5), None)
                .ends_with("Told by 2 of 5 sidecars: the others are not connected to this replica.\n")
        );
        for whole in [view(5, 5), view(6, 5)] {
            assert!(!text(&whole, None).contains("Told by"), "one that has just gone may still be counted");
        }
    }
}
