//! `douane ca status|rotate|taint`: what an operator does to the authority.
//!
//! Knows flags and how a status reads (`status_text`); what is done is the running control plane's.

use std::{path::PathBuf, process::ExitCode, time::Duration, time::SystemTime};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};

use super::{
    print::{print_text, remark},
    status_text::{self, Wording},
};
use crate::{
    admin::{Answer, CallError, Command, call},
    authority::{self, Status},
    state::StateFolder,
};

/// How often `--wait` looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    place: Place,
    /// Also say what each coming step will do, when, and who lags.
    #[arg(long)]
    plan: bool,
}

/// Where the authority is, and how it is spoken of.
#[derive(Args)]
pub(super) struct Place {
    /// The state folder of the control plane.
    #[arg(long, env = "DOUANE_DIR")]
    dir: PathBuf,
    /// How it is printed.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For a human.
    Text,
    /// For a script: one JSON object, times in seconds since 1970.
    Json,
}

#[derive(Subcommand)]
pub(super) enum Rotate {
    /// Replace the root: prepared, published, active once every sidecar knows it; the old one leaves when nothing that
    /// it signed is valid any more. No sidecar restarts, no request fails.
    ///
    /// The new root signs when every connected sidecar has acknowledged the bundle that holds it, everybody else that
    /// has a valid certificate has renewed or expired, and `rootLead` (5m by default) has passed. `douane ca status`
    /// names those it waits for. The way goes on by itself, also after a restart: this command only begins it.
    #[command(
        after_help = "Examples:\n  douane ca rotate root --dir /var/lib/douane --plan    what would happen\n  \
                            douane ca rotate root --dir /var/lib/douane --wait    begin, and watch until it signs"
    )]
    Root {
        #[command(flatten)]
        place: Place,
        /// Only say what each step would do, when, and who lags.
        #[arg(long)]
        plan: bool,
        /// Let it sign at once, also if somebody does not know it yet: they refuse everybody's new certificates until
        /// they have heard of it. Written to the audit log.
        #[arg(long)]
        force: bool,
        /// Wait until it signs.
        #[arg(long)]
        wait: bool,
    },
    /// Replace the intermediate, which lives in memory only: sidecars trust roots and need not hear of it.
    Intermediate {
        #[command(flatten)]
        place: Place,
        /// Only say what would happen.
        #[arg(long)]
        plan: bool,
    },
}

#[derive(Args)]
#[command(
    after_help = "Example: the key of an intermediate is known to others.\n  douane ca status --dir /var/lib/douane    \
                        shows its id\n  douane ca taint 3f9a0c… --dir /var/lib/douane --wait"
)]
pub(super) struct Taint {
    /// The id of a root or an intermediate, as `douane ca status` shows it; or, of an intermediate that is gone, the
    /// authority key identifier (40 hexadecimal digits) of a certificate that it signed.
    authority: String,
    #[command(flatten)]
    place: Place,
    /// Wait until it is out of use everywhere.
    #[arg(long)]
    wait: bool,
}

pub(super) fn status(args: &StatusArgs) -> Result<ExitCode> {
    let status = args.place.status()?;
    let wording = if args.plan { Wording::WithPlan } else { Wording::Brief };
    args.place.show(&status, || status_text::status(&status, wording))?;
    // A script can tell: nobody signs.
    Ok(if status.running { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

pub(super) fn rotate(rotate: &Rotate) -> Result<()> {
    match rotate {
        Rotate::Root { place, plan: true, force, .. } => {
            let status = place.status()?;
            place.show(&status, || status_text::root_plan(&status, *force))
        }
        Rotate::Root { place, force, wait, .. } => {
            let (id, status) = place.give(&Command::RotateRoot { force: *force })?;
            let id = id.context("the control plane did not say which root comes")?;
            if !wait {
                return place.show(&status, || status_text::begun(&status, &id));
            }
            let status =
                place.watch(status, |status| match status.roots.iter().find(|root| root.id == id) {
                    None => bail!("root {id} was removed before it signed"),
                    Some(_) => Ok(status.active().is_some_and(|active| active.id == id)),
                })?;
            place.show(&status, || status_text::signs(&status, &id))
        }
        Rotate::Intermediate { place, plan: true } => {
            let status = place.status()?;
            place.show(&status, || status_text::intermediate_plan(&status))
        }
        Rotate::Intermediate { place, .. } => {
            let (id, status) = place.give(&Command::RotateIntermediate)?;
            let id = id.unwrap_or_default();
            place.show(&status, || format!("Intermediate {id} signs now.\n"))
        }
    }
}

pub(super) fn taint(taint: &Taint) -> Result<()> {
    let (name, place) = (&taint.authority, &taint.place);
    let (_, status) = place.give(&Command::Taint { authority: name.clone() })?;
    if !taint.wait {
        return place.show(&status, || status_text::tainted(&status, name));
    }
    let status = place.watch(status, |status| {
        let is_root = status.roots.iter().any(|root| root.id == *name);
        Ok(!is_root && !status.tainted_intermediates.iter().any(|it| it.id == *name && !it.refused))
    })?;
    place.show(&status, || format!("{name} is out of use: nobody trusts what it signed.\n"))
}

impl Place {
    fn folder(&self) -> StateFolder {
        StateFolder::new(&self.dir)
    }

    fn give(&self, command: &Command) -> Result<(Option<String>, Status)> {
        match call(&self.folder(), command)? {
            Answer::Done { authority, status } => Ok((authority, *status)),
            Answer::Refused(reason) => bail!("{reason}"),
            _ => {
                bail!("the control plane answered something else; is it of another version?")
            }
        }
    }

    // Of a control plane that does not run, what lies on the disk.
    fn status(&self) -> Result<Status> {
        match call(&self.folder(), &Command::Status) {
            Ok(Answer::Done { status, .. }) => Ok(*status),
            Ok(Answer::Refused(reason)) => bail!("{reason}"),
            Ok(_) => {
                bail!("the control plane answered something else; is it of another version?")
            }
            Err(CallError::NotRunning(dir)) => authority::status_at_rest(&self.folder(), SystemTime::now())
                .with_context(|| {
                    format!("no control plane runs on {}, and its state cannot be read", dir.display())
                }),
            Err(error) => Err(error.into()),
        }
    }

    fn show(&self, status: &Status, text: impl FnOnce() -> String) -> Result<()> {
        match self.output {
            Output::Text => print_text(&text()),
            Output::Json => print_text(&format!("{}\n", serde_json::to_string_pretty(status)?)),
        }
    }

    // Tells each change on the way, once.
    fn watch(&self, mut status: Status, done: impl Fn(&Status) -> Result<bool>) -> Result<Status> {
        let mut told = String::new();
        loop {
            if done(&status)? {
                return Ok(status);
            }
            let line = status_text::progress(&status);
            if line != told {
                remark(&line);
                told = line;
            }
            std::thread::sleep(LOOK_EVERY);
            (_, status) = self.give(&Command::Status)?;
        }
    }
}
