//! Real servers from Debian with their own clients, each behind two real sidecars: on a port that is declared opaque, and
//! on one that nobody declared.
//!
//! As root only: databases refuse to run as uid 0, which is all that the unprivileged lab has.

mod mariadb;
mod nats;
mod postgres;
mod redis;
mod smtp;
mod ssh;

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use douane_tests::{lab::Lab, namespaces, processes, wait::eventually};
use serde_json::Value;

const LAB: &str = env!("CARGO_BIN_EXE_lab-under-test");
/// A database makes its files first.
const STARTS: Duration = Duration::from_secs(90);
const SOON: Duration = Duration::from_secs(60);
/// How long a sidecar waits for a silent client at a port of which it knows nothing.
const SILENCE: f64 = 100.0;
/// What two sidecars may add to a greeting, in milliseconds, at the median of some.
const ADDED: f64 = 1.0;
/// Those of a build that is not optimized, which share their cores with other tests.
const SLOWER: f64 = if cfg!(debug_assertions) { 50.0 } else { 1.0 };
/// The first ones open a line and wake what sleeps.
const GREETINGS: u32 = 21;
/// Where Debian keeps servers.
const PLACES: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// A server, and how it is started.
struct Server {
    /// Programs that must be there.
    programs: &'static [&'static str],
    /// A script that becomes it. Its folder is `$1`; it may write there.
    script: &'static str,
    declared: u16,
    undeclared: u16,
}

/// A server behind its sidecar, `caller`, whom its law allows, and `stranger`, whom it does not.
struct Served {
    lab: Lab,
    folder: PathBuf,
    declared: u16,
    undeclared: u16,
}

impl Server {
    /// Starts it in a mesh; `None`, said aloud, where that cannot be.
    fn up(&self) -> Option<Served> {
        if !processes::is_root() {
            eprintln!("SKIPPED: real servers run as a user of their own, which only root can become");
            return None;
        }
        let places = places();
        let is_there = |name: &&&str| !env::split_paths(&places).any(|place| place.join(name).exists());
        if let Some(missing) = self.programs.iter().find(is_there) {
            eprintln!("SKIPPED: {missing} is missing; tests/counterparts.sh brings it");
            return None;
        }
        if !namespaces::are_available() {
            return None;
        }
        let folder = own_folder();
        let script = folder.join("start.sh");
        fs::write(&script, format!("set -e\nexport PATH={places}\ncd \"$1\"\n{}", self.script)).unwrap();
        let (declared, undeclared) = (self.declared, self.undeclared);
        let yaml = YAML
            .replace("SCRIPT", script.to_str().unwrap())
            .replace("FOLDER", folder.to_str().unwrap())
            .replace("UNDECLARED", &undeclared.to_string())
            .replace("DECLARED", &declared.to_string());
        let lab = Lab::up(LAB, &[("servers.yaml", &yaml)]);
        let served = Served { lab, folder, declared, undeclared };
        for port in [declared, undeclared] {
            eventually(&format!("the server listens on {port}"), STARTS, || {
                let open = format!("exec 3<>/dev/tcp/127.0.0.1/{port}");
                let ran = served.lab.exec("server", &["bash", "-c", &open]);
                if ran.code == 0 { Ok(()) } else { Err(format!("{ran:?}: {}", served.log())) }
            });
        }
        Some(served)
    }
}

impl Served {
    /// What a client prints that must succeed; `{port}` in its arguments is filled in.
    fn asked(&self, port: u16, command: &[&str]) -> String {
        let port = port.to_string();
        let command: Vec<String> = command.iter().map(|word| word.replace("{port}", &port)).collect();
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let ran = self.lab.exec("caller", &command);
        assert_eq!(ran.code, 0, "{command:?}: {ran:?}\nthe server said: {}", self.log());
        ran.out
    }

    /// Both sidecars say that what passed to this port was opaque, by mutual TLS, from the caller to the server.
    fn was_opaque_under_mutual_tls(&self, port: u16) {
        for (pod, direction) in [("caller", "outbound"), ("server", "inbound")] {
            eventually(&format!("{pod} records {port}"), SOON, || {
                let records = self.lab.records(pod);
                let own = records.iter().filter(|it| {
                    let destination = it["destination"].as_str().unwrap_or_default();
                    it["direction"] == direction && destination.ends_with(&format!(":{port}"))
                });
                let good = own.clone().find(|it| is_opaque(it) && it["bytes_out"].as_u64() > Some(0));
                let odd: Vec<_> = own.filter(|it| !is_opaque(it)).collect();
                assert!(odd.is_empty(), "{odd:#?}");
                good.map(drop).ok_or_else(|| format!("{records:#?}"))
            });
        }
    }

    /// Whom the law does not allow is closed without an answer of the server.
    fn is_closed_to_a_stranger(&self) {
        let say = "s=socket.create_connection((sys.argv[1],int(sys.argv[2])),30)\ns.settimeout(30)\n\
                   s.sendall(b'\\0\\0\\0\\x08\\x04\\xd2\\x16\\x2f')\n\
                   try: print(s.recv(100))\nexcept ConnectionError: print(b'')";
        let port = self.declared.to_string();
        let ran = self.lab.exec("stranger", &["python3", "-c", &python(say), "server", &port]);
        assert_eq!(ran.out.trim(), "b''", "{ran:?}");
        self.lab.refusal("server", "denied");
    }

    /// Milliseconds from the beginning of a connection to the server's first byte, `times` times.
    fn greetings(&self, pod: &str, host: &str, port: u16, times: u32) -> Vec<f64> {
        let measure = "for _ in range(int(sys.argv[3])):\n \
                       t=time.monotonic(); s=socket.create_connection((sys.argv[1],int(sys.argv[2])),30)\n \
                       assert s.recv(1); print((time.monotonic()-t)*1000); s.close()";
        let (port, times) = (port.to_string(), times.to_string());
        let ran = self.lab.exec(pod, &["python3", "-c", &python(measure), host, &port, &times]);
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.out.lines().map(|line| line.parse().unwrap()).collect()
    }

    /// The server is heard at once where that is declared; else after the silence, and at once when it was learned.
    fn greets_in_time(&self) {
        let direct = median(self.greetings("server", "127.0.0.1", self.declared, GREETINGS));
        let first = median(self.greetings("caller", "server", self.undeclared, 1));
        assert!(first >= SILENCE, "{first} ms: nobody could know yet");
        let bound = direct + ADDED * SLOWER;
        // The machine may be busy for a while.
        let within = |awaited: &str, port: u16| {
            eventually(awaited, SOON, || {
                let took = median(self.greetings("caller", "server", port, GREETINGS));
                if took < bound { Ok(took) } else { Err(format!("{took} ms, directly {direct} ms")) }
            })
        };
        let declared = within("it is heard at once", self.declared);
        println!(
            "greeting: direct {direct:.2} ms, declared {declared:.2} ms, undeclared first {first:.1} ms"
        );
        let learned = within("it is learned", self.undeclared);
        println!("greeting: undeclared, learned {learned:.2} ms");
    }

    /// What the server has said.
    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// A script of Python's standard library.
fn python(script: &str) -> String {
    format!("import socket,sys,time\n{script}")
}

fn is_opaque(record: &Value) -> bool {
    let is = |name: &str, account: &str| {
        record[name].as_str().is_some_and(|id| id.ends_with(&format!("/ns/town/sa/{account}")))
    };
    let (peer, local) = match record["direction"].as_str() {
        Some("outbound") => ("server", "caller"),
        _ => ("caller", "server"),
    };
    record["protocol"] == "tcp"
        && record["method"].is_null()
        && record["tls"]["version"] == "TLSv1.3"
        && is("peer_id", peer)
        && is("local_id", local)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn places() -> String {
    let postgres = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    postgres.fold(PLACES.to_owned(), |all, version| format!("{all}:{}/bin", version.path().display()))
}

// Where anybody may write: the server runs as somebody else.
fn own_folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = Path::new("/tmp").join(format!("douane-server-{}-{number}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    folder
}

const YAML: &str = "
apiVersion: v1
kind: Pod
metadata: {name: caller, namespace: town, labels: {app: caller, douane.io/inject: enabled}}
spec: {serviceAccountName: caller, containers: [{name: app, command: [shop, sleep]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: stranger, namespace: town, labels: {app: stranger, douane.io/inject: enabled}}
spec: {serviceAccountName: stranger, containers: [{name: app, command: [shop, sleep]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: town, labels: {app: server, douane.io/inject: enabled}}
spec:
  serviceAccountName: server
  containers: [{name: app, command: [bash, SCRIPT, FOLDER]}]
---
apiVersion: v1
kind: Service
metadata: {name: server, namespace: town}
spec:
  selector: {app: server}
  ports: [{name: tcp-server, port: DECLARED}, {name: alpha, port: UNDECLARED}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody, namespace: town}
spec: {}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: callers, namespace: town}
spec:
  selector: {matchLabels: {app: server}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/town/sa/caller]}}]
";
