//! What sidecars wrote into their access logs: who asked whom for what, and how often.
//!
//! Only lines of the receiving side count, since it decides. Equal requests are counted, not repeated; headers, tokens and
//! client addresses are not in the log.

use std::{
    collections::BTreeMap,
    io::{self, BufRead},
    net::SocketAddr,
};

use douane_proto::id::WorkloadId;
use http::Version;
use serde::Deserialize;

use crate::policy::asked::{Asked, Head, Verdict};

/// A line has some hundred bytes; texts in it are cut at 2 KiB.
const MAX_LINE_BYTES: u64 = 64 * 1024;
/// Different requests; of what comes after so many, only repetitions are counted.
const MAX_DIFFERENT: usize = 200_000;

/// A request of a log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Observed {
    /// The namespace of the workload that was asked.
    pub namespace: String,
    /// Its pod.
    pub pod: String,
    /// What telemetry calls it: its Deployment, mostly.
    pub service: String,
    /// Who asked; `None`: plaintext.
    pub peer: Option<WorkloadId>,
    /// From which address.
    pub peer_addr: Option<std::net::IpAddr>,
    /// The workload's own address and port.
    pub destination: SocketAddr,
    /// What was asked; `None` for an opaque stream.
    pub request: Option<ObservedRequest>,
    /// What became of it.
    pub verdict: Option<Verdict>,
}

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObservedRequest {
    /// The method.
    pub method: String,
    /// The host.
    pub authority: Option<String>,
    /// The normalized path without query.
    pub path: String,
    /// Was it HTTP/2?
    pub is_http2: bool,
}

/// A log, read.
#[derive(Debug, Default)]
pub struct Log {
    /// Each different request with its first line and how often it came.
    pub requests: BTreeMap<Observed, Seen>,
    /// Lines that tell of no request that a sidecar received.
    pub passed_over: u64,
    /// Lines that are no JSON, or too long.
    pub unreadable: u64,
    /// Requests that were too many to be kept.
    pub beyond: u64,
}

/// Where and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The first line, counted from 1.
    pub line: u64,
    /// How often.
    pub count: u64,
}

// As `proxy` writes it; see its `telemetry/line`.
#[derive(Deserialize)]
struct Line {
    kind: Option<String>,
    direction: Option<String>,
    protocol: Option<String>,
    namespace: Option<String>,
    pod: Option<String>,
    service: Option<String>,
    method: Option<String>,
    authority: Option<String>,
    path: Option<String>,
    status: Option<u16>,
    peer_id: Option<String>,
    peer_addr: Option<SocketAddr>,
    destination: Option<SocketAddr>,
    decision: Option<String>,
    refusal: Option<String>,
}

/// Does an access log begin so? Lines of others may stand among it: a log that was cut, or that an application shares.
pub(crate) fn is_log(beginning: &[u8]) -> bool {
    let is_line = |line: &[u8]| serde_json::from_slice::<Line>(line).is_ok_and(|line| line.kind.is_some());
    beginning.trim_ascii_start().starts_with(b"{") || beginning.split(|byte| *byte == b'\n').any(is_line)
}

impl Log {
    /// Reads the lines of one more log.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&mut self, mut from: impl BufRead) -> io::Result<()> {
        let mut number = 0;
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let read = io::Read::take(&mut from, MAX_LINE_BYTES).read_until(b'\n', &mut bytes)?;
            if read == 0 {
                return Ok(());
            }
            number += 1;
            self.take(&bytes, number);
        }
    }

    fn take(&mut self, bytes: &[u8], number: u64) {
        let Ok(line) = serde_json::from_slice::<Line>(bytes) else {
            self.unreadable += u64::from(!bytes.trim_ascii().is_empty());
            return;
        };
        let Some(observed) = line.observed() else {
            self.passed_over += 1;
            return;
        };
        if let Some(seen) = self.requests.get_mut(&observed) {
            seen.count += 1;
        } else if self.requests.len() < MAX_DIFFERENT {
            self.requests.insert(observed, Seen { line: number, count: 1 });
        } else {
            self.beyond += 1;
        }
    }
}

impl Line {
    fn observed(self) -> Option<Observed> {
        if self.kind? != "access" || self.direction? != "inbound" {
            return None;
        }
        let verdict = match (self.decision.as_deref(), self.status) {
            (Some("allow"), _) => Some(Verdict::Allow),
            (_, Some(400)) => Some(Verdict::BadRequest),
            (_, Some(401)) => Some(Verdict::Unauthorized),
            (Some("deny"), _) => Some(Verdict::Deny),
            _ => self.refusal.map(|_| Verdict::Deny),
        };
        let is_http2 = self.protocol.as_deref().is_some_and(|protocol| !protocol.starts_with("http/1"));
        let request = match (self.method, self.path) {
            (Some(method), Some(path)) => {
                Some(ObservedRequest { method, authority: self.authority, path, is_http2 })
            }
            // A request that could not be understood has no path.
            (Some(_), None) => return None,
            (None, _) => None,
        };
        let peer = match self.peer_id {
            Some(text) => Some(text.parse().ok()?),
            None => None,
        };
        Some(Observed {
            namespace: self.namespace?,
            pod: self.pod?,
            service: self.service?,
            peer,
            peer_addr: self.peer_addr.map(|address| address.ip()),
            destination: self.destination?,
            request,
            verdict,
        })
    }
}

impl Observed {
    /// The same, to be asked again.
    #[must_use]
    pub fn asked(&self) -> Asked {
        let source = self.peer_addr.unwrap_or_else(|| self.destination.ip());
        let head = self.request.as_ref().map(|request| Head {
            version: if request.is_http2 { Version::HTTP_2 } else { Version::HTTP_11 },
            method: request.method.clone(),
            host: request.authority.clone().or_else(|| Some(self.destination.to_string())),
            target: request.path.clone(),
            headers: Vec::new(),
        });
        Asked {
            peer: self.peer.clone(),
            source,
            remote: source,
            destination: self.destination,
            sni: None,
            head,
            ext_authz: None,
        }
    }

    /// `principal -> GET /path`, for a human.
    #[must_use]
    pub fn title(&self) -> String {
        let who = self.peer.as_ref().map_or_else(|| "plaintext".to_owned(), WorkloadId::principal);
        let what = match &self.request {
            Some(request) => format!("{} {}", request.method, request.path.escape_debug()),
            None => format!("TCP {}", self.destination.port()),
        };
        format!("{who} -> {}/{} {what}", self.namespace, self.service)
    }
}
