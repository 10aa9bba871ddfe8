//! The discovery service on the wire: checks who asks, and hands each stream to a task of its own.
//!
//! Knows not what a stream goes through (`stream`), nor where the mesh comes from (`assemble`).

use std::{sync::Arc, time::Duration};

use douane_proto::wire::{Delta, WatchRequest, discovery_server::Discovery as Wire, watch_request::Kind};
use tokio::{
    sync::{mpsc, watch},
    time,
};
use tokio_stream::{StreamExt as _, adapters::Map, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::{
    discovery::{
        index::Index,
        learned::Learned,
        limits::Limits,
        stream::{Outgoing, Shared, Stream},
        trust::Trust,
    },
    holders::Holders,
    metrics::Metrics,
    peer::Peer,
    traffic::Traffic,
};

/// A question or a report has some hundred bytes; a report of many complaints is cut by its sender.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;
/// Deltas that a slow reader may be behind; then changes are joined into the next one.
const DELTAS_AHEAD: usize = 2;
/// A caller that says nothing is no sidecar.
const HELLO_LIMIT: Duration = Duration::from_secs(10);

/// Answers `douane.v1.Discovery`.
pub struct DiscoveryService {
    shared: Arc<Shared>,
}

impl DiscoveryService {
    /// A service that publishes what `index` and `trust` hold, until `stop`; what sidecars have learned goes to
    /// `learned`, who lives by which bundle to `holders`, and what they count to `traffic`. Each service is a history
    /// (epoch) of its own.
    #[must_use]
    pub fn new(
        index: watch::Receiver<Arc<Index>>,
        (learned, traffic): (Learned, Traffic),
        (trust, holders): (Trust, Holders),
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Self {
        let shared = Shared {
            index,
            learned,
            trust,
            holders,
            traffic,
            // Never 0, which a sidecar says when it holds nothing.
            epoch: rand::random::<u64>().max(1),
            limits: Limits::new(std::time::Instant::now()),
            metrics,
            stop,
        };
        Self { shared: Arc::new(shared) }
    }
}

#[async_trait]
impl Wire for DiscoveryService {
    type WatchStream = Map<ReceiverStream<Outgoing>, fn(Outgoing) -> Result<Delta, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let id = request.extensions().get::<Peer>().and_then(|peer| peer.id.clone());
        let Some(id) = id else {
            return Err(Status::unauthenticated("discovery needs a client certificate: a valid SVID"));
        };
        let mut requests = request.into_inner();
        let (deltas, outgoing) = mpsc::channel(DELTAS_AHEAD);
        let shared = Arc::clone(&self.shared);
        // The answer's headers must not wait for the hello: some clients send it only after them.
        tokio::spawn(async move {
            let first = time::timeout(HELLO_LIMIT, requests.message()).await;
            let ended = match first {
                Ok(Ok(Some(WatchRequest { kind: Some(Kind::Hello(hello)) }))) => {
                    Stream::new(shared, id, requests, deltas.clone()).run(&hello).await
                }
                Ok(Ok(None)) => return,
                Ok(Err(status)) => Err(status),
                Ok(Ok(Some(_))) => Err(Status::invalid_argument("the first message must be a hello")),
                Err(_) => Err(Status::deadline_exceeded("no hello within 10 s")),
            };
            if let Err(status) = ended {
                // Fails only when the sidecar has gone.
                let _ = deltas.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(outgoing).map(|next| next.map(|delta| *delta))))
    }
}
