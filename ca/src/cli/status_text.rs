//! How the state of the authority reads: for somebody who is tired, and has to know within a glance whether all is well.
//!
//! Pure: a status becomes text.

use std::{
    fmt::Write as _,
    time::{Duration, UNIX_EPOCH},
};

use crate::{
    authority::{Lagging, Pending, Root, Status},
    federation::DomainStatus,
};

/// How much is said.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wording {
    /// What is.
    Brief,
    /// And what comes.
    WithPlan,
}

pub(super) fn status(status: &Status, wording: Wording) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{}", headline(status));
    let _ = writeln!(
        text,
        "\nTrust domain {}; bundle: epoch {}, sequence {}",
        status.trust_domain, status.epoch, status.sequence
    );
    let _ = writeln!(text, "\n{:<18}{:<11}ENDS", "ROOT", "PHASE");
    for root in &status.roots {
        let _ = writeln!(
            text,
            "{:<18}{:<11}{:<43}{}",
            root.id,
            root.phase,
            at(root.not_after, status.now),
            remark(root, status.now)
        );
    }
    if let Some(signer) = &status.intermediate {
        let _ = writeln!(
            text,
            "\nIntermediate {} (below {}) ends {}, replaced {}",
            signer.id,
            signer.root,
            at(signer.not_after, status.now),
            at(signer.renewed_at, status.now)
        );
        if !signer.before.is_empty() {
            let _ = writeln!(text, "  before it, and still valid: {}", signer.before.join(", "));
        }
    }
    for tainted in &status.tainted_intermediates {
        let state = if tainted.refused { "refused everywhere" } else { "everybody below it renews" };
        let until = at(tainted.until, status.now);
        let _ = writeln!(text, "Tainted intermediate {}: {state}; ends {until}", tainted.id);
    }
    if let Some(sidecars) = &status.sidecars {
        let _ = writeln!(
            text,
            "Sidecars: {} connected, {} of them use this bundle; {} not connected hold a valid certificate",
            sidecars.connected, sidecars.up_to_date, sidecars.away.count
        );
        name(&mut text, &sidecars.away, status.now);
    }
    for domain in &status.federated {
        let _ = writeln!(text, "{}", federated(domain, status.now));
    }
    if wording == Wording::WithPlan {
        text.push_str("\nNext:\n");
        for pending in &status.next {
            coming(&mut text, pending, status.now);
        }
        if status.next.is_empty() {
            text.push_str("  nothing is known while no control plane runs\n");
        }
    }
    text
}

fn federated(domain: &DomainStatus, now: i64) -> String {
    let mut text = format!("Federated with {}: ", domain.trust_domain);
    match (domain.roots, domain.expires) {
        (None, _) => text.push_str("no bundle yet, its identities are refused"),
        (Some(_), None) => text.push_str("its bundle holds no root, its identities are refused"),
        (Some(roots), Some(expires)) => {
            let noun = if roots == 1 { "root" } else { "roots" };
            let _ = write!(text, "{roots} {noun}, the last ends {}", at(expires, now));
        }
    }
    match domain.fetched {
        Some(fetched) => {
            let _ = write!(text, "; fetched {} ago", span(now.saturating_sub(fetched)));
        }
        None if domain.roots.is_some() => text.push_str("; not fetched yet, the first bundle counts"),
        None => {}
    }
    if let Some(failing) = &domain.failing {
        let _ = write!(text, "\n  the last fetch failed: {failing}");
    }
    text
}

/// What a rotation of the root would do.
pub(super) fn root_plan(status: &Status, force: bool) -> String {
    let mut text = String::new();
    if let Some(coming) = status.coming() {
        let _ = writeln!(
            text,
            "Root {} is on its way already ({}). What it waits for:\n",
            coming.id, coming.phase
        );
        status.next.iter().for_each(|pending| self::coming(&mut text, pending, status.now));
        return text;
    }
    let lead = span(status.root_lead.unwrap_or_default());
    let active = status.active().map_or("(none)", |root| root.id.as_str());
    let connected = status.sidecars.as_ref().map_or(0, |sidecars| sidecars.connected);
    let _ = writeln!(text, "Nothing was done. `rotate root` would:");
    let life = span(status.root_life.unwrap_or_default());
    let _ = writeln!(text, "  1. prepare   at once: a new root of {life} is made and stored; nobody notices");
    let _ = writeln!(
        text,
        "  2. publish   at once: bundle sequence {} with both roots is pushed to {connected} connected sidecars",
        status.sequence + 1
    );
    if force {
        text.push_str("  3. activate  at once, because of --force: whoever has not heard of it yet refuses new certificates\n");
    } else {
        let _ = writeln!(
            text,
            "  3. activate  after {lead} at least, and when all have acknowledged it: certificates are signed below it,\n               \
             {active} retires"
        );
        if let Some(away) =
            status.sidecars.as_ref().map(|sidecars| &sidecars.away).filter(|away| away.count > 0)
        {
            let _ =
                writeln!(text, "               waits also for {} that are not connected now:", away.count);
            name(&mut text, away, status.now);
        }
    }
    let _ = writeln!(
        text,
        "  4. remove    when nothing that {active} signed is valid any more (of what is signed until now: {}):\n\
         \x20              it leaves the bundle",
        status.signed_until.map_or_else(|| "unknown".to_owned(), |until| at(until, status.now))
    );
    if !status.running {
        text.push_str("\nNo control plane runs on this folder: start it first.\n");
    }
    text
}

/// What a rotation of the intermediate would do.
pub(super) fn intermediate_plan(status: &Status) -> String {
    let signer = status.intermediate.as_ref().map_or("(none)", |signer| signer.id.as_str());
    format!(
        "Nothing was done. `rotate intermediate` would make a new key in memory, let the root sign it, and sign with it \
         from then on.\nSidecars need not hear of it; what {signer} signed stays valid. To cut it off: `douane ca taint \
         {signer}`.\n"
    )
}

pub(super) fn begun(status: &Status, id: &str) -> String {
    let mut text = String::new();
    if status.active().is_some_and(|root| root.id == id) {
        return signs(status, id);
    }
    let _ = writeln!(text, "Root {id} is on its way; it goes on by itself.");
    status.next.iter().for_each(|pending| coming(&mut text, pending, status.now));
    text
}

pub(super) fn signs(status: &Status, id: &str) -> String {
    let mut text = format!("Root {id} signs.\n");
    for root in status.roots.iter().filter(|root| root.leaves_until.is_some()) {
        let until = at(root.leaves_until.unwrap_or_default(), status.now);
        let _ =
            writeln!(text, "Root {} stays in the bundle until what it signed has ended: {until}.", root.id);
    }
    text
}

pub(super) fn tainted(status: &Status, id: &str) -> String {
    let mut text = format!("{id} is tainted. What follows goes on by itself:\n");
    status.next.iter().for_each(|pending| coming(&mut text, pending, status.now));
    text
}

/// One line on the way.
pub(super) fn progress(status: &Status) -> String {
    let mut phases: Vec<String> =
        status.roots.iter().map(|root| format!("{} {}{}", root.id, root.phase, mark(root))).collect();
    for pending in
        status.next.iter().filter(|pending| pending.lagging.count > 0 || pending.not_before.is_some())
    {
        let mut line = format!("to {}", pending.step);
        if let Some(first) = pending.lagging.names.first() {
            let _ = write!(line, ": {} lag, such as {}", pending.lagging.count, first.name);
        } else if let Some(until) = pending.not_before {
            let _ = write!(line, ": at {}", humantime::format_rfc3339_seconds(time(until)));
        }
        phases.push(line);
    }
    phases.join("; ")
}

fn headline(status: &Status) -> String {
    if !status.running {
        return "NO CONTROL PLANE RUNS on this folder: nobody signs. This is what lies on the disk."
            .to_owned();
    }
    let lagging: usize = status.next.iter().map(|pending| pending.lagging.count).sum();
    if status.roots.iter().any(|root| root.tainted)
        || status.tainted_intermediates.iter().any(|it| !it.refused)
    {
        return "A tainted authority is being replaced.".to_owned();
    }
    match status.coming() {
        Some(_) if lagging > 0 => {
            format!("A root rotation waits for {lagging} that do not know the new root yet.")
        }
        Some(_) => "A root rotation is on its way.".to_owned(),
        None => "All is well: one root signs, no rotation is on its way.".to_owned(),
    }
}

fn remark(root: &Root, now: i64) -> String {
    let mut words = Vec::new();
    if root.tainted {
        words.push("tainted".to_owned());
    }
    if root.forced && root.phase != "active" {
        words.push("forced".to_owned());
    }
    match root.phase.as_str() {
        "active" if !root.tainted => words.push(format!("replaced from {}", at(root.replaced_from(), now))),
        "retiring" => {
            if let Some(until) = root.leaves_until {
                words.push(format!("what it signed ends {}", at(until, now)));
            }
        }
        _ => {}
    }
    words.join(", ")
}

fn mark(root: &Root) -> &'static str {
    if root.tainted { " (tainted)" } else { "" }
}

fn coming(text: &mut String, pending: &Pending, now: i64) {
    let _ = write!(text, "  {}", pending.step);
    if let Some(id) = &pending.authority {
        let _ = write!(text, " {id}");
    }
    match pending.not_before {
        Some(until) => {
            let _ = writeln!(text, ": {}", at(until, now));
        }
        None if pending.lagging.count > 0 => {
            let _ = writeln!(text, ": waits for {}", pending.lagging.count);
        }
        None => text.push_str(": now\n"),
    }
    name(text, &pending.lagging, now);
}

fn name(text: &mut String, lagging: &Lagging, now: i64) {
    for laggard in &lagging.names {
        let how = if laggard.connected {
            "connected, has not acknowledged".to_owned()
        } else {
            format!("not connected; its certificate ends {}", at(laggard.until, now))
        };
        let _ = writeln!(text, "    {}: {how}", laggard.name);
    }
    let more = lagging.count.saturating_sub(lagging.names.len());
    if more > 0 {
        let _ = writeln!(text, "    and {more} more");
    }
}

// Both ways of saying it: a clock for the log, a span for the head.
fn at(then: i64, now: i64) -> String {
    let clock = humantime::format_rfc3339_seconds(time(then));
    match then.saturating_sub(now) {
        0.. => format!("{clock} (in {})", span(then.saturating_sub(now))),
        _ => format!("{clock} ({} ago)", span(now.saturating_sub(then))),
    }
}

// The two largest units are enough.
fn span(seconds: i64) -> String {
    let whole = humantime::format_duration(Duration::from_secs(seconds.unsigned_abs())).to_string();
    let parts: Vec<&str> = whole.split(' ').take(2).collect();
    parts.join(" ")
}

fn time(unix: i64) -> std::time::SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(unix).unwrap_or(0))
}
