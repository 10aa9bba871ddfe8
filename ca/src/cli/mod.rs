//! The command line of `douane`: `ca` runs the control plane (`run`), `policy` is for whoever writes policies (`policy`),
//! `edges` and its like look at a running mesh (`traffic`), `install` and its like print manifests (`install`), `check` looks at a cluster, `inject` and
//! `uninject` put sidecars into others (`inject`), `version` says which this is.
//!
//! Knows flags, exit codes and how errors are printed; everything else is done in the rooms below.

mod audit;
mod authority;
mod check;
mod inject;
mod install;
mod policy;
mod print;
mod run;
mod status_text;
mod token;
mod traffic;

use std::{ffi::OsString, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand, error::ErrorKind};

use self::{
    policy::Policy,
    print::{print, remark},
    run::Ca,
};

#[derive(Parser)]
#[command(name = "douane", about = "Douane's control plane and operator's command line", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the control plane: certificate authority and discovery.
    Ca(Box<Ca>),
    /// Test policies, ask them, compare them, write them.
    #[command(subcommand)]
    Policy(Policy),
    /// Put sidecars into the pods of manifests.
    #[command(after_long_help = inject::HELP)]
    Inject(Box<inject::Inject>),
    /// Take them out again.
    Uninject(inject::Uninject),
    /// Say who talks to whom, with mutual TLS or not, how often, how well and how fast.
    Edges(traffic::Edges),
    /// Say how each workload and service does: rate, success, latency.
    Stat(traffic::Stat),
    /// Show the busiest edges, again and again.
    Top(traffic::Top),
    /// Show live requests, redacted.
    Tap(Box<traffic::Tap>),
    /// Tell one failed request's story from both ends.
    Why(traffic::Why),
    /// Say whether a cluster is fit for the mesh, and whether the mesh in it does its work: what, why, and what mends it.
    Check(check::Check),
    /// Print what kubectl applies, so that a cluster has a control plane.
    Install(Box<install::Install>),
    /// Print the same for a control plane that is there, with what it was told.
    Upgrade(Box<install::Upgrade>),
    /// Print what kubectl takes away again.
    Uninstall(install::Uninstall),
    /// Say which version this is.
    Version,
}

/// Runs `douane` with these arguments (the first is the program's name).
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are errors of clap's, too; it knows which stream and which code.
            let _ = error.print();
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if asked { ExitCode::SUCCESS } else { ExitCode::from(2) };
        }
    };
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            remark(&format!("douane: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Version => {
            print(&format!("douane {}", env!("CARGO_PKG_VERSION"))).map(|()| ExitCode::SUCCESS)
        }
        Command::Ca(ca) => run::run(*ca),
        Command::Policy(policy) => Ok(policy::run(policy)),
        Command::Check(asked) => check::check(&asked),
        Command::Install(asked) => install::install(&asked).map(|()| ExitCode::SUCCESS),
        Command::Upgrade(asked) => install::upgrade(&asked).map(|()| ExitCode::SUCCESS),
        Command::Uninstall(asked) => install::uninstall(&asked).map(|()| ExitCode::SUCCESS),
        Command::Inject(asked) => inject::inject(&asked),
        Command::Uninject(asked) => inject::uninject(&asked),
        Command::Edges(asked) => traffic::edges(&asked).map(|()| ExitCode::SUCCESS),
        Command::Stat(asked) => traffic::stat(&asked).map(|()| ExitCode::SUCCESS),
        Command::Top(asked) => traffic::top(&asked).map(|()| ExitCode::SUCCESS),
        Command::Tap(asked) => traffic::tap(&asked).map(|()| ExitCode::SUCCESS),
        Command::Why(asked) => traffic::why(&asked),
    }
}
