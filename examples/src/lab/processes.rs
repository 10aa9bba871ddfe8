//! Processes that shall run: each is started again when it ends, until somebody ends it on purpose.

use std::{
    fmt,
    io::Write as _,
    process::{Child, ExitStatus},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    sys::{
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};

/// How long to wait before a process that ended is started again.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// Who has lived as long as this starts again at once, as under a kubelet.
    pub steady: Duration,
    /// Else it waits so long at first.
    pub first: Duration,
    /// And twice as long after each further end, but no longer than this.
    pub most: Duration,
}

/// When a process that ended is not started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Always started again.
    Always,
    /// Only after a failure.
    OnFailure,
    /// Never.
    Never,
}

/// A process that is kept running.
#[derive(Debug)]
pub struct Kept {
    name: String,
    shared: Arc<Shared>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    life: Mutex<Life>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Life {
    running: Option<Pid>,
    ending: bool,
    starts: u32,
}

impl Kept {
    /// Starts the process with `start`, and again with `start` whenever it ends. Each process must lead a group of its
    /// own: the whole group is ended with it.
    ///
    /// # Errors
    /// The first start fails.
    pub fn start(
        name: String,
        restart: Restart,
        backoff: Backoff,
        start: impl Fn() -> Result<Child> + Send + 'static,
    ) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let first = start().with_context(|| format!("start {name}"))?;
        shared.entered(&first)?;
        let keeper = thread::Builder::new().name("keeper".to_owned()).spawn({
            let (shared, name) = (Arc::clone(&shared), name.clone());
            move || shared.keep(&name, first, restart, backoff, start)
        })?;
        Ok(Self { name, shared, keeper: Mutex::new(Some(keeper)) })
    }

    /// Is a process running right now?
    #[must_use]
    pub fn runs(&self) -> bool {
        self.shared.life().running.is_some()
    }

    /// How often it was started.
    #[must_use]
    pub fn starts(&self) -> u32 {
        self.shared.life().starts
    }

    /// Sends a signal to the process and its children, if it runs.
    pub fn signal(&self, signal: Signal) {
        // Under the lock, so that the number is still this process's.
        if let Some(pid) = self.shared.life().running {
            let _ = killpg(pid, signal);
        }
    }

    /// Asks it to end, and does not start it again. Returns at once.
    pub fn ask_to_end(&self) {
        self.shared.life().ending = true;
        self.shared.changed.notify_all();
        self.signal(Signal::SIGTERM);
    }

    /// Waits for its end after [`ask_to_end`](Self::ask_to_end); past the deadline it is killed.
    pub fn end_by(&self, deadline: Instant) {
        self.shared.life().ending = true;
        self.shared.changed.notify_all();
        let mut life = self.shared.life();
        while life.running.is_some() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            (life, _) = self.shared.changed.wait_timeout(life, left).unwrap_or_else(PoisonError::into_inner);
        }
        drop(life);
        self.signal(Signal::SIGKILL);
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper {
            let _ = keeper.join();
        }
    }

    /// Kills it at once, and does not start it again.
    pub fn kill(&self) {
        self.end_by(Instant::now());
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Shared {
    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entered(&self, child: &Child) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(child.id()).context("a pid fits")?);
        let mut life = self.life();
        life.running = Some(pid);
        life.starts += 1;
        // Asked to end between the start and now.
        if life.ending {
            let _ = killpg(pid, Signal::SIGTERM);
        }
        Ok(())
    }

    /// Waits for the end without reaping first, so that the number stays this process's while others may signal it.
    fn left(&self, mut child: Child) -> Option<ExitStatus> {
        let pid = Pid::from_raw(i32::try_from(child.id()).ok()?);
        while let Err(nix::errno::Errno::EINTR) =
            waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
        {}
        let mut life = self.life();
        life.running = None;
        // What it left behind in its group ends with it.
        let _ = killpg(pid, Signal::SIGKILL);
        let status = child.wait().ok();
        drop(life);
        self.changed.notify_all();
        status
    }

    fn keep(
        &self,
        name: &str,
        first: Child,
        restart: Restart,
        backoff: Backoff,
        start: impl Fn() -> Result<Child>,
    ) {
        let mut child = Some(first);
        let mut pause = backoff.first;
        loop {
            let began = Instant::now();
            let ended = match child.take() {
                Some(child) => self.left(child).map_or_else(|| "ended".to_owned(), |it| it.to_string()),
                None => "cannot be started".to_owned(),
            };
            let well = ended == ExitStatus::default().to_string();
            if self.life().ending || restart == Restart::Never || (restart == Restart::OnFailure && well) {
                return;
            }
            if began.elapsed() > backoff.steady {
                pause = backoff.first;
                say(&format!("{name}: {ended}; starts again"));
            } else {
                say(&format!("{name}: {ended}; starts again in {}", humantime::format_duration(pause)));
                if !self.rested(pause) {
                    return;
                }
                pause = (pause * 2).min(backoff.most);
            }
            match start() {
                Ok(started) => {
                    if self.entered(&started).is_ok() {
                        child = Some(started);
                    }
                }
                Err(error) => say(&format!("{name}: {error:#}")),
            }
        }
    }

    /// Waits; false when it shall not start again.
    fn rested(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let mut life = self.life();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if life.ending {
                return false;
            }
            if left.is_zero() {
                return true;
            }
            (life, _) = self.changed.wait_timeout(life, left).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// One line about the lab itself, on standard error: standard output is for what was asked for.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "lab: {line}");
}
