//! A program that an attempt runs inside a pod: its output line by line while it runs, and its orderly end.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ExitStatus},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Context;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::demo::wait::until;

/// Time to end after it was asked to.
const END: Duration = Duration::from_secs(15);

/// A running program.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

/// What a program printed, and how it ended.
#[derive(Debug, Clone)]
pub struct Said {
    /// Its lines, of both outputs.
    pub lines: Vec<String>,
    /// How it ended.
    pub status: ExitStatus,
}

impl Running {
    /// Reads along with a program whose outputs are pipes.
    #[must_use]
    pub fn follow(mut child: Child) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let mut readers = Vec::new();
        readers.extend(child.stdout.take().map(|pipe| read(pipe, Arc::clone(&lines))));
        readers.extend(child.stderr.take().map(|pipe| read(pipe, Arc::clone(&lines))));
        Self { child, lines, readers }
    }

    /// All lines so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first JSON line that fits; waits for it.
    #[must_use]
    pub fn line(&self, limit: Duration, fits: impl Fn(&Value) -> bool) -> Option<Value> {
        until(limit, || json(&self.lines()).into_iter().find(&fits))
    }

    /// Asks it to end, and waits.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn stop(mut self) -> anyhow::Result<Said> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        // Not waited for yet, so the number is still its own.
        let _ = kill(pid, Signal::SIGTERM);
        self.end()
    }

    /// Waits for its own end; past the limit it is killed.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn finish(mut self, limit: Duration) -> anyhow::Result<Said> {
        until(limit, || self.child.try_wait().ok().flatten());
        self.end()
    }

    fn end(&mut self) -> anyhow::Result<Said> {
        if until(END, || self.child.try_wait().ok().flatten()).is_none() {
            self.child.kill().context("kill a program that does not end")?;
        }
        let status = self.child.wait()?;
        for reader in self.readers.drain(..) {
            // It ends with the pipe.
            let _ = reader.join();
        }
        Ok(Said { lines: self.lines(), status })
    }
}

/// One that is not wanted any more ends with its value.
impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Said {
    /// Its JSON lines.
    #[must_use]
    pub fn json(&self) -> Vec<Value> {
        json(&self.lines)
    }

    /// Its last JSON line.
    ///
    /// # Errors
    /// It printed none.
    pub fn last(&self) -> anyhow::Result<Value> {
        self.json().pop().with_context(|| format!("no answer: {}", self.lines.join("; ")))
    }
}

fn json(lines: &[String]) -> Vec<Value> {
    lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn read(pipe: impl Read + Send + 'static, lines: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn shell(script: &str) -> Running {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running::follow(shell.spawn().unwrap())
    }

    #[test]
    fn lines_are_there_while_the_program_still_runs() {
        let running = shell("echo '{\"event\":\"open\"}'; exec sleep 60");

        assert!(running.line(LIMIT, |line| line["event"] == "open").is_some());
        assert!(!running.stop().unwrap().status.success());
    }

    #[test]
    fn what_a_program_says_on_both_outputs_is_kept() {
        let said = shell("echo '{\"status\":200}'; echo oops >&2").finish(LIMIT).unwrap();

        assert_eq!(said.last().unwrap()["status"], 200);
        assert!(said.lines.contains(&String::from("oops")));
        assert!(said.status.success());
    }
}
