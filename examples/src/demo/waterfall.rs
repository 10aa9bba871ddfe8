//! A trace as a picture in the terminal, and the hops that it shows. Pure: spans in, text out.

use std::collections::BTreeSet;

use crate::demo::{
    report::took,
    span::{Kind, Span},
};

/// Columns of the time line.
const WIDTH: u64 = 32;

/// One call from a sidecar to a sidecar.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hop {
    /// The calling service.
    pub from: String,
    /// The called service.
    pub to: String,
    /// The span's name: method, or gRPC method.
    pub name: String,
}

/// The hops of one trace, in order of time.
///
/// # Errors
/// What is wrong with the trace: a parent that nobody sent, a CLIENT span without its SERVER span, a SERVER span not
/// caused by a CLIENT span of another service, an id twice, or a child that leaves its parent's time.
pub fn hops(spans: &[Span]) -> Result<Vec<Hop>, String> {
    let mut ids = BTreeSet::new();
    if let Some(twice) = spans.iter().find(|span| !ids.insert(span.id.as_str())) {
        return Err(format!("span id {} twice", twice.id));
    }
    let roots: Vec<&Span> = spans.iter().filter(|span| !ids.contains(span.parent.as_str())).collect();
    let [_] = roots.as_slice() else {
        return Err(format!("{} roots where one was expected", roots.len()));
    };
    let mut hops = Vec::new();
    for client in by_start(spans.iter().filter(|span| span.kind == Kind::Client)) {
        let servers: Vec<&Span> = children(spans, client).filter(|span| span.kind == Kind::Server).collect();
        let [server] = servers.as_slice() else {
            return Err(format!("{} has {} SERVER spans below it", title(client), servers.len()));
        };
        if server.start < client.start || server.end > client.end + SKEW {
            return Err(format!("{} does not lie within {}", title(server), title(client)));
        }
        hops.push(Hop {
            from: client.service.clone(),
            to: server.service.clone(),
            name: client.name.clone(),
        });
    }
    let servers = spans.iter().filter(|span| span.kind == Kind::Server).count();
    if servers != hops.len() {
        return Err(format!("{servers} SERVER spans for {} CLIENT spans", hops.len()));
    }
    Ok(hops)
}

/// A receiver may see the end of an answer that the caller has already handed on: one scheduler round, in nanoseconds.
const SKEW: u64 = 5_000_000;

/// The picture: one line for each span, children below their parents, time from left to right.
#[must_use]
pub fn draw(spans: &[Span]) -> String {
    let Some(first) = spans.iter().map(|span| span.start).min() else { return String::from("no spans") };
    let last = spans.iter().map(|span| span.end).max().unwrap_or(first);
    let whole = (last - first).max(1);
    let ids: BTreeSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    let mut picture = String::new();
    let roots = by_start(spans.iter().filter(|span| !ids.contains(span.parent.as_str())));
    for root in roots {
        draw_below(spans, root, 0, &mut |depth, span| {
            let label = format!("{}{}", "  ".repeat(depth), title(span));
            let bar = bar(span.start - first, span.end.max(span.start) - first, whole);
            let ms = span.end.saturating_sub(span.start) as f64 / 1_000_000.0;
            picture.push_str(&format!("{label:<52} |{bar}| {:>9}{}\n", took(ms), status(span)));
        });
    }
    picture
}

fn draw_below(spans: &[Span], span: &Span, depth: usize, row: &mut dyn FnMut(usize, &Span)) {
    // A trace from the network may hold a circle; this bounds it.
    if depth > spans.len() {
        return;
    }
    row(depth, span);
    for child in by_start(children(spans, span)) {
        draw_below(spans, child, depth + 1, row);
    }
}

fn bar(start: u64, end: u64, whole: u64) -> String {
    let column = |at: u64| u128::from(at) * u128::from(WIDTH) / u128::from(whole);
    let (from, to) = (column(start), column(end));
    (0..u128::from(WIDTH)).map(|at| if at >= from && (at < to || at == from) { '█' } else { ' ' }).collect()
}

fn title(span: &Span) -> String {
    let kind = match span.kind {
        Kind::Client => "CLIENT",
        Kind::Server => "SERVER",
        Kind::Other => "      ",
    };
    format!("{kind} {} {}", span.service, span.name)
}

fn status(span: &Span) -> String {
    let code =
        ["rpc.status_code", "http.response.status_code"].iter().find_map(|key| span.attributes.get(*key));
    let error = if span.failed { " error" } else { "" };
    format!("  {}{error}", code.map_or("", String::as_str))
}

fn children<'a>(spans: &'a [Span], parent: &Span) -> impl Iterator<Item = &'a Span> {
    let id = parent.id.clone();
    spans.iter().filter(move |span| span.parent == id)
}

fn by_start<'a>(spans: impl Iterator<Item = &'a Span>) -> Vec<&'a Span> {
    let mut spans: Vec<_> = spans.collect();
    spans.sort_by_key(|span| (span.start, std::cmp::Reverse(span.end)));
    spans
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn span(id: &str, parent: &str, service: &str, kind: Kind, time: (u64, u64)) -> Span {
        Span {
            trace: "t".into(),
            id: id.into(),
            parent: parent.into(),
            service: service.into(),
            name: "GET".into(),
            kind,
            start: time.0 * 1_000_000,
            end: time.1 * 1_000_000,
            failed: false,
            attributes: BTreeMap::from([("http.response.status_code".into(), "200".into())]),
        }
    }

    fn journey() -> Vec<Span> {
        vec![
            span("d", "c", "inventory", Kind::Server, (50, 75)),
            span("a", "outside", "web", Kind::Client, (0, 100)),
            span("b", "a", "orders", Kind::Server, (0, 100)),
            span("c", "b", "orders", Kind::Client, (50, 75)),
        ]
    }

    #[test]
    fn each_call_between_sidecars_is_one_hop() {
        let hops = hops(&journey()).unwrap();

        let way: Vec<_> = hops.iter().map(|hop| (hop.from.as_str(), hop.to.as_str())).collect();
        assert_eq!(way, [("web", "orders"), ("orders", "inventory")]);
    }

    #[test]
    fn a_lost_server_span_is_noticed() {
        let mut spans = journey();
        spans.remove(0);

        assert_eq!(hops(&spans).unwrap_err(), "CLIENT orders GET has 0 SERVER spans below it");
    }

    #[test]
    fn a_broken_chain_is_noticed() {
        let mut spans = journey();
        spans[3].parent = "lost".into();

        assert_eq!(hops(&spans).unwrap_err(), "2 roots where one was expected");
    }

    #[test]
    fn a_child_that_ends_after_its_parent_is_noticed() {
        let mut spans = journey();
        spans[0].end += 200_000_000;

        assert!(hops(&spans).unwrap_err().contains("does not lie within"));
    }

    #[test]
    fn the_picture_shows_children_below_their_parents_and_time_from_left_to_right() {
        let picture = draw(&journey());

        let lines: Vec<_> = picture.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[0].starts_with("CLIENT web GET"));
        assert!(lines[3].starts_with("      SERVER inventory GET"));
        assert!(lines[0].contains(&"█".repeat(32)), "{picture}");
        let quarter = format!("|{}{}{}|", " ".repeat(16), "█".repeat(8), " ".repeat(8));
        assert!(lines[2].contains(&quarter), "{picture}");
        assert!(lines[2].ends_with("25.0 ms  200"));
    }

    #[test]
    fn a_circle_from_the_network_ends() {
        let spans = [span("a", "b", "x", Kind::Client, (0, 1)), span("b", "a", "y", Kind::Server, (0, 1))];

        assert_eq!(draw(&spans), "");
        assert!(hops(&spans).is_err());
    }
}
