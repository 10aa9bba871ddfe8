//! What operators ask of single requests: names become identities, answers get names and the places of policies.
//!
//! Knows not how sidecars are asked (`traffic`).

use std::{cmp::Reverse, collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::watch,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{Answer, serve::Desk};
use crate::{
    discovery::Index,
    hex,
    traffic::{
        inquiries::{Inquiry, Sought, Told, Wanted},
        seen::Seen,
        view::Names,
    },
};

/// Sidecars answer within milliseconds; one that does not is of an older version, or dying.
const ANSWERED: Duration = Duration::from_secs(2);
/// A line, by whoever taps.
const READ: Duration = Duration::from_secs(30);
/// Known names that an error lists.
const MOST_NAMES: usize = 12;
/// Traces, and connections without one, that one search may find.
const MOST_TRACES: usize = 8;
/// Records of one search.
const MOST_RECORDS: usize = 2000;

/// Which live requests are to be told.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TapFilter {
    /// A workload, `namespace/name`, or a SPIFFE ID.
    pub from: Option<String>,
    /// The same, or a service.
    pub to: Option<String>,
    /// Methods; none: any.
    pub methods: Vec<String>,
    /// What the path begins with.
    pub path: Option<String>,
    /// From this status to that.
    pub status: Option<(u16, u16)>,
    /// Only what the law denied.
    pub denied: bool,
    /// Only what failed or was denied.
    pub failed: bool,
    /// From both ends.
    pub both_ends: bool,
}

/// What sidecars remember of a request.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Remembered {
    /// The records.
    pub records: Vec<Seen>,
    /// How many sidecars were asked, and how many answered in time.
    pub asked: usize,
    /// See `asked`.
    pub answered: usize,
    /// The folders of resources that the control plane serves.
    pub resources: Vec<PathBuf>,
}

impl TapFilter {
    /// With identities for names.
    ///
    /// # Errors
    /// A name that nobody has; those that are known are listed.
    pub(super) fn wanted(&self, index: &Index) -> Result<Wanted, String> {
        let mut wanted = Wanted {
            methods: self.methods.clone(),
            path: self.path.clone().unwrap_or_default(),
            status: self.status,
            denied: self.denied,
            failed: self.failed,
            both_ends: self.both_ends,
            ..Wanted::default()
        };
        if let Some(from) = &self.from {
            wanted.from = index.identities(from);
            if wanted.from.is_empty() {
                return Err(nobody(from, "workload", index));
            }
        }
        if let Some(to) = &self.to {
            wanted.to = index.identities(to);
            let behind = index.behind(to);
            wanted.services.extend(behind.is_some().then(|| to.clone()));
            wanted.to.extend(behind.into_iter().flatten());
            if wanted.to.is_empty() && wanted.services.is_empty() {
                return Err(nobody(to, "workload or service", index));
            }
        }
        Ok(wanted)
    }
}

fn nobody(name: &str, what: &str, index: &Index) -> String {
    let names: BTreeSet<String> = index.names().into_values().collect();
    let more = if names.len() > MOST_NAMES { ", …" } else { "" };
    let known: Vec<_> = names.into_iter().take(MOST_NAMES).collect();
    format!("no {what} is called {name:?}; write NAMESPACE/NAME, such as {}{more}", known.join(", "))
}

impl Desk {
    /// Tells what is seen, a line each, until whoever asked leaves.
    pub(super) async fn tap(&self, filter: &TapFilter, stream: &mut UnixStream, stop: &CancellationToken) {
        let (mut read, mut write) = stream.split();
        // The borrowed value is a lock.
        let index = Arc::clone(&self.index.borrow());
        let wanted = match filter.wanted(&index) {
            Ok(wanted) => wanted,
            Err(reason) => {
                let _ = send(&mut write, &Answer::Refused(reason)).await;
                return;
            }
        };
        let mut tap = self.traffic.tap(wanted);
        let mut names = Named::new(self.index.clone());
        let mut nothing = [0];
        loop {
            let told = tokio::select! {
                () = stop.cancelled() => return,
                // They say nothing more: that is how they leave.
                _ = read.read(&mut nothing) => return,
                told = tap.next() => told,
            };
            let answer = match told {
                Some(Told::Seen(seen)) => Answer::Seen(Box::new(names.name(*seen))),
                Some(Told::LeftOut(many)) => Answer::LeftOut(many),
                Some(Told::All) => continue,
                None => return,
            };
            // Whoever stands still and reads nothing more takes no place either.
            let sent = tokio::select! {
                () = stop.cancelled() => return,
                sent = time::timeout(READ, send(&mut write, &answer)) => sent,
            };
            if !matches!(sent, Ok(Ok(()))) {
                return;
            }
        }
    }

    /// Asks all sidecars what they remember of a request or stream.
    pub(super) async fn search(&self, text: &str) -> Answer {
        let Some(sought) = Sought::of(text) else {
            return Answer::Refused(format!(
                "{text:?} is neither a trace id (32 hexadecimal digits), nor a span id (16), nor a request id, nor an address"
            ));
        };
        let mut remembered = self.remembered(sought.clone()).await;
        // Whatever was found leads to its trace, the newest first: the same client may use an id, or an address, often.
        remembered.records.sort_by_key(|seen| Reverse(seen.time_us));
        let mut traces: Vec<Vec<u8>> = Vec::new();
        for trace in remembered.records.iter().filter_map(|seen| hex::decode(&seen.trace_id)) {
            if !traces.contains(&trace) && traces.len() < MOST_TRACES {
                traces.push(trace);
            }
        }
        remembered.records.retain(|seen| seen.trace_id.is_empty());
        remembered.records.truncate(MOST_TRACES);
        for trace in traces {
            let Remembered { records, asked, answered, .. } = self.remembered(Sought::trace(trace)).await;
            (remembered.asked, remembered.answered) = (asked, answered.min(remembered.answered));
            remembered.records.extend(records);
        }
        let mut names = Named::new(self.index.clone());
        remembered.records = remembered.records.into_iter().map(|seen| names.name(seen)).collect();
        remembered.resources.clone_from(&self.resources);
        Answer::Remembered(Box::new(remembered))
    }

    async fn remembered(&self, sought: Sought) -> Remembered {
        let asked = self.traffic.connected();
        let mut search: Inquiry = self.traffic.search(sought);
        let mut found = Remembered { asked, ..Remembered::default() };
        let limit = Instant::now() + ANSWERED;
        while found.answered < asked && found.records.len() < MOST_RECORDS {
            match time::timeout_at(limit, search.next()).await {
                Ok(Some(Told::Seen(seen))) => found.records.push(*seen),
                Ok(Some(Told::All)) => found.answered += 1,
                Ok(Some(Told::LeftOut(_))) => {}
                Ok(None) | Err(_) => break,
            }
        }
        found
    }
}

// The names of the mesh as it is now.
struct Named {
    index: watch::Receiver<Arc<Index>>,
    names: Names,
}

impl Named {
    fn new(mut index: watch::Receiver<Arc<Index>>) -> Self {
        let names = index.borrow_and_update().names();
        Self { index, names }
    }

    fn name(&mut self, mut seen: Seen) -> Seen {
        if self.index.has_changed().unwrap_or_default() {
            self.names = self.index.borrow_and_update().names();
        }
        seen.name(&self.names);
        seen.place = self.index.borrow().place(&seen.policy).unwrap_or_default();
        seen
    }
}

async fn send(write: &mut (impl AsyncWriteExt + Unpin), answer: &Answer) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    write.write_all(&line).await
}
