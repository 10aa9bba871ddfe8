//! An OTLP/gRPC collector inside the lab: keeps the newest spans for the waterfall, and hands every export on to the
//! operator's own collector where there is one.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_client::TraceServiceClient,
    trace_service_server::{TraceService, TraceServiceServer},
};
use tokio::{
    net::{TcpListener, UnixStream},
    sync::mpsc,
};
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint, Uri},
};
use tower_service::Service;

use crate::demo::span::{Span, spans};

/// Spans kept; the oldest go first.
const KEPT: usize = 50_000;
/// Exports that wait for the operator's collector; more are dropped.
const WAITING: usize = 256;
/// The operator's collector gets so long for one export.
const HAND_ON: Duration = Duration::from_secs(5);

/// The running collector.
#[derive(Debug, Clone)]
pub struct Sink {
    kept: Arc<Mutex<VecDeque<Span>>>,
    onward: Option<mpsc::Sender<ExportTraceServiceRequest>>,
}

impl Sink {
    /// Listens and serves in tasks of its own. `relay` is a unix socket behind which the operator's collector listens.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn start(address: SocketAddr, relay: Option<&Path>) -> std::io::Result<Self> {
        let onward = relay.map(hand_on);
        let sink = Self { kept: Arc::default(), onward };
        let listener = TcpListener::bind(address).await?;
        let service = TowerToHyperService::new(TraceServiceServer::new(sink.clone()));
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    // Out of descriptors, for now.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let connection = http2::Builder::new(TokioExecutor::new())
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), service.clone());
                // A sidecar that goes away breaks its connection; nothing to say about it.
                tokio::spawn(async move { drop(connection.await) });
            }
        });
        Ok(sink)
    }

    /// The same, in a thread that lives as long as the process.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn start_in_own_thread(address: SocketAddr, relay: Option<PathBuf>) -> std::io::Result<Self> {
        let (says, hears) = std::sync::mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("otlp-sink".to_owned()).spawn(move || {
            runtime.block_on(async {
                // The one who asks waits for it.
                let _ = says.send(Self::start(address, relay.as_deref()).await);
                std::future::pending::<()>().await;
            });
        })?;
        hears.recv().map_err(|_| std::io::Error::other("the sink's thread ended"))?
    }

    /// The spans of one trace that have come so far.
    #[must_use]
    pub fn trace(&self, id: &str) -> Vec<Span> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().filter(|span| span.trace == id).cloned().collect()
    }

    fn keep(&self, new: Vec<Span>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(new);
        let surplus = kept.len().saturating_sub(KEPT);
        kept.drain(..surplus);
    }
}

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let export = request.into_inner();
        self.keep(spans(&export));
        if let Some(onward) = &self.onward {
            // A collector that cannot follow loses spans; it must not slow the mesh.
            let _ = onward.try_send(export);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn hand_on(relay: &Path) -> mpsc::Sender<ExportTraceServiceRequest> {
    let (sender, mut exports) = mpsc::channel(WAITING);
    let channel = through(relay.to_owned());
    tokio::spawn(async move {
        let mut collector = TraceServiceClient::new(channel);
        let mut reachable = true;
        while let Some(export) = exports.recv().await {
            let handed = collector.export(export).await;
            if let (true, Err(status)) = (reachable, &handed) {
                eprintln!("lab: spans do not reach the collector: {}", status.message());
            }
            reachable = handed.is_ok();
        }
    });
    sender
}

/// A gRPC channel through a unix socket.
fn through(relay: PathBuf) -> Channel {
    Endpoint::from_static("http://collector").timeout(HAND_ON).connect_with_connector_lazy(Relay(relay))
}

#[derive(Clone)]
struct Relay(PathBuf);

impl Service<Uri> for Relay {
    type Response = TokioIo<UnixStream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let path = self.0.clone();
        Box::pin(async move { Ok(TokioIo::new(UnixStream::connect(path).await?)) })
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as WireSpan};
    use tokio::net::UnixListener;

    use super::*;

    fn export(trace: u8) -> ExportTraceServiceRequest {
        let span = WireSpan { trace_id: vec![trace; 16], span_id: vec![1; 8], ..WireSpan::default() };
        let scope = ScopeSpans { spans: vec![span], ..ScopeSpans::default() };
        let resource = ResourceSpans { scope_spans: vec![scope], ..ResourceSpans::default() };
        ExportTraceServiceRequest { resource_spans: vec![resource] }
    }

    async fn client(address: SocketAddr) -> TraceServiceClient<Channel> {
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        TraceServiceClient::new(channel)
    }

    // Of an address that nobody else has: on 127.0.0.1 any connection may take a port for its near end before it is bound.
    fn free_port(number: u32) -> SocketAddr {
        let own =
            std::net::Ipv4Addr::from_bits(0x7f30_0000 + std::process::id() % (1 << 16) * (1 << 4) + number);
        std::net::TcpListener::bind((own, 0)).unwrap().local_addr().unwrap()
    }

    #[tokio::test]
    async fn an_export_is_kept_and_handed_on_to_the_operators_collector() {
        let folder = std::env::temp_dir().join(format!("shop-sink-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let relay = folder.join("relay.sock");
        let _ = std::fs::remove_file(&relay);
        let theirs = free_port(1);
        let collector = Sink::start(theirs, None).await.unwrap();
        let socket = UnixListener::bind(&relay).unwrap();
        tokio::spawn(async move {
            let (mut inside, _) = socket.accept().await.unwrap();
            let mut outside = tokio::net::TcpStream::connect(theirs).await.unwrap();
            tokio::io::copy_bidirectional(&mut inside, &mut outside).await.unwrap();
        });
        let ours = free_port(2);
        let sink = Sink::start(ours, Some(&relay)).await.unwrap();

        client(ours).await.export(export(7)).await.unwrap();

        let id = "07".repeat(16);
        assert_eq!(sink.trace(&id).len(), 1);
        let arrived = async {
            while collector.trace(&id).is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), arrived).await.unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn the_oldest_spans_go_first() {
        let sink = Sink { kept: Arc::default(), onward: None };

        sink.keep(spans(&export(1)));
        for _ in 0..KEPT {
            sink.keep(spans(&export(2)));
        }

        assert!(sink.trace(&"01".repeat(16)).is_empty());
        assert_eq!(sink.trace(&"02".repeat(16)).len(), KEPT);
    }
}
