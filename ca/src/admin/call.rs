//! The command line's side of the socket.

use std::{
    io::{self, BufRead as _, BufReader, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
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
    let mut stream = connect(folder, &path)?;
    let mut exchange = || -> io::Result<Answer> {
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        order(&mut stream, command)?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        Read::by_ref(&mut stream).take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
        Ok(serde_json::from_slice(&answer)?)
    };
    exchange().map_err(|source| CallError::Broken { path: path.clone(), source })
}

/// Live requests, one after another; the control plane stops to ask for them when this is dropped.
#[derive(Debug)]
pub struct Tapped {
    path: PathBuf,
    lines: BufReader<UnixStream>,
}

impl Tapped {
    /// Gives a command that is answered until we leave.
    ///
    /// # Errors
    /// [`CallError`]: it was not heard.
    pub fn open(folder: &StateFolder, command: &Command) -> Result<Self, CallError> {
        let path = folder.admin_socket();
        let mut stream = connect(folder, &path)?;
        let asked = stream.set_write_timeout(Some(LIMIT)).and_then(|()| order(&mut stream, command));
        match asked {
            Ok(()) => Ok(Self { path, lines: BufReader::new(stream) }),
            Err(source) => Err(CallError::Broken { path, source }),
        }
    }
}

impl Iterator for Tapped {
    type Item = Result<Answer, CallError>;

    // `None`: the control plane has ended it.
    fn next(&mut self) -> Option<Self::Item> {
        let mut line = Vec::new();
        let read = Read::by_ref(&mut self.lines).take(MAX_ANSWER_BYTES).read_until(b'\n', &mut line);
        let answer = match read {
            Ok(0) => return None,
            Ok(_) => serde_json::from_slice(&line).map_err(io::Error::from),
            Err(error) => Err(error),
        };
        Some(answer.map_err(|source| CallError::Broken { path: self.path.clone(), source }))
    }
}

fn connect(folder: &StateFolder, path: &Path) -> Result<UnixStream, CallError> {
    UnixStream::connect(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            CallError::NotRunning(folder.path().to_owned())
        }
        io::ErrorKind::PermissionDenied => CallError::Forbidden(path.to_owned()),
        _ => CallError::Broken { path: path.to_owned(), source },
    })
}

fn order(stream: &mut UnixStream, command: &Command) -> io::Result<()> {
    let mut line = serde_json::to_vec(command)?;
    line.push(b'\n');
    stream.write_all(&line)
}
