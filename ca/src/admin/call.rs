//! The command line's side of the socket.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use super::{Answer, Command, MAX_ANSWER_BYTES};
use crate::state::StateFolder;

/// A step waits for the disk at most; the control plane's own limit is shorter.
const LIMIT: Duration = Duration::from_secs(40);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens.
    #[error(
        "no control plane runs on {dir}: start `douane ca --dir {dir}` first, or name the folder of one that runs",
        dir = .0.display()
    )]
    NotRunning(PathBuf),
    /// The socket is not ours to use.
    #[error("{path} may be used by the control plane's own user and by root only", path = .0.display())]
    Forbidden(PathBuf),
    /// The connection broke.
    #[error("speak to the control plane through {path}", path = path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Gives a command to the control plane that runs on `folder`.
///
/// # Errors
/// [`CallError`]: it was not heard, or the answer did not come.
pub fn call(folder: &StateFolder, command: &Command) -> Result<Answer, CallError> {
    let path = folder.admin_socket();
    let broken = |source| CallError::Broken { path: path.clone(), source };
    let mut stream = UnixStream::connect(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            CallError::NotRunning(folder.path().to_owned())
        }
        io::ErrorKind::PermissionDenied => CallError::Forbidden(path.clone()),
        _ => broken(source),
    })?;
    let mut exchange = || -> io::Result<Answer> {
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        let mut line = serde_json::to_vec(command)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        Read::by_ref(&mut stream).take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
        Ok(serde_json::from_slice(&answer)?)
    };
    exchange().map_err(broken)
}
