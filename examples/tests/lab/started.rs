//! A lab that runs as a process of its own, in a folder of its own.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// YAML, and the place where labs keep their files; gone with this value.
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(crate) fn with(files: &[(&str, impl AsRef<str>)]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("lab-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::SeqCst));
        let folder = Self { path: std::env::temp_dir().join(name) };
        fs::create_dir_all(folder.path.join("yaml")).unwrap();
        fs::create_dir_all(folder.path.join("run")).unwrap();
        for (name, text) in files {
            folder.write(name, text.as_ref());
        }
        folder
    }

    pub(crate) fn yaml(&self) -> &str {
        let path = Box::leak(self.path.join("yaml").into_boxed_path());
        path.to_str().unwrap()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let draft = self.path.join("draft");
        fs::write(&draft, text).unwrap();
        fs::rename(draft, self.path.join("yaml").join(name)).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.path.join("yaml").join(name)).unwrap();
    }

    /// The folder of all labs' files.
    pub(crate) fn labs(&self) -> String {
        let mut labs = fs::read_dir(self.path.join("run")).unwrap();
        labs.next().unwrap().unwrap().path().to_str().unwrap().to_owned()
    }

    /// Is no lab's folder there?
    pub(crate) fn no_lab_is_left(&self) -> bool {
        let labs = fs::read_dir(self.path.join("run"))
            .unwrap()
            .flat_map(|it| fs::read_dir(it.unwrap().path()).unwrap());
        labs.filter(|it| it.as_ref().unwrap().path().is_dir()).count() == 0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The program, with its files under `folder`.
pub(crate) fn lab(folder: &Folder) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.env("XDG_RUNTIME_DIR", folder.path.join("run")).stdin(Stdio::null());
    command
}

/// A running lab.
pub(crate) struct Started {
    folder: Folder,
    process: Child,
    said: Arc<Mutex<String>>,
}

impl Started {
    /// A lab that is ready; none where this kernel forbids it.
    pub(crate) fn with(files: &[(&str, impl AsRef<str>)]) -> Option<Self> {
        let folder = Folder::with(files);
        let mut command = lab(&folder);
        command.args(["up", folder.yaml()]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let (line, lines) = mpsc::channel();
        let errors: Box<dyn Read + Send> = Box::new(process.stderr.take().unwrap());
        for output in [errors, Box::new(process.stdout.take().unwrap())] {
            let (said, line) = (Arc::clone(&said), line.clone());
            thread::spawn(move || {
                for text in BufReader::new(output).lines().map_while(Result::ok) {
                    said.lock().unwrap().push_str(&format!("{text}\n"));
                    let _ = line.send(text);
                }
            });
        }
        drop(line);
        while let Ok(text) = lines.recv_timeout(READY) {
            if text.starts_with("ready in ") {
                return Some(Self { folder, process, said });
            }
        }
        let said = said.lock().unwrap().clone();
        let _ = process.kill();
        let _ = process.wait();
        let forbidden = said.contains("cannot make the lab's namespaces");
        assert!(
            forbidden && std::env::var_os("DOUANE_REQUIRE_NAMESPACES").is_none(),
            "the lab did not start: {said}"
        );
        eprintln!("SKIPPED: {said}");
        None
    }

    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Everything that it said so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// What `lab ARGUMENTS` prints.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let done = lab(&self.folder).args(arguments).output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr))
    }

    /// What a program in a pod prints.
    pub(crate) fn exec(&self, pod: &str, command: &[&str]) -> String {
        self.run(&[&["exec", pod, "--"], command].concat())
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(name, self.process.id());
    }

    /// Kills the processes of this lab whose command line begins so.
    pub(crate) fn kill(&self, command: &str) {
        let (mut found, all) = (0, self.processes());
        for process in all.into_iter().filter(|it| command_line(*it).starts_with(command)) {
            signal("KILL", process);
            found += 1;
        }
        assert!(found > 0, "no process is called {command:?}");
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the launcher ends", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// The launcher and all below it.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mut found = vec![self.process.id()];
        let mut next = 0;
        let all: Vec<u32> = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|it| it.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        while let Some(parent) = found.get(next).copied() {
            found.extend(all.iter().copied().filter(|it| parent_of(*it) == Some(parent)));
            next += 1;
        }
        found
    }

    /// Is no process of these and no folder of a lab there?
    pub(crate) fn nothing_is_left_of(&self, processes: &[u32]) -> bool {
        let gone = |process: &u32| {
            let line = command_line(*process);
            // The number may already be somebody else's.
            !line.contains("lab") && !line.contains("shop")
        };
        processes.iter().all(gone) && self.folder.no_lab_is_left()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits until something is so.
pub(crate) fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + READY;
    while !so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

const READY: Duration = Duration::from_secs(60);

/// Sends a signal to one process.
pub(crate) fn signal(name: &str, process: u32) {
    let sent = Command::new("kill").args([format!("-{name}"), process.to_string()]).status().unwrap();
    assert!(sent.success());
}

fn parent_of(process: u32) -> Option<u32> {
    let status = fs::read_to_string(Path::new("/proc").join(process.to_string()).join("status")).ok()?;
    status.lines().find_map(|it| it.strip_prefix("PPid:"))?.trim().parse().ok()
}

fn command_line(process: u32) -> String {
    fs::read(Path::new("/proc").join(process.to_string()).join("cmdline"))
        .map(|it| String::from_utf8_lossy(&it).into_owned())
        .unwrap_or_default()
}
