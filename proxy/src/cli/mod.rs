//! The command line: what was typed becomes typed values, and each verb calls the room that does it.
//!
//! - `run`: the flags of a sidecar, `bounds`: those of its limits, `traces`: of its traces, `export`: of
//!   where they go; `redirect`: those of its rules
//!
//! Nothing below reads arguments or the environment.

mod bounds;
mod export;
mod redirect;
mod run;
mod traces;

use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};

use crate::{
    admin::{client, wait},
    redirect::plan::HEALTH_PORT,
};

/// Douane's sidecar: it checks the passports of a pod's connections, applies the law, and writes the ledger.
///
/// A sidecar stands beside one pod. `redirect install` brings the pod's connections to it; `run` serves them. It proves
/// who it is to the control plane with the pod's service account token, receives a short-lived certificate, and learns
/// policies and destinations over the same road.
#[derive(Debug, Parser)]
#[command(name = "douane-proxy", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve the pod: until SIGTERM (drains), or a second one (ends at once).
    ///
    /// Example, beside the pod `orders-0` of the lab:
    ///
    ///   douane-proxy run --namespace shop --pod orders-0 --pod-ip 10.77.0.5 --control-plane https://10.77.0.1:15012
    ///   --bundle-file bundle.pem --token-file token
    ///
    /// Ready when http://POD-IP:15020/readyz answers 200.
    #[command(verbatim_doc_comment)]
    Run(Box<run::Run>),
    /// Wait until the sidecar of this pod is ready: the postStart hook where it is no native sidecar.
    Await(Await),
    /// Bring this network namespace's connections to the sidecar, or stop it. Needs CAP_NET_ADMIN.
    #[command(subcommand)]
    Redirect(redirect::Redirect),
    /// Ask a running sidecar, over its admin socket. Only root and the sidecar's own uid are heard.
    Admin(Admin),
    /// Print the version.
    Version,
}

#[derive(Debug, clap::Args)]
struct Await {
    /// Give up after this.
    #[arg(long, default_value = "120s", value_parser = humantime::parse_duration)]
    limit: Duration,
    /// The sidecar's health port.
    #[arg(long, default_value_t = HEALTH_PORT)]
    port: u16,
}

#[derive(Debug, clap::Args)]
struct Admin {
    /// The run directory of the sidecar to ask.
    #[arg(long, env = "DOUANE_RUN_DIR", default_value = run::RUN_DIR)]
    run_dir: PathBuf,
    #[command(subcommand)]
    question: Question,
}

#[derive(Debug, Subcommand)]
enum Question {
    /// The configuration in effect.
    Config,
    /// Who the sidecar is and whom it trusts: certificates in hexadecimal DER, never keys.
    Certificates,
    /// What it knows of the mesh: policies, and the destinations it asked for.
    Snapshot,
    /// Finish what runs, take nothing new, and end.
    Drain,
    /// Print the log filter, or set it.
    LogLevel {
        /// Such as `debug`, or `info,douane_proxy::outbound=trace`.
        filter: Option<String>,
    },
}

/// Runs the command line; `args[0]` is the program's name.
#[must_use]
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(told) => {
            // Help and version are told here as well, to standard output and with success.
            let _ = told.print();
            return ExitCode::from(u8::try_from(told.exit_code()).unwrap_or(2));
        }
    };
    match obey(cli.verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("douane-proxy: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn obey(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Run(run) => run.obey(),
        Verb::Await(asked) => Ok(wait::until_ready(asked.port, asked.limit)?),
        Verb::Redirect(redirect) => redirect.obey(),
        Verb::Admin(admin) => {
            print!("{}", client::ask(&admin.run_dir, &admin.question.command())?);
            Ok(())
        }
        Verb::Version => {
            println!("douane-proxy {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    }
}

impl Question {
    fn command(&self) -> String {
        match self {
            Self::Config => "config".to_owned(),
            Self::Certificates => "certificates".to_owned(),
            Self::Snapshot => "snapshot".to_owned(),
            Self::Drain => "drain".to_owned(),
            Self::LogLevel { filter } => format!("log-level {}", filter.as_deref().unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
