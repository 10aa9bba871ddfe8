//! A running lab: `lab up` on a folder that the test writes, taken down when the test ends.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::Value;

use crate::{processes, wait::eventually};

/// Debug builds on two busy cores: generous, since only a failure waits for it.
const READY: Duration = Duration::from_secs(90);

/// A record is written when a request ends, by a thread of its own.
const RECORDED: Duration = Duration::from_secs(60);

/// A lab that runs until it is dropped.
#[derive(Debug)]
pub struct Lab {
    program: PathBuf,
    launcher: Child,
    folder: PathBuf,
    runtime: PathBuf,
    said: Arc<Mutex<String>>,
    listening: Vec<JoinHandle<()>>,
}

/// What a program inside a pod did.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Lab {
    /// Starts `lab up` on these files and waits until all is ready.
    ///
    /// # Panics
    /// When it does not become ready; what it said is in the message.
    #[must_use]
    pub fn up(program: &str, files: &[(&str, &str)]) -> Self {
        Self::up_with(program, files, &[])
    }

    /// The same with more options of `lab up`.
    ///
    /// # Panics
    /// As [`up`](Self::up).
    #[must_use]
    pub fn up_with(program: &str, files: &[(&str, &str)], options: &[&str]) -> Self {
        let mut lab = Self::start_with(program, files, options);
        let ready = eventually("the lab is ready", READY, || {
            if lab.said().contains("ready in") {
                return Ok(true);
            }
            match lab.launcher.try_wait() {
                Ok(Some(_)) => Ok(false),
                _ => Err(lab.said()),
            }
        });
        assert!(ready, "the lab ended before it was ready:\n{}", lab.said());
        lab
    }

    /// Starts `lab up` on these files without waiting.
    ///
    /// # Panics
    /// When the folder cannot be written or the program not started.
    #[must_use]
    pub fn start(program: &str, files: &[(&str, &str)]) -> Self {
        Self::start_with(program, files, &[])
    }

    fn start_with(program: &str, files: &[(&str, &str)], options: &[&str]) -> Self {
        let program = env::var_os("DOUANE_LAB").map_or_else(|| program.into(), PathBuf::from);
        let room = own_folder();
        let (folder, runtime) = (room.join("mesh"), room.join("run"));
        for made in [&folder, &runtime] {
            fs::create_dir_all(made).expect("a folder for the test");
        }
        for (name, text) in files {
            fs::write(folder.join(name), text).expect("a file of the mesh is written");
        }
        let mut launcher = Command::new(&program)
            .arg("up")
            .arg(&folder)
            .args(options)
            .env("XDG_RUNTIME_DIR", &runtime)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the lab starts");
        let said = Arc::new(Mutex::new(String::new()));
        let listening = [listen(launcher.stdout.take(), &said), listen(launcher.stderr.take(), &said)];
        let listening = listening.into_iter().flatten().collect();
        Self { program, launcher, folder, runtime, said, listening }
    }

    /// Runs a program of the host inside a pod, as its application would.
    ///
    /// # Panics
    /// When the lab's program cannot be started.
    pub fn exec(&self, pod: &str, command: &[&str]) -> Ran {
        Ran::from(self.ask("exec").arg(pod).arg("--").args(command).output().expect("lab exec starts"))
    }

    /// Starts a program inside a pod and leaves it running; it ends with the lab. Its output is a pipe.
    ///
    /// # Panics
    /// When the lab's program cannot be started.
    pub fn spawn(&self, pod: &str, command: &[&str], input: Stdio) -> Child {
        let mut exec = self.ask("exec");
        exec.arg(pod).arg("--").args(command).stdin(input).stdout(Stdio::piped());
        exec.spawn().expect("lab exec starts")
    }

    /// `lab douane`: an operator's command to the lab's control plane.
    ///
    /// # Panics
    /// When the lab's program is not there.
    #[must_use]
    pub fn douane(&self, arguments: &[&str]) -> Command {
        let mut command = self.ask("douane");
        command.args(arguments);
        command
    }

    /// `lab status -o json`.
    ///
    /// # Panics
    /// When it prints no JSON.
    #[must_use]
    pub fn status(&self) -> Value {
        let ran = Ran::from(self.ask("status").args(["-o", "json"]).output().expect("lab status starts"));
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("lab status: {error}: {ran:?}"))
    }

    /// The pod's row of `lab status`, the first whose name begins so.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn pod(&self, name: &str) -> Value {
        let status = self.status();
        let pods = status.as_array().expect("an array of pods");
        let found = pods.iter().find(|pod| pod["pod"].as_str().is_some_and(|pod| pod.starts_with(name)));
        found.unwrap_or_else(|| panic!("no pod {name} in {status}")).clone()
    }

    /// Replaces a file of the mesh, at once and whole.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) {
        let (whole, part) = (self.folder.join(name), self.runtime.join("part"));
        fs::write(&part, text)
            .and_then(|()| fs::rename(&part, &whole))
            .expect("a file of the mesh is replaced");
    }

    /// The records that a pod's sidecar has written of requests and streams.
    #[must_use]
    pub fn records(&self, pod: &str) -> Vec<Value> {
        let text = self.log(pod);
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["kind"] == "access").collect()
    }

    /// All that a pod's sidecar has written.
    #[must_use]
    pub fn log(&self, pod: &str) -> String {
        let pod = self.pod(pod);
        let log = pod.get("log").and_then(Value::as_str).map(PathBuf::from).unwrap_or_default();
        fs::read_to_string(log).unwrap_or_default()
    }

    /// The lines of a pod's audit log.
    ///
    /// # Panics
    /// When one is no JSON.
    #[must_use]
    pub fn audit(&self, pod: &str) -> Vec<Value> {
        let mut show = self.ask("exec");
        show.args(["-c", "douane-proxy", pod, "--", "cat", "/run/douane/audit.log"]);
        let ran = Ran::from(show.output().expect("lab exec starts"));
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.out.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
    }

    /// Waits until a pod's sidecar has recorded a refusal with this label, and returns the record.
    ///
    /// # Panics
    /// When it does not.
    pub fn refusal(&self, pod: &str, label: &str) -> Value {
        eventually(&format!("{pod} records a refusal {label}"), RECORDED, || {
            let records = self.records(pod);
            let found = records.iter().find(|record| record["refusal"] == label).cloned();
            found.ok_or_else(|| format!("{:#?}", records.last()))
        })
    }

    /// Waits until what a pod's sidecar has recorded is enough, and returns it. A record is written a moment after the
    /// answer that it tells of.
    ///
    /// # Panics
    /// When it never is.
    pub fn recorded(&self, pod: &str, is_enough: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        eventually(&format!("{pod} records what happened"), RECORDED, || {
            let records = self.records(pod);
            if is_enough(&records) { Ok(records) } else { Err(format!("{records:#?}")) }
        })
    }

    /// What the launcher has printed so far.
    ///
    /// # Panics
    /// Never: only this type holds the lock, and it does not panic with it.
    #[must_use]
    pub fn said(&self) -> String {
        self.said.lock().expect("nobody panics while holding it").clone()
    }

    /// The lab's own process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.launcher.id()
    }

    /// Where it keeps its state.
    #[must_use]
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// Waits for its end and returns the exit code; -1 after a signal. What it [`said`](Self::said) is whole then.
    ///
    /// # Panics
    /// When it does not end.
    pub fn ended(&mut self) -> i32 {
        let code = eventually("the lab ends", READY, || match self.launcher.try_wait() {
            Ok(Some(status)) => Ok(status.code().unwrap_or(-1)),
            other => Err(format!("{other:?}")),
        });
        // The pipes end with the last process of the lab, which may be a moment later.
        eventually("all that the lab said is read", READY, || {
            if self.listening.iter().all(JoinHandle::is_finished) { Ok(()) } else { Err(self.said()) }
        });
        code
    }

    /// Waits until the lab has said this.
    ///
    /// # Panics
    /// When it does not.
    pub fn hears(&self, awaited: &str) {
        eventually(&format!("the lab says {awaited:?}"), READY, || {
            let said = self.said();
            if said.contains(awaited) { Ok(()) } else { Err(said) }
        });
    }

    /// The process of a pod's sidecar.
    ///
    /// # Panics
    /// When none runs.
    #[must_use]
    pub fn sidecar(&self, pod: &str) -> u32 {
        self.process(&["douane-proxy", "run", "--pod", pod])
    }

    /// The process of the control plane.
    ///
    /// # Panics
    /// When none runs.
    #[must_use]
    pub fn control_plane(&self) -> u32 {
        self.process(&["douane", "ca", "--dir"])
    }

    /// The rules in a pod's network, with their counters, as `douane-proxy redirect show` prints them.
    ///
    /// # Panics
    /// When they cannot be read.
    #[must_use]
    pub fn rules(&self, pod: &str) -> String {
        // Somebody who is in there for a moment: the namespaces are found by a process in them.
        let mut inside = self.spawn(pod, &["sh", "-c", "echo; read end"], Stdio::piped());
        let mut first = [0];
        inside.stdout.take().expect("a pipe").read_exact(&mut first).expect("a program runs in the pod");
        let shell = processes::below(inside.id()).pop().expect("it has a process");
        let mut enter = enter_network_of(shell);
        enter.arg(&self.program).args(["role-play", "douane-proxy", "redirect", "show"]);
        let ran = Ran::from(enter.output().expect("nsenter(1)"));
        drop(inside.stdin.take());
        let _ = inside.wait();
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.out
    }

    /// A program that shall run in the network between the pods, with the right to see each frame.
    ///
    /// # Panics
    /// When the lab has ended.
    pub fn between_pods(&self, program: impl AsRef<OsStr>) -> Command {
        let mut enter = enter_network_of(self.process(&["role-daemon"]));
        enter.arg(program);
        enter
    }

    fn process(&self, words: &[&str]) -> u32 {
        let found = processes::below(self.pid()).into_iter().find(|pid| {
            let line = processes::command_line(*pid);
            words.iter().all(|word| line.iter().any(|it| it == word))
        });
        found.unwrap_or_else(|| panic!("no process {words:?}"))
    }

    /// Sends a signal to the lab's own process.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, name: &str) {
        processes::signal(self.pid(), name);
    }

    fn ask(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(verb).env("XDG_RUNTIME_DIR", &self.runtime);
        command
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // SIGKILL: the lab promises to leave nothing behind, and tests hold it to that.
        let _ = self.launcher.kill();
        let _ = self.launcher.wait();
        if thread::panicking() {
            eprintln!("the lab said:\n{}", self.said());
            eprintln!("its logs are kept in {}", self.runtime.display());
        } else if let Some(room) = self.folder.parent() {
            let _ = fs::remove_dir_all(room);
        }
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }
}

fn enter_network_of(pid: u32) -> Command {
    let mut enter = Command::new("nsenter");
    enter.arg("--target").arg(pid.to_string()).arg("--net");
    if !processes::is_root() {
        enter.args(["--user", "--preserve-credentials"]);
    }
    enter
}

fn listen(pipe: Option<impl Read + Send + 'static>, said: &Arc<Mutex<String>>) -> Option<JoinHandle<()>> {
    let (pipe, said) = (pipe?, Arc::clone(said));
    Some(thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let Ok(mut said) = said.lock() else { return };
            said.push_str(&line);
            said.push('\n');
        }
    }))
}

fn own_folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    env::temp_dir().join(format!("douane-test-{}-{number}", std::process::id()))
}
