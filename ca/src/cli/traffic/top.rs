//! `douane top`: the edges again and again, in the terminal.

use std::{
    io::{self, IsTerminal as _, Write as _},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::{Scope, edges, table::width};
use crate::{
    cli::print::print_text,
    traffic::view::{Edge, View},
};

#[derive(Args)]
#[command(after_long_help = HELP)]
pub(in crate::cli) struct Top {
    #[command(flatten)]
    scope: Scope,
    /// How long each picture stays.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    every: Duration,
    /// Print one picture and end.
    #[arg(long)]
    once: bool,
}

const HELP: &str = "\
Examples:
  douane top --dir /var/lib/douane             the busiest edges first, until Ctrl-C
  douane top -n shop --window 10s --once       one picture of one namespace

Columns are those of `douane edges --help`. Nothing of the terminal is changed but what it shows: Ctrl-C at any moment
leaves it as it was.";

/// A picture is read by a human.
const SHORTEST: Duration = Duration::from_millis(500);
/// Where the terminal does not say how many lines it has.
const LINES: usize = 24;
/// To the upper left corner, and clear all below.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Asks and prints, again and again.
pub(in crate::cli) fn run(asked: &Top) -> Result<()> {
    if asked.once {
        return print_text(&picture(asked.scope.view()?, width(), None));
    }
    if !io::stdout().is_terminal() {
        bail!("top needs a terminal: use --once, or `douane edges -o json` for a script");
    }
    loop {
        let lines = rustix::termios::tcgetwinsize(io::stdout()).map(|size| usize::from(size.ws_row));
        let lines = lines.ok().filter(|lines| *lines > 0).unwrap_or(LINES);
        let picture = picture(asked.scope.view()?, width(), Some(lines));
        // At once: a half picture flickers.
        let mut out = io::stdout().lock();
        write!(out, "{CLEAR}{picture}").and_then(|()| out.flush()).context("write to stdout")?;
        drop(out);
        thread::sleep(asked.every.max(SHORTEST));
    }
}

// The busiest first, as many as there are lines for.
fn picture(mut view: View, width: Option<usize>, lines: Option<usize>) -> String {
    let busy = |edge: &Edge| {
        let best = edge.best();
        let rate = best.and_then(|side| side.requests_per_second).unwrap_or_default();
        (rate, best.map_or(0, |side| side.streams_open))
    };
    view.edges.sort_by(|one, other| {
        let ((rate, open), (other_rate, other_open)) = (busy(one), busy(other));
        other_rate.total_cmp(&rate).then(other_open.cmp(&open))
    });
    let all = view.edges.len();
    if let Some(lines) = lines {
        // Two lines of heading, one of columns, one for the rest, and whose word is missing.
        let taken = 4 + edges::missing(&view).lines().count();
        view.edges.truncate(lines.saturating_sub(taken).max(1));
    }
    let rest = all - view.edges.len();
    let mut text = format!("{all} edges, {} sidecars, the last {} s\n\n", view.sidecars, view.window_seconds);
    text.push_str(&edges::text(&view, width));
    if rest > 0 {
        text.push_str(&format!("{rest} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::view::{Counts, End, Kind, Side};

    fn edge(name: &str, rate: f64) -> Edge {
        let end = |name: &str| End { name: name.to_owned(), kind: Kind::Workload, identity: None };
        let side = Side {
            requests_per_second: Some(rate),
            success: None,
            p50_ms: None,
            p95_ms: None,
            p99_ms: None,
            streams_open: 0,
            window: Counts::default(),
            total: Counts::default(),
        };
        Edge {
            from: end(name),
            to: end("shop/orders"),
            tls: None,
            services: Vec::new(),
            source: Some(side),
            destination: None,
        }
    }

    #[test]
    fn the_busiest_edges_come_first_and_the_picture_fits_the_terminal() {
        let edges = (0..100).map(|number| edge(&format!("shop/w{number}"), f64::from(number))).collect();
        let view = View { sidecars: 9, window_seconds: 60, edges, ..View::default() };

        let text = picture(view, Some(80), Some(24));

        assert_eq!(text.lines().count(), 24, "{text}");
        assert!(text.lines().nth(3).is_some_and(|line| line.starts_with("shop/w99")), "{text}");
        assert!(text.ends_with("80 more"), "{text}");
    }
}
