//! Tells peers that were called for a trace that it is kept. Only over lines that are open already: a peer without one was
//! called too long ago to hold anything.

use std::{collections::BTreeMap, time::Duration};

use h2::ext::Protocol;
use http::{Method, Request, Uri, Version};
use tracing::debug;

use crate::{
    exchange::retain::{MOST_TRACES, PROTOCOL, RETAIN, value},
    outbound::sender::Sender,
    telemetry::retention::Call,
};

/// Traces of one failure are named together.
const GATHER: Duration = Duration::from_millis(20);
/// For the peer's answer.
const ANSWER: Duration = Duration::from_secs(1);

impl Sender {
    /// Tells them as long as the sidecar runs.
    pub(super) async fn tell_peers(&self) {
        while !self.shutdown.draining.is_cancelled() {
            let first = tokio::select! {
                calls = self.ledger.calls() => calls,
                () = self.shutdown.draining.cancelled() => return,
            };
            self.tell(first);
            tokio::time::sleep(GATHER).await;
        }
    }

    fn tell(&self, calls: Vec<Call>) {
        let mut peers: BTreeMap<_, Vec<u128>> = BTreeMap::new();
        for Call { trace_id, address, peer } in calls {
            let named = peers.entry((address, peer)).or_default();
            if !named.contains(&trace_id) {
                named.push(trace_id);
            }
        }
        for ((address, peer), traces) in peers {
            for traces in traces.chunks(MOST_TRACES) {
                let Some(line) = self.pool.open_line(address, &peer) else { continue };
                let request = naming(address.to_string(), traces);
                self.shutdown.tasks.spawn_local(async move {
                    let told = async {
                        let (answer, _) = line.ready().await?.send_request(request, true)?;
                        answer.await
                    };
                    if let Ok(Err(error)) = tokio::time::timeout(ANSWER, told).await {
                        debug!(%address, %error, "a peer was not told of a trace that is kept");
                    }
                });
            }
        }
    }
}

fn naming(authority: String, traces: &[u128]) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.version_mut() = Version::HTTP_2;
    // As opaque streams name it.
    let uri = Uri::builder().scheme("https").authority(authority).path_and_query("/").build();
    *request.uri_mut() = uri.unwrap_or_default();
    request.extensions_mut().insert(Protocol::from_static(PROTOCOL));
    for trace_id in traces {
        request.headers_mut().append(RETAIN, value(*trace_id));
    }
    request
}
