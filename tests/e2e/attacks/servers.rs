//! Foreign HTTP/1 servers that say what they saw of each request: `saw METHOD TARGET LENGTH<`.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use douane_tests::{counterparts, loopback, wait::eventually};

use super::pair::Running;

const READY: Duration = Duration::from_secs(90);

/// A server that runs.
pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    _process: Running,
}

/// All that are there; their files lie in `room`.
pub(super) fn all(room: &Path) -> Vec<Server> {
    let python = |name, arguments: fn(SocketAddr) -> Vec<String>| {
        let program = counterparts::python()?;
        Some((
            name,
            Box::new(move |address| {
                let mut command = Command::new(&program);
                command
                    .args(arguments(address))
                    .current_dir(counterparts::script("saw.py").parent().unwrap());
                command
            }) as Box<dyn Fn(SocketAddr) -> Command>,
        ))
    };
    let program = |name: &'static str, start: fn(&mut Command, &Path, SocketAddr)| {
        let (found, room) = (counterparts::program(name)?, room.to_owned());
        Some((
            name,
            Box::new(move |address| {
                let mut command = Command::new(&found);
                start(&mut command, &room, address);
                command
            }) as Box<dyn Fn(SocketAddr) -> Command>,
        ))
    };
    let wanted = [
        python("aiohttp", |at| words(&format!("saw.py {} {}", at.ip(), at.port()))),
        python("uvicorn-httptools", |at| uvicorn("httptools", at)),
        python("uvicorn-h11", |at| uvicorn("h11", at)),
        python("hypercorn", |at| words(&format!("-m hypercorn saw:asgi --workers 0 --bind {at}"))),
        python("gunicorn", |at| {
            words(&format!("-m gunicorn saw:wsgi --threads 4 --keep-alive 5 --log-level error --bind {at}"))
        }),
        python("waitress", |at| words(&format!("-m waitress --listen={at} saw:wsgi"))),
        program("node", |command, _, at| {
            command.arg(counterparts::script("saw.js")).args([at.ip().to_string(), at.port().to_string()]);
        }),
        program("nginx", nginx),
        program("haproxy", haproxy),
    ];
    wanted.into_iter().flatten().map(|(name, command)| start(name, &*command)).collect()
}

fn start(name: &'static str, command: &dyn Fn(SocketAddr) -> Command) -> Server {
    let address = loopback::own_port();
    let child =
        command(address).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let process = Running::of(child);
    eventually(&format!("{name} listens"), READY, || {
        TcpStream::connect(address).map_err(|error| error.to_string())
    });
    Server { name, address, _process: process }
}

fn uvicorn(http: &str, at: SocketAddr) -> Vec<String> {
    let (host, port) = (at.ip(), at.port());
    words(&format!(
        "-m uvicorn saw:asgi --http {http} --no-access-log --log-level error --host {host} --port {port}"
    ))
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

fn nginx(command: &mut Command, room: &Path, at: SocketAddr) {
    let (folder, configuration) = (room.display(), room.join("nginx.conf"));
    let text = format!(
        "daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr crit;
        events {{ worker_connections 512; }}
        http {{
            access_log off;
            client_body_temp_path {folder}/nginx-body; proxy_temp_path {folder}/nginx-proxy;
            fastcgi_temp_path {folder}/nginx-fastcgi; uwsgi_temp_path {folder}/nginx-uwsgi; scgi_temp_path {folder}/nginx-scgi;
            underscores_in_headers on; ignore_invalid_headers off; merge_slashes off;
            server {{ listen {at}; location / {{ return 200 'saw $request_method $request_uri -<\\n'; }} }}
        }}"
    );
    fs::write(&configuration, text).unwrap();
    command.arg("-c").arg(configuration).args(["-p", &folder.to_string()]);
}

fn haproxy(command: &mut Command, room: &Path, at: SocketAddr) {
    let configuration = room.join("haproxy.cfg");
    let text = format!(
        "defaults\n mode http\n timeout client 10s\n timeout server 10s\n timeout connect 1s\n\
         frontend saw\n bind {at}\n \
         http-request return status 200 content-type text/plain lf-string \"saw %[method] %[pathq] -<\"\n"
    );
    fs::write(&configuration, text).unwrap();
    command.args(["-db", "-f"]).arg(configuration);
}
