//! What became of one request, from what both ends of each hop tell of it: who called whom, where it stopped, and by whose
//! word. Pure.

use serde::Serialize;

use super::seen::Seen;

/// One request's way through the mesh. `douane why -o json` prints it: names stay.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Story {
    /// What was asked for.
    pub id: String,
    /// In the order in which they began.
    pub hops: Vec<Hop>,
    /// Where it stopped; `None`: nothing that is known of it failed.
    pub stopped: Option<Stop>,
}

/// From one workload to another.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hop {
    /// What the sidecar of the caller tells.
    pub source: Option<Seen>,
    /// What the sidecar of the called tells.
    pub destination: Option<Seen>,
}

/// Where and why a request stopped.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stop {
    /// The hop, counted from 1.
    pub hop: usize,
    /// Whose sidecar says so, `namespace/pod`.
    pub at: String,
    /// What happened, in a sentence.
    pub what: String,
    /// Why, as the sidecar says it.
    pub reason: String,
    /// The policy and rule that decided.
    pub policy: String,
    /// Where that is written, `file:line`.
    pub place: String,
    /// What to change.
    pub mend: Vec<String>,
}

impl Story {
    /// The story of these records.
    #[must_use]
    pub fn of(id: &str, records: Vec<Seen>) -> Self {
        let (mut sources, mut destinations): (Vec<_>, Vec<_>) =
            distinct(records).into_iter().partition(|record| record.end == "source");
        let mut hops = Vec::new();
        sources.sort_by_key(begin);
        for source in sources {
            let by_span =
                destinations.iter().position(|it| !it.parent_id.is_empty() && it.parent_id == source.span_id);
            let is_of = |it: &Seen| {
                it.parent_id.is_empty()
                    && identity(&it.from) == identity(&source.from)
                    && identity(&it.to) == identity(&source.to)
            };
            let at = by_span.or_else(|| destinations.iter().position(is_of));
            let destination = at.map(|at| destinations.remove(at));
            hops.push(Hop { source: Some(source), destination });
        }
        hops.extend(destinations.into_iter().map(|it| Hop { source: None, destination: Some(it) }));
        hops.sort_by_key(|hop| hop.any().map(begin));
        let stopped = stopped(&hops);
        Self { id: id.to_owned(), hops, stopped }
    }

    /// For a human.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines = vec![format!("{}: {} of its way known", self.id, count(self.hops.len(), "hop"))];
        for (number, hop) in self.hops.iter().enumerate() {
            lines.push(String::new());
            lines.extend(hop.lines(number + 1));
        }
        if let Some(stop) = &self.stopped {
            lines.push(String::new());
            lines.push(stop.what.clone());
            if !stop.policy.is_empty() {
                let place = if stop.place.is_empty() { String::new() } else { format!("{}: ", stop.place) };
                lines.push(format!("  {place}policy {}", stop.policy));
            }
            if !stop.reason.is_empty() {
                lines.push(format!("  {}", stop.reason));
            }
            lines.extend(stop.mend.iter().flat_map(|text| text.lines()).map(str::to_owned));
        }
        lines.iter().map(|line| format!("{}\n", shown(line.trim_end()))).collect()
    }
}

impl Hop {
    fn any(&self) -> Option<&Seen> {
        self.source.as_ref().or(self.destination.as_ref())
    }

    fn lines(&self, number: usize) -> Vec<String> {
        let Some(one) = self.destination.as_ref().or(self.source.as_ref()) else { return Vec::new() };
        let name =
            |end: &Option<super::view::End>| end.as_ref().map_or("unknown", |end| &end.name).to_owned();
        let mut lines = vec![format!("{number}. {} -> {}  {}", name(&one.from), name(&one.to), one.what())];
        for (end, told) in [("source", &self.source), ("destination", &self.destination)] {
            match told {
                Some(seen) => lines.push(format!("   {end:<11}  {}: {}", seen.told_by, seen.outcome())),
                None if end == "destination" => {
                    lines.push(
                        "   destination  nothing is remembered: it did not come there, or did not fail there"
                            .to_owned(),
                    );
                }
                None => lines.push(
                    "   source       nothing is remembered: it has no sidecar, or forgot it".to_owned(),
                ),
            }
        }
        lines
    }
}

impl Seen {
    /// What was asked for.
    #[must_use]
    pub fn what(&self) -> String {
        if self.method.is_empty() { self.protocol.clone() } else { format!("{} {}", self.method, self.path) }
    }

    // What the end that tells saw of it.
    fn outcome(&self) -> String {
        let answer = match (self.status, self.grpc_status) {
            (Some(status), Some(grpc)) => format!("{status}, gRPC status {grpc}"),
            (Some(status), None) => status.to_string(),
            (None, _) => "no answer".to_owned(),
        };
        let refusal = if self.refusal.is_empty() { String::new() } else { format!(" ({})", self.refusal) };
        let tls =
            if self.tls.is_empty() { "without TLS".to_owned() } else { format!("mutual TLS {}", self.tls) };
        format!("{answer}{refusal} after {:.1} ms, {tls}", self.duration_ms)
    }
}

// The last refusal is the one that the others follow from; else the last answer that failed.
fn stopped(hops: &[Hop]) -> Option<Stop> {
    let told = || {
        let both = |(at, hop): (usize, &'_ Hop)| [(at, hop.source.clone()), (at, hop.destination.clone())];
        hops.iter().enumerate().flat_map(both).filter_map(|(at, seen)| Some((at, seen?)))
    };
    let denied = told().rfind(|(_, seen)| seen.denied);
    let refused = || told().rfind(|(_, seen)| !seen.refusal.is_empty() && seen.refusal != "client_gone");
    let failed = || {
        told().rfind(|(_, seen)| {
            seen.status.is_some_and(|status| status >= 400) || seen.grpc_status.is_some_and(|it| it != 0)
        })
    };
    let (at, seen) = denied.or_else(refused).or_else(failed)?;
    let to = seen.to.as_ref().map_or("unknown", |end| &end.name).to_owned();
    let what = if seen.denied && seen.end == "destination" {
        format!("It stopped at {}: the law of {to} denied it.", seen.told_by)
    } else if seen.denied {
        format!("It stopped at {}, where it began: the law denied it.", seen.told_by)
    } else if seen.refusal.is_empty() {
        format!("No sidecar stopped it: {to} itself answered {}.", seen.outcome())
    } else if seen.end == "source" {
        format!("It stopped at {}, on its way to {to}: {}.", seen.told_by, seen.refusal)
    } else {
        format!("It stopped at {}, before {to} answered: {}.", seen.told_by, seen.refusal)
    };
    let mut mend = Vec::new();
    if !seen.hint.is_empty() {
        mend.push(format!("This would allow it:\n\n{}", indented(&seen.hint)));
    }
    Some(Stop {
        hop: at + 1,
        at: seen.told_by,
        what,
        // Begins as the policy does, which has its own line.
        reason: seen.reason,
        policy: seen.policy,
        place: seen.place,
        mend,
    })
}

/// A text of somebody else's for a terminal: nothing in it moves the cursor.
#[must_use]
pub fn shown(text: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect()
}

/// Set in, as an example.
#[must_use]
pub fn indented(yaml: &str) -> String {
    yaml.lines().map(|line| format!("  {line}\n")).collect()
}

fn begin(seen: &Seen) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a saturating cast of a duration"
    )]
    let lasted = (seen.duration_ms * 1000.0) as u64;
    seen.time_us.saturating_sub(lasted)
}

fn identity(end: &Option<super::view::End>) -> Option<&str> {
    end.as_ref()?.identity.as_deref()
}

// The same record may be remembered and stand in a log.
fn distinct(records: Vec<Seen>) -> Vec<Seen> {
    let mut kept: Vec<Seen> = Vec::new();
    for record in records {
        let is_same =
            |one: &Seen| one.end == record.end && !one.span_id.is_empty() && one.span_id == record.span_id;
        if !kept.iter().any(is_same) {
            kept.push(record);
        }
    }
    kept
}

fn count(many: usize, what: &str) -> String {
    if many == 1 { format!("1 {what}") } else { format!("{many} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::view::{End, Kind};

    fn end(name: &str) -> Option<End> {
        let identity = Some(format!("spiffe://cluster.local/ns/shop/sa/{name}"));
        Some(End { name: format!("shop/{name}"), kind: Kind::Workload, identity })
    }

    fn record(end_of: &str, (from, to): (&str, &str), (span, parent): (&str, &str), time_us: u64) -> Seen {
        Seen {
            end: end_of.to_owned(),
            told_by: format!("shop/{}-1", if end_of == "source" { from } else { to }),
            from: end(from),
            to: end(to),
            time_us,
            duration_ms: 1.0,
            span_id: span.to_owned(),
            parent_id: parent.to_owned(),
            method: "GET".to_owned(),
            path: "/orders".to_owned(),
            status: Some(403),
            tls: "TLSv1.3 X25519MLKEM768".to_owned(),
            ..Seen::default()
        }
    }

    fn chain() -> Vec<Seen> {
        let denied = Seen {
            denied: true,
            refusal: "denied".to_owned(),
            policy: "shop/ledger rule 1".to_owned(),
            place: "shop.yaml:7".to_owned(),
            reason: "method GET is not in [POST]".to_owned(),
            ..record("destination", ("orders", "ledger"), ("d", "c"), 9_000)
        };
        vec![
            denied,
            record("source", ("orders", "ledger"), ("c", "b"), 10_000),
            record("destination", ("web", "orders"), ("b", "a"), 11_000),
            record("source", ("web", "orders"), ("a", ""), 12_000),
        ]
    }

    #[test]
    fn hops_are_joined_by_their_spans_and_the_last_denial_is_where_it_stopped() {
        let mut records = chain();
        // Also in a log that was given.
        records.push(records[0].clone());
        let mut began: Vec<_> = records.iter().map(begin).collect();
        began.sort_unstable();

        let story = Story::of("abc", records);

        assert_eq!(story.hops.len(), 2);
        assert!(story.hops.iter().all(|hop| hop.source.is_some() && hop.destination.is_some()));
        let stop = story.stopped.as_ref().unwrap();
        assert_eq!((stop.at.as_str(), stop.place.as_str()), ("shop/ledger-1", "shop.yaml:7"));
        assert_eq!(story.hops[stop.hop - 1].source.as_ref().unwrap().span_id, "c");
        let text = story.text();
        for part in [
            "shop/orders -> shop/ledger  GET /orders",
            "It stopped at shop/ledger-1: the law of shop/ledger denied it.",
            "  shop.yaml:7: policy shop/ledger rule 1",
            "  method GET is not in [POST]",
        ] {
            assert!(text.contains(part), "{part} expected in:\n{text}");
        }
    }

    #[test]
    fn records_of_logs_have_no_parents_and_are_joined_by_who_talks_to_whom() {
        let mut records = chain();
        for record in &mut records {
            record.parent_id.clear();
        }
        let story = Story::of("abc", records);
        assert_eq!(story.hops.len(), 2);
        assert!(story.hops.iter().all(|hop| hop.source.is_some() && hop.destination.is_some()));
    }

    #[test]
    fn an_application_that_fails_is_named_and_a_caller_without_a_record_is_said() {
        let mut record = record("destination", ("web", "orders"), ("b", "a"), 1000);
        record.status = Some(500);
        let text = Story::of("abc", vec![record]).text();
        assert!(text.contains("No sidecar stopped it: shop/orders itself answered 500"), "{text}");
        assert!(text.contains("source       nothing is remembered"), "{text}");
    }

    #[test]
    fn a_path_cannot_move_the_cursor() {
        let mut record = record("destination", ("web", "orders"), ("b", "a"), 1000);
        record.path = "/a\u{1b}[2J\r\n2. forged".to_owned();
        let text = Story::of("abc", vec![record]).text();
        assert!(!text.contains('\u{1b}') && !text.contains("\n2. forged"), "{text}");
    }
}
