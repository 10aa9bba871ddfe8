//! The way out of the lab to a collector: a process in the host's network that joins a unix socket to a TCP address.

use std::{
    cell::Cell,
    ffi::OsString,
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    rc::Rc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    task::LocalSet,
};

use crate::lab::{processes::say, roles};

/// Starts the relay to the collector at `url`; returns its process and the socket to dial.
///
/// # Errors
/// The URL is not of the form `http://HOST[:PORT]`.
pub fn start(url: &str, state: &Path) -> Result<(Child, PathBuf)> {
    let collector = collector(url)?;
    let socket = state.join("collector.sock");
    let relay = Command::new("/proc/self/exe")
        .arg0("lab-relay")
        .args([roles::RELAY, &collector])
        .arg(&socket)
        // Ends with the launcher, which never writes.
        .stdin(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("start the relay to the collector")?;
    Ok((relay, socket))
}

/// Runs the relay: `COLLECTOR SOCKET`.
///
/// # Errors
/// The socket cannot be made.
pub fn main(arguments: &[OsString]) -> Result<ExitCode> {
    let [collector, socket] = arguments else { anyhow::bail!("usage: COLLECTOR SOCKET") };
    let collector = collector.to_str().context("the collector's address is text")?;
    std::thread::spawn(|| {
        use std::io::Read as _;
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, relay(collector, Path::new(socket)))?;
    Ok(ExitCode::SUCCESS)
}

/// Inside the lab: whoever connects to `listen` at the gateway is led out through `socket`.
///
/// # Errors
/// The address cannot be bound.
pub fn lead_out(listen: SocketAddr, socket: PathBuf) -> Result<()> {
    let listener = std::net::TcpListener::bind(listen).context("listen for spans")?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let Ok(listener) = TcpListener::from_std(listener) else { return };
            loop {
                let Ok((mut inside, _)) = listener.accept().await else {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                };
                let socket = socket.clone();
                tokio::spawn(async move {
                    if let Ok(mut outside) = UnixStream::connect(&socket).await {
                        let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
                    }
                });
            }
        });
    });
    Ok(())
}

// A collector that does not answer must not hold the lab's spans back for long.
const CONNECT: Duration = Duration::from_secs(5);
// After an accept failed for want of files; otherwise it would spin.
const PAUSE: Duration = Duration::from_millis(100);

async fn relay(collector: &str, socket: &Path) -> Result<()> {
    let listener = UnixListener::bind(socket).context("listen for the lab")?;
    let said = Rc::new(Cell::new(false));
    loop {
        let Ok((mut inside, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (collector, said) = (collector.to_owned(), Rc::clone(&said));
        tokio::task::spawn_local(async move {
            let wrong = match tokio::time::timeout(CONNECT, TcpStream::connect(&collector)).await {
                Ok(Ok(mut outside)) => {
                    said.set(false);
                    let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
                    return;
                }
                Ok(Err(error)) => format!("cannot be reached: {error}"),
                Err(_) => "does not answer".to_owned(),
            };
            // Every sidecar tries again and again: once is enough, until it was reached.
            if !said.replace(true) {
                say(&format!("the collector at {collector} {wrong}; its spans are lost meanwhile"));
            }
        });
    }
}

/// `host:port` of the collector.
fn collector(url: &str) -> Result<String> {
    let uri: http::Uri = url.parse().with_context(|| format!("--otlp {url}: not a URL"))?;
    ensure!(uri.scheme_str() == Some("http"), "--otlp {url}: give it as http://HOST:PORT");
    let host = uri.host().with_context(|| format!("--otlp {url}: has no host"))?;
    // 4317: OTLP over gRPC.
    Ok(format!("{host}:{}", uri.port_u16().unwrap_or(4317)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_without_a_port_is_asked_on_the_ports_of_otlp() {
        assert_eq!(collector("http://localhost").unwrap(), "localhost:4317");
        assert_eq!(collector("http://[::1]:9/").unwrap(), "[::1]:9");
        assert!(collector("https://localhost").is_err());
        assert!(collector("localhost:4317").is_err());
    }
}
