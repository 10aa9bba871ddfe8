//! `admin.sock`: one line of a command in, `ok` or `error: …` and a body out. Only root and our own uid are heard,
//! whatever the file's permissions say.

use std::{
    cell::RefCell,
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
};

use super::report;
use crate::{config::Config, discovery::Mesh, shutdown::Stop, telemetry::log::Log, tls::Mtls};

/// The socket's name in the run directory.
pub const SOCKET: &str = "admin.sock";
/// A command is a word or two.
const MAX_COMMAND_BYTES: u64 = 4096;
/// From connecting to the last byte of the answer.
const LIMIT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the socket can tell and do.
#[derive(Debug, Clone)]
pub struct Admin {
    /// The effective configuration.
    pub config: Rc<Config>,
    /// The log's level.
    pub log: Option<Log>,
    /// What drains us.
    pub stop: Stop,
    /// The live values, once there are any.
    pub live: Rc<RefCell<Live>>,
}

/// The live values, each once it is there.
#[derive(Debug, Default)]
pub struct Live {
    /// Who we are.
    pub mtls: Option<Mtls>,
    /// What the mesh is.
    pub mesh: Option<Mesh>,
}

/// Opens the socket in `run_dir`, in the place of one that an earlier process left.
///
/// # Errors
/// As the kernel says.
pub fn bind(run_dir: &Path) -> io::Result<UnixListener> {
    std::fs::create_dir_all(run_dir)?;
    let path = path_in(run_dir);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Where the socket of a run directory is.
#[must_use]
pub fn path_in(run_dir: &Path) -> PathBuf {
    run_dir.join(SOCKET)
}

impl Admin {
    /// Serves for ever; one command at a time is enough for an operator.
    pub async fn run(self, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => match tokio::time::timeout(LIMIT, self.serve(stream)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "a command on the admin socket"),
                    Err(_) => tracing::debug!("a command on the admin socket took too long"),
                },
                Err(error) => {
                    tracing::warn!(%error, "accept on the admin socket");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve(&self, mut stream: UnixStream) -> io::Result<()> {
        let uid = stream.peer_cred()?.uid();
        if uid != 0 && uid != rustix::process::geteuid().as_raw() {
            tracing::warn!(uid, "a stranger on the admin socket");
            return stream.write_all(b"error: only root and the sidecar's own uid are heard\n").await;
        }
        let mut command = String::new();
        let (read, mut write) = stream.split();
        BufReader::new(read.take(MAX_COMMAND_BYTES)).read_line(&mut command).await?;
        let answer = match self.obey(command.trim()) {
            Ok(body) => format!("ok\n{body}\n"),
            Err(why) => format!("error: {why}\n"),
        };
        write.write_all(answer.as_bytes()).await?;
        write.shutdown().await
    }

    fn obey(&self, command: &str) -> Result<String, String> {
        let (verb, argument) = command.split_once(' ').unwrap_or((command, ""));
        match verb {
            "config" => pretty(&serde_json::to_value(&*self.config).map_err(|error| error.to_string())?),
            "certificates" => {
                let live = self.live.borrow();
                let mtls = live.mtls.as_ref().ok_or("there is no certificate yet")?;
                pretty(&report::certificates(&mtls.identity()))
            }
            "snapshot" => {
                let live = self.live.borrow();
                let mesh = live.mesh.as_ref().ok_or("nothing came from the control plane yet")?;
                pretty(&report::snapshot(&mesh.snapshot()))
            }
            "drain" => {
                self.stop.asked.cancel();
                Ok("draining".to_owned())
            }
            "log-level" => self.log_level(argument.trim()),
            other => Err(format!(
                "unknown command {other:?}; known are config, certificates, snapshot, drain, log-level [FILTER]"
            )),
        }
    }

    fn log_level(&self, filter: &str) -> Result<String, String> {
        let log = self.log.as_ref().ok_or("this process's log is not ours to set")?;
        if !filter.is_empty() {
            log.set_level(filter).map_err(|error| error.to_string())?;
        }
        Ok(log.level())
    }
}

fn pretty(value: &serde_json::Value) -> Result<String, String> {
    serde_json::to_string_pretty(value).map_err(|error| error.to_string())
}
