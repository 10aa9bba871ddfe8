//! `douane why`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::{Output, Place, advice, logged};
use crate::{
    admin::{Answer, Command, Remembered},
    cli::print::{print_text, remark},
    traffic::story::Story,
};

#[derive(Args)]
#[command(after_long_help = HELP)]
pub(in crate::cli) struct Why {
    /// A trace id (32 hexadecimal digits), a span id (16), or a whole traceparent.
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
  douane why 8d573f80e606528e78bb8b58627c0e6c --log web.log --log orders.log --resources mesh/

The id is on the access log's line, on the span, in `douane tap`, and in the request's traceparent. Each sidecar remembers
the last 256 requests that it saw fail; nothing is remembered of what went well. The story names caller, hops, where it
stopped, the policy and rule with file and line, and what to change.

JSON: id, hops [{source, destination}] (each as `douane tap --help` says, or null), stopped {hop, at, what, reason, policy,
place, mend}.

Exit codes: 0 it is told; 1 there is no answer, or nothing is known of this id.";

/// Asks, reads, and tells the story.
pub(in crate::cli) fn run(asked: &Why) -> Result<ExitCode> {
    let id = bare(&asked.id).with_context(|| {
        format!(
            "{:?} is neither a trace id (32 hexadecimal digits), nor a span id (16), nor a traceparent",
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

// The id that a trace or a span is looked for by.
fn bare(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let id = match text.split('-').collect::<Vec<_>>().as_slice() {
        [id] => (*id).to_owned(),
        [_, trace, _, _] => (*trace).to_owned(),
        _ => return None,
    };
    let is_hex = id.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_hex && matches!(id.len(), 16 | 32)).then_some(id)
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
            assert_eq!(bare(text).as_deref(), Some(trace), "{text}");
        }
        assert_eq!(bare("2ca7484642bec35d").as_deref(), Some("2ca7484642bec35d"));
        for wrong in ["", "8d57", "g".repeat(32).as_str(), "a-b", "1-2-3-4-5"] {
            assert_eq!(bare(wrong), None, "{wrong}");
        }
    }
}
