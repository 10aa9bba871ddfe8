//! The lab's control plane: one `douane ca` process in the bridge's network, and the wait until it serves.

use std::{
    fs::File,
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::lab::{
    addresses::GATEWAY_V4,
    issuer::{AUDIENCE, ISSUER},
    probe,
    processes::{Backoff, Kept, Restart},
    spec::Options,
};

/// Where it serves.
pub const PORT: u16 = 15012;
/// Where it says how it is.
pub const STATUS_PORT: u16 = 15014;

/// Its state folder, in the lab's.
pub const STATE: &str = "ca";

/// What a control plane needs to start.
#[derive(Debug, Clone)]
pub struct Office {
    /// Its own state.
    pub state: PathBuf,
    /// The operator's folder.
    pub resources: PathBuf,
    /// The folder of generated objects, which wins.
    pub generated: PathBuf,
    /// The public keys of the token issuer.
    pub jwks: PathBuf,
    /// Its log.
    pub log: PathBuf,
}

impl Office {
    /// The bundle that sidecars trust on first contact.
    #[must_use]
    pub fn bundle(&self) -> PathBuf {
        self.state.join("bundle.pem")
    }

    /// Starts it, and waits until it serves.
    ///
    /// # Errors
    /// It does not serve in time.
    pub fn open(&self, options: &Options) -> Result<Kept> {
        let (office, leaf_ttl) = (self.clone(), options.leaf_ttl);
        let kept = Kept::start("control plane".to_owned(), Restart::Always, BACKOFF, move || {
            office.spawn(leaf_ttl)
        })?;
        let deadline = Instant::now() + SERVES;
        let address = SocketAddr::from((GATEWAY_V4, PORT));
        while !self.bundle().exists() || TcpStream::connect_timeout(&address, POLL).is_err() {
            // It never starts twice on its own for a good reason; say why instead of waiting.
            if Instant::now() > deadline || kept.starts() > 1 {
                kept.kill();
                bail!("the control plane does not serve; its log ends with:\n{}", tail(&self.log));
            }
            std::thread::sleep(POLL);
        }
        Ok(kept)
    }

    /// Waits until it knows that so many pods are ready; a lab that says "ready" before would refuse first requests.
    ///
    /// # Errors
    /// It does not within a time that is more than enough.
    pub fn wait_known(&self, pods: usize) -> Result<()> {
        let deadline = Instant::now() + KNOWS;
        let address = SocketAddr::from((GATEWAY_V4, STATUS_PORT));
        while ready_workloads(address).is_none_or(|it| it < pods) {
            if Instant::now() > deadline {
                bail!(
                    "the control plane does not take the pods as ready; its log ends with:\n{}",
                    tail(&self.log)
                );
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn spawn(&self, leaf_ttl: Option<Duration>) -> Result<Child> {
        // Not in a pod: this binary by its own path, and its role by the name it is called.
        let program = std::env::current_exe().context("find this program")?;
        let log = append_to(&self.log)?;
        let mut process = Command::new(program);
        process.arg0("douane").arg("ca").arg("--dir").arg(&self.state);
        for folder in [&self.resources, &self.generated] {
            process.arg("--resources").arg(folder);
        }
        process.args(["--listen", &format!("{GATEWAY_V4}:{PORT}")]).arg("--jwks").arg(&self.jwks);
        process.args(["--metrics", &format!("{GATEWAY_V4}:{STATUS_PORT}")]);
        process.args(["--token-issuer", ISSUER, "--token-audience", AUDIENCE]);
        if let Some(life) = leaf_ttl {
            process.args(["--leaf-ttl", &humantime::format_duration(life).to_string()]);
        }
        process.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        process.spawn().context("start the control plane")
    }
}

fn ready_workloads(control_plane: SocketAddr) -> Option<usize> {
    let answer = probe::ask(control_plane, "/status").ok()?;
    let status: serde_json::Value = serde_json::from_str(&answer.body).ok()?;
    usize::try_from(status.get("readyWorkloads")?.as_u64()?).ok()
}

/// Opens a log for a process to append to.
///
/// # Errors
/// As the file system says.
pub fn append_to(log: &Path) -> Result<File> {
    File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("open the log {}", log.display()))
}

/// The last lines of a log.
#[must_use]
pub fn tail(log: &Path) -> String {
    let text = std::fs::read(log).map(|it| String::from_utf8_lossy(&it).into_owned()).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let last = lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default();
    if last.is_empty() { "  (nothing)".to_owned() } else { format!("  {}", last.join("\n  ")) }
}

// A root is made at the first start: far below this.
const SERVES: Duration = Duration::from_secs(20);
// It watches the folder; under load it may look at it late.
const KNOWS: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);
const TAIL: usize = 12;
const BACKOFF: Backoff = Backoff {
    steady: Duration::from_secs(10),
    first: Duration::from_millis(500),
    most: Duration::from_secs(10),
};
