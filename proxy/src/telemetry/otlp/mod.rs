//! Spans to a collector by OTLP over gRPC: OpenTelemetry's exporter, driven by our own bounded queue and this one task.
//!
//! A collector that is slow, away or hostile costs the data path nothing: what finds no room is dropped and counted, and
//! the log says one line when delivery stops and one when it works again. Exports have no trace of their own.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use opentelemetry_otlp::{RetryPolicy, SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

use crate::{
    net::socket::Sockets,
    telemetry::{
        access::Telemetry,
        origin::Origin,
        queue::SpanQueue,
        resource::{Attributes, resource},
    },
};

/// Where spans go.
#[derive(Debug, Clone)]
pub struct Collector {
    endpoint: Endpoint,
    dial: Dial,
    attributes: Attributes,
}

/// Why there can be no such collector.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// Not a URL with a host.
    #[error("{0:?} is no OTLP endpoint such as http://collector:4317")]
    Endpoint(String),
    /// `https`, or something else.
    #[error("{0:?}: spans are sent in plaintext http only")]
    Scheme(String),
}

impl Collector {
    /// A collector at `endpoint`, such as `http://127.0.0.1:4317`; `attributes` are added to what spans say of us.
    ///
    /// # Errors
    /// [`CollectorError`]; whether somebody listens there shows later.
    pub fn new(endpoint: &str, sockets: Sockets, attributes: Attributes) -> Result<Self, CollectorError> {
        let wrong = || CollectorError::Endpoint(endpoint.to_owned());
        let url = if endpoint.contains("://") { endpoint.to_owned() } else { format!("http://{endpoint}") };
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        if uri.scheme_str() != Some("http") {
            return Err(CollectorError::Scheme(endpoint.to_owned()));
        }
        let host = uri.host().ok_or_else(wrong)?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let dial = Dial { sockets, host, port: uri.port_u16().unwrap_or(OTLP_GRPC) };
        let endpoint = Endpoint::from(uri).timeout(ATTEMPT).user_agent(USER_AGENT).map_err(|_| wrong())?;
        Ok(Self { endpoint, dial, attributes })
    }
}

/// Sends what [`Telemetry`] has collected until `stop`, and what is left then within two seconds.
pub async fn run(telemetry: Rc<Telemetry>, collector: Collector, stop: CancellationToken) {
    let Some(spans) = &telemetry.spans else { return };
    let mut sender = Sender::new(&telemetry, &collector);
    let grace_over = async {
        stop.cancelled().await;
        sleep(FLUSH).await;
    };
    tokio::select! {
        () = send_all(&mut sender, spans, &stop) => {}
        () = grace_over => {}
    }
    let left = sender.in_flight + spans.len();
    if left > 0 {
        telemetry.metrics.spans().dropped("shutdown", left);
    }
}

async fn send_all(sender: &mut Sender<'_>, spans: &SpanQueue, stop: &CancellationToken) {
    loop {
        tokio::select! {
            () = spans.filled() => {}
            () = stop.cancelled() => {}
        }
        tokio::select! {
            () = spans.batch() => {}
            () = sleep(DELAY) => {}
            () = stop.cancelled() => {}
        }
        sender.wait_until_reachable().await;
        while spans.len() > 0 {
            sender.send(spans.take()).await;
            if !stop.is_cancelled() {
                break;
            }
        }
        if stop.is_cancelled() && spans.len() == 0 {
            return;
        }
    }
}

struct Sender<'a> {
    telemetry: &'a Telemetry,
    collector: &'a Collector,
    delivery: Delivery,
    /// Spans taken from the queue and neither delivered nor dropped.
    in_flight: usize,
    /// Made anew when the workload gets another name.
    exporter: Option<(Rc<str>, SpanExporter)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivery {
    Untried,
    Works,
    Fails,
}

impl<'a> Sender<'a> {
    fn new(telemetry: &'a Telemetry, collector: &'a Collector) -> Self {
        Self { telemetry, collector, delivery: Delivery::Untried, in_flight: 0, exporter: None }
    }

    // Spans wait in the queue rather than in an export that must fail.
    async fn wait_until_reachable(&mut self) {
        let mut pause = SHORTEST_PAUSE;
        while self.delivery != Delivery::Works {
            match self.collector.dial.connect().await {
                Ok(_) => return,
                Err(error) => self.failed(&error),
            }
            sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        let count = batch.len();
        self.in_flight = count;
        let sent = match self.exporter(self.telemetry.origin()) {
            Ok(exporter) => match timeout(EXPORT, exporter.export(batch)).await {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(elapsed) => Err(elapsed.to_string()),
            },
            Err(error) => Err(error),
        };
        self.in_flight = 0;
        match sent {
            Ok(()) => {
                self.telemetry.metrics.spans().exported(count);
                self.works();
            }
            Err(error) => {
                self.telemetry.metrics.spans().dropped("export_failed", count);
                self.failed(&error);
            }
        }
    }

    fn exporter(&mut self, origin: Origin) -> Result<&SpanExporter, String> {
        if self.exporter.as_ref().is_none_or(|(service, _)| *service != origin.service) {
            let Collector { endpoint, dial, attributes } = self.collector;
            let mut exporter = SpanExporter::builder()
                .with_tonic()
                .with_channel(endpoint.connect_with_connector_lazy(dial.clone()))
                .with_timeout(EXPORT)
                .with_retry_policy(RetryPolicy::recommended())
                .build()
                .map_err(|error| error.to_string())?;
            exporter.set_resource(&resource(&origin, attributes));
            self.exporter = Some((origin.service, exporter));
        }
        self.exporter.as_ref().map(|(_, exporter)| exporter).ok_or_else(String::new)
    }

    fn works(&mut self) {
        if self.delivery != Delivery::Works {
            tracing::info!(collector = %self.collector.dial, "spans are delivered");
        }
        self.delivery = Delivery::Works;
        self.telemetry.metrics.spans().exporter_is_up(1);
    }

    fn failed(&mut self, error: &dyn std::fmt::Display) {
        if self.delivery != Delivery::Fails {
            tracing::warn!(collector = %self.collector.dial, %error, "spans are not delivered");
        }
        self.delivery = Delivery::Fails;
        self.telemetry.metrics.spans().exporter_is_up(0);
    }
}

/// Opens connections to the collector, past our own redirection.
#[derive(Debug, Clone)]
struct Dial {
    sockets: Sockets,
    host: String,
    port: u16,
}

impl Dial {
    async fn connect(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in self.addresses().await? {
            match self.sockets.connect(address, CONNECT).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let found = timeout(CONNECT, tokio::net::lookup_host((self.host.as_str(), self.port))).await??;
        Ok(found.take(MOST_ADDRESSES).collect())
    }
}

impl std::fmt::Display for Dial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl tower_service::Service<Uri> for Dial {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dial = self.clone();
        Box::pin(async move { dial.connect().await.map(TokioIo::new) })
    }
}

const OTLP_GRPC: u16 = 4317;
const USER_AGENT: &str = concat!("douane-proxy/", env!("CARGO_PKG_VERSION"));
// A span waits this long for company.
const DELAY: Duration = Duration::from_secs(1);
const CONNECT: Duration = Duration::from_secs(2);
// One request to the collector, and all attempts for one batch: OpenTelemetry's default is 10 s for both.
const ATTEMPT: Duration = Duration::from_secs(5);
const EXPORT: Duration = Duration::from_secs(10);
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
// After the end of traffic.
const FLUSH: Duration = Duration::from_secs(2);
// Of a name with many.
const MOST_ADDRESSES: usize = 4;

#[cfg(test)]
mod tests;
