//! A pod's sidecar: its rules, its process, and the wait until it is ready.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::lab::{
    addresses::GATEWAY_V4,
    confine::Confinement,
    control_plane::{PORT, append_to, tail},
    mounts::{LAB_PROGRAM, SECRETS, WORKLOAD_SOCKET},
    pod::Room,
    pod_plan::PodPlan,
    probe,
    processes::{Backoff, Kept, Restart},
    programs,
    spec::Options,
};

/// In the sidecar's own folder, which no application sees: `lab exec -c douane-proxy POD -- cat` shows it.
const AUDIT_LOG: &str = "/run/douane/audit.log";

/// Who is spared by the rules, and who runs the sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exemption {
    /// Root's lab: the sidecar's own uid, as in a cluster.
    Uid(u32),
    /// The unprivileged lab has one uid only: a mark on the sidecar's sockets.
    Mark(u32),
}

impl Exemption {
    /// What this lab can do.
    #[must_use]
    pub fn of_this_lab(privileged: Privilege) -> Self {
        match privileged {
            Privilege::Root => Self::Uid(2112),
            Privilege::Unprivileged => Self::Mark(0x0D0A),
        }
    }

    /// Who owns the sidecar's files.
    #[must_use]
    pub fn owner(self) -> u32 {
        match self {
            Self::Uid(uid) => uid,
            Self::Mark(_) => 0,
        }
    }

    /// What its sidecar keeps.
    #[must_use]
    pub fn confinement(self) -> Confinement {
        let (id, net_admin) = match self {
            Self::Uid(uid) => (Some(uid), false),
            Self::Mark(_) => (None, true),
        };
        Confinement { uid: id, gid: id, net_admin, directory: "/".into(), ..Confinement::default() }
    }
}

/// Who made this lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// Real root: many uids.
    Root,
    /// A user namespace that maps one uid.
    Unprivileged,
}

impl Privilege {
    /// This lab's.
    #[must_use]
    pub fn of_this_lab() -> Self {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        // The third column is how many uids are mapped.
        match map.split_whitespace().nth(2) {
            Some("1") => Self::Unprivileged,
            _ => Self::Root,
        }
    }
}

/// Installs the rules of a pod, before anything runs in it.
///
/// # Errors
/// The kernel refuses them.
pub fn install_rules(room: &Room, exemption: Exemption) -> Result<()> {
    let mut command: Vec<OsString> = vec!["douane-proxy".into(), "redirect".into(), "install".into()];
    match exemption {
        Exemption::Uid(uid) => command.extend(["--uid".into(), uid.to_string().into()]),
        Exemption::Mark(mark) => command.extend(["--mark".into(), mark.to_string().into()]),
    }
    let confinement = Confinement { net_admin: true, directory: "/".into(), ..Confinement::default() };
    let mut process = Command::new(LAB_PROGRAM);
    process.args(confinement.arguments(&command)).stdin(Stdio::null());
    clean_environment(&mut process, &[]);
    let done: Output = room.run(move || process.output())?.context("run douane-proxy redirect install")?;
    ensure!(
        done.status.success(),
        "douane-proxy redirect install: {}: {}",
        done.status,
        String::from_utf8_lossy(&done.stderr).trim()
    );
    Ok(())
}

/// A pod's sidecar, before it runs.
#[derive(Debug)]
pub struct Sidecar {
    /// Its pod.
    pub pod: PodPlan,
    /// Where it runs.
    pub room: Arc<Room>,
    /// Who is spared by the pod's rules.
    pub exemption: Exemption,
    /// Its log.
    pub log: PathBuf,
}

impl Sidecar {
    /// Starts it, and again at once whenever it ends (a little later where it cannot live). The rules stay meanwhile: nothing gets past.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(self, options: &Options) -> Result<Kept> {
        let command = self.command(options);
        // The lab's sidecars tell all unless somebody says otherwise.
        let mut variables = vec![("DOUANE_TRACE_SAMPLER".to_owned(), "1.0".to_owned())];
        variables.extend(options.sidecar_env.iter().cloned());
        let name = format!("{} sidecar", self.pod.metadata.key());
        Kept::start(name, Restart::Always, BACKOFF, move || {
            let log = append_to(&self.log)?;
            let mut process = Command::new(LAB_PROGRAM);
            process.args(self.exemption.confinement().arguments(&command));
            process.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
            clean_environment(&mut process, &variables);
            self.room.spawn(process)?.context("start the sidecar")
        })
    }

    fn command(&self, options: &Options) -> Vec<OsString> {
        let mut command: Vec<OsString> =
            ["douane-proxy", "run", "--environment", "lab"].map(Into::into).into();
        let mut flag = |name: &str, value: String| command.extend([name.into(), value.into()]);
        flag("--namespace", self.pod.metadata.namespace.clone());
        flag("--pod", self.pod.metadata.name.clone());
        for address in self.pod.addresses.both() {
            flag("--pod-ip", address.to_string());
        }
        flag("--control-plane", format!("https://{GATEWAY_V4}:{PORT}"));
        flag("--bundle-file", format!("{SECRETS}/bundle.pem"));
        flag("--token-file", format!("{SECRETS}/token"));
        flag("--audit-log", AUDIT_LOG.to_owned());
        flag("--workload-socket", WORKLOAD_SOCKET.to_owned());
        if let Exemption::Mark(mark) = self.exemption {
            flag("--mark", mark.to_string());
        }
        if let Some(life) = options.leaf_ttl {
            flag("--leaf-ttl", humantime::format_duration(life).to_string());
        }
        if let Some(sink) = &options.sink {
            flag("--otlp", sink.clone());
        }
        command
    }
}

/// Waits until the sidecar of `pod` says that it is ready.
///
/// # Errors
/// Not in time: with what it said last.
pub fn wait_ready(pod: &PodPlan, log: &Path) -> Result<()> {
    let deadline = Instant::now() + READY;
    let mut last;
    loop {
        match probe::ask(probe::sidecar(pod.addresses.v4.into()), "/readyz") {
            Ok(answer) if answer.status == 200 => return Ok(()),
            Ok(answer) => last = format!("/readyz answers {}: {}", answer.status, answer.body.trim()),
            Err(error) => last = format!("/readyz: {error}"),
        }
        if Instant::now() > deadline {
            bail!(
                "the sidecar of {} is not ready after {} s: {last}; its log {} ends with:\n{}",
                pod.metadata.key(),
                READY.as_secs(),
                log.display(),
                tail(log)
            );
        }
        std::thread::sleep(POLL);
    }
}

/// Gives a process of a pod an environment of its own.
pub fn clean_environment(process: &mut Command, env: &[(String, String)]) {
    process.env_clear().env("PATH", programs::pod_path()).env("HOME", "/");
    process.envs(env.iter().map(|(name, value)| (name, value)));
}

// A handshake with the control plane and a first full set: tens of milliseconds, on a busy machine seconds.
const READY: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(25);
// Who was ready for a moment was killed and not broken: its pod has no traffic until it is back.
const BACKOFF: Backoff = Backoff {
    steady: Duration::from_secs(1),
    first: Duration::from_millis(100),
    most: Duration::from_millis(400),
};
