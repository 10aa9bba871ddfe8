//! The `lab` program's command line, and the roles that the same binary plays.

use std::{ffi::OsString, ops::RangeInclusive, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::lab::{
    addresses::{GATEWAY_V4, SINK_PORT},
    daemon::Script,
    exec, folder, launcher,
    plan::Plan,
    play, programs, roles,
    spec::{Demo, Folder, Job, Options},
    status::{self, Format},
};

/// Runs a folder of Kubernetes YAML as a mesh on this machine: no cluster, no images, no root.
///
/// Each pod is a network namespace with its own IPv4 and IPv6 address; the containers' commands run in it as programs of
/// this machine. A pod with the label `douane.io/inject: enabled` gets a real sidecar. Service names resolve inside.
#[derive(Debug, Parser)]
#[command(name = "lab", version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

const EXAMPLES: &str = "Examples:
  lab demo                                  the shop, with its script of attempts
  lab up kind-cluster/shop                  the shop, until Ctrl-C
  lab exec shop/web -- curl -s http://orders/orders    in another terminal
  lab exec -c douane-proxy shop/web -- douane-proxy admin certificates
  lab douane edges                          who talks to whom
  lab status -o json";

#[derive(Debug, Subcommand)]
enum Task {
    /// Brings the pods of a folder up and stays until Ctrl-C.
    ///
    /// Reads every .yaml file of DIR: Namespace, ServiceAccount, Pod, Deployment, Service, ServiceEntry, WorkloadEntry and
    /// the policies of security.istio.io. Edits of policies, services and entries take effect while the lab runs.
    Up {
        /// The folder of YAML.
        dir: PathBuf,
        /// Send spans to this collector (OTLP over gRPC, unless a variable of the sidecars says otherwise), such as
        /// http://localhost:4317.
        #[arg(long, value_name = "URL")]
        otlp: Option<String>,
        /// A variable of each sidecar, such as DOUANE_TRACE_SAMPLER=0.01 (the lab's own is 1.0). Repeatable. What the lab
        /// tells sidecars by flags, such as their pod, comes before it.
        #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
        sidecar_env: Vec<(String, String)>,
        /// How long certificates live, such as 10s or 1h; from 10s to 24h.
        #[arg(long, value_name = "TIME", value_parser = leaf_life)]
        leaf_ttl: Option<Duration>,
        /// Where each process's log goes [default: the lab's own folder, gone with the lab].
        #[arg(long, value_name = "DIR")]
        log_dir: Option<PathBuf>,
    },
    /// Runs any program of this machine inside a pod of the running lab, as the pod's application would.
    Exec {
        /// NAME or NAMESPACE/NAME of a pod, or of a Deployment (its first pod).
        pod: String,
        /// Whose environment, user and working directory [default: the pod's first container]. `douane-proxy` means the
        /// sidecar, such as for `douane-proxy admin`.
        #[arg(short, long)]
        container: Option<String>,
        /// Which lab, by the number of its launcher's process [default: the newest].
        #[arg(long, value_name = "ID")]
        lab: Option<u32>,
        /// The program and its arguments, after `--`.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Lists the running lab's pods: addresses, SPIFFE IDs, certificates, readiness.
    Status {
        /// How to print it.
        #[arg(short, long, value_enum, default_value = "table")]
        output: Format,
        /// Which lab, by the number of its launcher's process [default: the newest].
        #[arg(long, value_name = "ID")]
        lab: Option<u32>,
    },
    /// Asks the running lab's control plane: `douane` with its state folder.
    Douane {
        /// Which lab, by the number of its launcher's process [default: the newest].
        #[arg(long, value_name = "ID")]
        lab: Option<u32>,
        /// What `douane` is to do, such as `edges` or `ca status`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        arguments: Vec<OsString>,
    },
    /// Runs the shop in a lab with its script of attempts; ends non-zero if one differs from what is expected.
    Demo {
        /// Print an array of results instead of lines.
        #[arg(long)]
        json: bool,
        /// Leave the lab up afterwards.
        #[arg(long)]
        stay: bool,
        /// Send spans to this collector too (OTLP over gRPC), such as http://localhost:4317.
        #[arg(long, value_name = "URL")]
        otlp: Option<String>,
        /// Where each process's log goes [default: the lab's own folder, gone with the lab].
        #[arg(long, value_name = "DIR")]
        log_dir: Option<PathBuf>,
    },
}

/// Runs the program, in whichever role it was started. `script` is what `lab demo` plays.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>, script: Script) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if roles::program(&arguments).is_some() {
        return play::program(&arguments);
    }
    if let Some(done) = play::role(&arguments, script) {
        return done;
    }
    let Arguments { command } = Arguments::parse_from(arguments);
    run(command).unwrap_or_else(|error| {
        eprintln!("lab: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(task: Task) -> Result<ExitCode> {
    match task {
        Task::Up { dir, otlp, sidecar_env, leaf_ttl, log_dir } => {
            let resources = dir.canonicalize().with_context(|| format!("the folder {}", dir.display()))?;
            // What cannot run is said before anything starts.
            Plan::make(&folder::read(&dir)?, programs::exists)?;
            let log_dir = log_dir.map(std::path::absolute).transpose()?;
            let sink = otlp.as_ref().map(|_| format!("http://{GATEWAY_V4}:{SINK_PORT}"));
            let folder = Folder::InPlace;
            let options = Options { resources, folder, leaf_ttl, log_dir, sink, sidecar_env, relay: None };
            launcher::run(Job::Up, options, otlp.as_deref())
        }
        Task::Exec { pod, container, lab, command } => exec::main(lab, &pod, container.as_deref(), &command),
        Task::Status { output, lab } => status::main(lab, output),
        Task::Douane { lab, arguments } => exec::douane(lab, &arguments),
        Task::Demo { json, stay, otlp, log_dir } => {
            let log_dir = log_dir.map(std::path::absolute).transpose()?;
            let resources = PathBuf::from(SHOP).canonicalize();
            let options = Options {
                resources: resources.with_context(|| format!("the shop's folder {SHOP}"))?,
                folder: Folder::Copy,
                leaf_ttl: Some(DEMO_LEAF),
                log_dir,
                sink: Some(format!("http://{GATEWAY_V4}:{SINK_PORT}")),
                sidecar_env: Vec::new(),
                relay: None,
            };
            launcher::run(Job::Demo(Demo { json, stay }), options, otlp.as_deref())
        }
    }
}

fn leaf_life(text: &str) -> Result<Duration, String> {
    let life = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if LEAF_LIVES.contains(&life) { Ok(life) } else { Err("an authority signs for 10s to 24h".to_owned()) }
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    let is_first = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    let is_name = name.as_bytes().first().is_some_and(is_first)
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_name {
        Ok((name.to_owned(), value.to_owned()))
    } else {
        Err(format!("{name:?} is no name of a variable; write letters, digits and _, as in NAME=VALUE"))
    }
}

// What `douane ca` would otherwise quietly round to.
const LEAF_LIVES: RangeInclusive<Duration> = DEMO_LEAF..=Duration::from_secs(24 * 3600);
// Of the checkout that this program was built from.
const SHOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../kind-cluster/shop");
// The shortest that an authority signs, so that renewals can be watched.
const DEMO_LEAF: Duration = Duration::from_secs(10);
