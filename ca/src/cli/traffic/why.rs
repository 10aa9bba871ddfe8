//! `douane why`.

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::{Output, Place, advice, logged};
use crate::{
    admin::{Answer, Command, Remembered},
    cli::print::{print_text, remark},
    traffic::{inquiries::Sought, story::Story},
};

#[derive(Args)]
#[command(after_long_help = HELP)]
pub(in crate::cli) struct Why {
    /// A trace id (32 hexadecimal digits), a span id (16), a whole traceparent, an x-request-id, or an address of either end.
    id: String,
    #[command(flatten)]
    place: MaybePlace,
    /// Access logs of sidecars, JSON lines; repeatable; for requests that sidecars have forgotten.
    #[arg(long = "log", value_name = "FILE")]
    logs: Vec<PathBuf>,
    /// Where policies are written [default: what the control plane serves].
    #[arg(long, value_name = "PATH")]
    resources: Vec<PathBuf>,
    /// How it is printed.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Args)]
struct MaybePlace {
    /// The state folder of the control plane. Only its own user and root may ask.
    #[arg(long, env = "DOUANE_DIR", required_unless_present = "logs")]
    dir: Option<PathBuf>,
}

const HELP: &str = "\
Examples:
  douane why 8d573f80e606528e78bb8b58627c0e6c --dir /var/lib/douane     while sidecars remember it
  douane why 0192f0c4-7a5e-7c3b-9d7e-0f6a2b1c3d4e                       by its x-request-id
  douane why 10.77.0.5:7000                                              the last connections there that were refused
  douane why 8d573f80e606528e78bb8b58627c0e6c --log web.log --log orders.log --resources mesh/

The ids are on the access log's line, on the span, in `douane tap`, and in the request's traceparent. Each sidecar remembers
the last 256 requests and streams that it saw fail, and 64 connections that it refused before they had a trace; nothing is
remembered of what went well. Of several replicas of the control plane each asks the sidecars that are connected to it
(on a shared folder only the one that leads does); the logs know the rest. Of a request id or an address that was used often the newest eight are told. The story names caller, hops, where it
stopped, the policy and rule with file and line, and what to change.

JSON: id, hops [{source, destination}] (each as `douane tap --help` says, or null), stopped {hop, at, what, reason, policy,
place, mend}.

Exit codes: 0 it is told; 1 there is no answer, or nothing is known of this id.";

/// Asks, reads, and tells the story.
pub(in crate::cli) fn run(asked: &Why) -> Result<ExitCode> {
    let id = bare(&asked.id);
    Sought::of(&id).with_context(|| {
        format!(
            "{:?} is neither a trace id (32 hexadecimal digits), nor a span id (16), nor a traceparent, nor a request id, \
             nor an address",
            asked.id
        )
    })?;
    let mut records = Vec::new();
    let mut resources = asked.resources.clone();
    let mut missing = Vec::new();
    if let Some(dir) = &asked.place.dir {
        let remembered = ask(&Place { dir: dir.clone() }, &id)?;
        let Remembered { asked, answered, records: found, resources: served } = remembered;
        records.extend(found);
        if resources.is_empty() {
            resources = served;
        }
        if answered < asked {
            remark(&format!("{} of {asked} sidecars did not answer in time", asked - answered));
        }
        missing.push(format!("none of {asked} connected sidecars remembers it"));
    }
    for log in &asked.logs {
        records.extend(logged::records(log, &id)?);
        missing.push(format!("it is not in {}", log.display()));
    }
    let traces: BTreeSet<String> = records.iter().map(|seen| seen.trace_id.clone()).collect();
    for trace in traces.iter().filter(|trace| !trace.is_empty() && **trace != id) {
        for log in &asked.logs {
            records.extend(logged::records(log, trace)?);
        }
    }
    if records.is_empty() {
        bail!(
            "nothing is known of {id}: {}. Sidecars remember the last 256 failures each; older ones are in their access \
             logs (--log FILE)",
            missing.join(", ")
        );
    }
    let mut story = Story::of(&id, records);
    advice::add(&mut story, &resources);
    match asked.output {
        Output::Json => print_text(&format!("{}\n", serde_json::to_string_pretty(&story)?))?,
        Output::Text => print_text(&story.text())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn ask(place: &Place, id: &str) -> Result<Remembered> {
    match place.ask(&Command::Search { id: id.to_owned() })? {
        Answer::Remembered(remembered) => Ok(*remembered),
        _ => bail!("the control plane answered something else; is it of another version?"),
    }
}

// Of a traceparent its trace; ids of traces and spans as sidecars write them; what a client calls its request as it is.
fn bare(text: &str) -> String {
    let text = text.trim();
    let is_id =
        |id: &str, length: usize| id.len() == length && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    match text.split('-').collect::<Vec<_>>().as_slice() {
        [id] if is_id(id, 32) || is_id(id, 16) => id.to_ascii_lowercase(),
        [version, trace, span, flags]
            if is_id(version, 2) && is_id(trace, 32) && is_id(span, 16) && is_id(flags, 2) =>
        {
            trace.to_ascii_lowercase()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_as_people_have_it_at_hand() {
        let trace = "8d573f80e606528e78bb8b58627c0e6c";
        for text in
            [trace, &trace.to_uppercase(), &format!("00-{trace}-2ca7484642bec35d-01"), &format!(" {trace}\n")]
        {
            assert_eq!(bare(text), trace, "{text}");
        }
        assert_eq!(bare("2CA7484642BEC35D"), "2ca7484642bec35d");
        for other in ["", "Req-1", "10.77.0.5:7000", "0192F0C4-7a5e-7c3b-9d7e-0f6a2b1c3d4e", "1-2-3-4"] {
            assert_eq!(bare(other), other, "{other}");
        }
    }
}
