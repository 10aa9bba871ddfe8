//! A pair of sidecars in a process of its own, with a foreign server behind it: where its doors are, what it logged, what
//! it sent to the server, how much memory it holds.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use douane_tests::{counterparts, processes, wait::eventually};
use serde_json::{Value, json};

const PAIR: &str = env!("CARGO_BIN_EXE_pair-under-test");
/// A record is written when a request ends, by a thread of its own.
const RECORDED: Duration = Duration::from_secs(60);
/// Longer than any time limit that a test sets, shorter than a test may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A process that ends with the test.
pub(super) struct Running(Child);

/// The pair and what stands behind it.
pub(super) struct Pair {
    room: PathBuf,
    process: Running,
    // Ends with the pair.
    _server: Option<Running>,
    /// Where the application's connections enter `web`'s sidecar.
    pub(super) app: SocketAddr,
    /// Where anybody's connections enter the sidecar of `orders`.
    pub(super) peer: SocketAddr,
    /// The address of `orders`.
    pub(super) pod: SocketAddr,
}

/// An answer in HTTP/1, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told(pub(super) String);

impl Running {
    /// Starts a program whose first line says that it is ready.
    pub(super) fn start(command: &mut Command) -> (Self, String) {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        said.read_line(&mut first).unwrap();
        assert!(!first.is_empty(), "{command:?} ended");
        // Whoever speaks on must not be stopped by a full pipe.
        thread::spawn(move || said.read_to_end(&mut Vec::new()));
        (Self(child), first)
    }
}

impl Running {
    /// A program that was started otherwise.
    pub(super) fn of(child: Child) -> Self {
        Self(child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Pair {
    /// With h11's server behind it; `None`, said aloud, where it is missing.
    pub(super) fn before_h11(wanted: Value) -> Option<Self> {
        Self::before_script(wanted, "server_h11.py")
    }

    /// With this server of `tests/foreign` behind it.
    pub(super) fn before_script(wanted: Value, server: &str) -> Option<Self> {
        let (server, port) =
            Running::start(Command::new(counterparts::python()?).arg(counterparts::script(server)));
        let port: u16 = port.trim().parse().unwrap();
        Some(Self::before(wanted, ([127, 0, 0, 1], port).into(), Some(server)))
    }

    /// With this server behind it.
    pub(super) fn before(mut wanted: Value, server: SocketAddr, running: Option<Running>) -> Self {
        let room = own_folder();
        fs::create_dir_all(&room).unwrap();
        wanted["room"] = json!(room);
        wanted["app"] = json!(server);
        let (process, doors) = Running::start(Command::new(PAIR).arg(wanted.to_string()));
        let doors: Value = serde_json::from_str(&doors).unwrap();
        let door = |name: &str| doors[name].as_str().unwrap().parse().unwrap();
        Self { app: door("app"), peer: door("peer"), pod: door("pod"), room, process, _server: running }
    }

    /// A file with the certificate and key of a workload called `stranger`.
    pub(super) fn svid(&self) -> PathBuf {
        self.room.join("svid.pem")
    }

    /// What a sidecar, `web` or `orders`, has recorded.
    pub(super) fn records(&self, side: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.room.join(format!("{side}.log"))).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits until a sidecar has recorded a refusal with this label.
    pub(super) fn refusal(&self, side: &str, label: &str) -> Value {
        self.recorded(side, |record| record["refusal"] == label)
    }

    /// Waits until a sidecar has such a record.
    pub(super) fn recorded(&self, side: &str, is_meant: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("{side} records it"), RECORDED, || {
            let records = self.records(side);
            let found = records.iter().find(|record| is_meant(record)).cloned();
            found.ok_or_else(|| format!("{:#?}", records.iter().rev().take(5).collect::<Vec<_>>()))
        })
    }

    /// All bytes that the server behind was sent so far.
    pub(super) fn forwarded_bytes(&self) -> Vec<u8> {
        fs::read(self.room.join("forwarded")).unwrap_or_default()
    }

    /// The same as text.
    pub(super) fn forwarded(&self) -> String {
        String::from_utf8_lossy(&self.forwarded_bytes()).into_owned()
    }

    /// Asks the sidecar that was named to end.
    pub(super) fn ask_to_end(&self) {
        processes::signal(self.process.0.id(), "TERM");
    }

    /// It has ended, and in order.
    pub(super) fn ends_in_order(&mut self) {
        let ended = eventually("the pair ends", PATIENCE, || {
            self.process.0.try_wait().unwrap().ok_or_else(|| "it runs".to_owned())
        });
        assert!(ended.success(), "{ended}");
    }

    /// A folder that ends with the pair.
    pub(super) fn room(&self) -> &Path {
        &self.room
    }

    /// Resident memory of the pair, in KiB.
    pub(super) fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// An honest request of the application, on a connection of its own.
    pub(super) fn get(&self, path: &str) -> Told {
        let request = format!("GET {path} HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n");
        say(self.app, request.as_bytes())
    }

    /// Nothing that anybody did has harmed it.
    pub(super) fn is_well(&mut self) {
        assert!(self.process.0.try_wait().unwrap().is_none(), "the sidecars run");
        let told = self.get("/well");
        assert!(told.0.starts_with("HTTP/1.1 200"), "{told:?}");
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the pair's logs are kept in {}", self.room.display());
        } else {
            let _ = fs::remove_dir_all(&self.room);
        }
    }
}

impl Told {
    /// The status codes of all answers in it.
    pub(super) fn statuses(&self) -> Vec<u16> {
        let codes = self.0.split("HTTP/1.").skip(1).filter_map(|answer| answer.get(2..5)?.parse().ok());
        codes.collect()
    }
}

/// Sends bytes and reads all that comes back until the other side closes, or says nothing more for long.
pub(super) fn say(to: SocketAddr, bytes: &[u8]) -> Told {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // Who is refused early may not be read to the end.
    let _ = stream.write_all(bytes);
    hear(&mut stream)
}

/// The same of a client that ends its side.
pub(super) fn say_all(to: SocketAddr, bytes: &[u8]) -> Told {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    hear(&mut stream)
}

/// Reads to the end.
pub(super) fn hear(stream: &mut TcpStream) -> Told {
    let mut told = Vec::new();
    let _ = stream.read_to_end(&mut told);
    Told(String::from_utf8_lossy(&told).into_owned())
}

/// Runs a script of `tests/foreign` and reads the JSON that it prints; `None`, said aloud, without Python.
pub(super) fn foreign(script: &str, arguments: &[&str]) -> Option<Value> {
    foreign_told(script, arguments, &Value::Null)
}

/// The same of a script that is told JSON on its standard input.
pub(super) fn foreign_told(script: &str, arguments: &[&str], told: &Value) -> Option<Value> {
    let mut command = Command::new(counterparts::python()?);
    command.arg(counterparts::script(script)).args(arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Who does not listen has ended.
    let _ = child.stdin.take().unwrap().write_all(told.to_string().as_bytes());
    let output = child.wait_with_output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    let said = out.lines().next_back().and_then(|line| serde_json::from_str(line).ok());
    Some(said.unwrap_or_else(|| panic!("{script} {arguments:?}: {out}\n{err}")))
}

fn own_folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    Path::new(&env::temp_dir()).join(format!("douane-pair-{}-{number}", std::process::id()))
}
