//! What a trace of the mesh must look like, wherever its spans were collected. Pure.

use std::collections::{BTreeMap, BTreeSet};

use douane_examples::demo::span::{Kind, Span};

/// Two clocks are one on this machine; a thread that waits for a processor tells its end late.
const LATE: u64 = 50_000_000;

/// Holds the spans of one trace of `hops` hops against the rules. `root` is the parent that the test gave it.
pub(super) fn judge(spans: &[Span], hops: usize, root: &str) {
    let shown = || show(spans);
    assert_eq!(spans.len(), 2 * hops, "two spans for each hop:\n{}", shown());
    let ids: BTreeSet<_> = spans.iter().map(|span| span.id.as_str()).collect();
    assert_eq!(ids.len(), spans.len(), "no span id twice:\n{}", shown());
    for span in spans {
        assert!(
            span.parent == root || ids.contains(span.parent.as_str()),
            "a parent is missing:\n{}",
            shown()
        );
    }
    for server in of_kind(spans, Kind::Server) {
        let client = spans.iter().find(|it| it.id == server.parent);
        let client = client.unwrap_or_else(|| panic!("a SERVER span without CLIENT:\n{}", shown()));
        assert_eq!(client.kind, Kind::Client, "kinds alternate:\n{}", shown());
        assert!(
            client.start <= server.start && server.start <= server.end && server.end <= client.end + LATE,
            "a hop's SERVER span lies in its CLIENT span:\n{}",
            shown()
        );
        for key in ["douane.tls", "tls.protocol.version", "tls.curve"] {
            assert_eq!(client.attributes.get(key), server.attributes.get(key), "{key}:\n{}", shown());
        }
        for (here, there) in [(client, server), (server, client)] {
            let [local, peer] = ["douane.local.spiffe_id", "douane.peer.spiffe_id"];
            assert!(here.attributes.contains_key(local), "{}", shown());
            assert_eq!(here.attributes.get(local), there.attributes.get(peer), "{}", shown());
        }
    }
    for client in of_kind(spans, Kind::Client) {
        let parent = spans.iter().find(|it| it.id == client.parent);
        assert!(parent.is_none_or(|parent| parent.kind == Kind::Server), "kinds alternate:\n{}", shown());
        assert!(spans.iter().any(|it| it.parent == client.id), "a CLIENT span without SERVER:\n{}", shown());
    }
    for span in spans {
        assert!(
            !span.name.contains("/orders") && !span.name.contains("/checkout"),
            "a path is no name: {span:?}"
        );
    }
}

/// Who called whom, by services, with how often.
pub(super) fn edges(spans: &[Span]) -> BTreeMap<(String, String), usize> {
    let mut edges = BTreeMap::new();
    for server in of_kind(spans, Kind::Server) {
        if let Some(client) = spans.iter().find(|it| it.id == server.parent) {
            *edges.entry((client.service.clone(), server.service.clone())).or_default() += 1;
        }
    }
    edges
}

/// The spans of a kind.
pub(super) fn of_kind(spans: &[Span], kind: Kind) -> impl Iterator<Item = &Span> {
    spans.iter().filter(move |span| span.kind == kind)
}

/// For a failed test.
pub(super) fn show(spans: &[Span]) -> String {
    let lines = spans.iter().map(|span| {
        let Span { id, parent, service, name, kind, start, end, failed, .. } = span;
        format!("{kind:?} {service} {name:?} {id} of {parent} {start}..{end} failed={failed}")
    });
    lines.collect::<Vec<_>>().join("\n")
}
