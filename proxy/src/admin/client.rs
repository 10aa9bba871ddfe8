//! The other end of `admin.sock`: `douane-proxy admin …`.

use std::{
    io::{self, Read as _, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use super::socket::path_in;

/// A sidecar that does not answer must not hold the operator.
const LIMIT: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// No sidecar there, or no permission.
    #[error("talk to the sidecar at {path} (its own user and root may)")]
    Socket {
        /// Which socket.
        path: String,
        /// As the kernel says.
        source: io::Error,
    },
    /// The sidecar refused.
    #[error("{0}")]
    Refused(String),
}

/// Sends one command to the sidecar of `run_dir` and returns the body of its answer.
///
/// # Errors
/// [`AdminError`].
pub fn ask(run_dir: &Path, command: &str) -> Result<String, AdminError> {
    let path = path_in(run_dir);
    let answer = exchange(&path, command)
        .map_err(|source| AdminError::Socket { path: path.display().to_string(), source })?;
    match answer.split_once('\n') {
        Some(("ok", body)) => Ok(body.to_owned()),
        _ => Err(AdminError::Refused(answer.trim().trim_start_matches("error: ").to_owned())),
    }
}

fn exchange(path: &Path, command: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.write_all(command.as_bytes())?;
    stream.write_all(b"\n")?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
