//! Spans to a collector by OTLP over gRPC or HTTP: OpenTelemetry's exporter, driven by our own bounded queue and this one
//! task, sending by a client of ours.
//!
//! A collector that is slow, away or hostile costs the data path nothing: what finds no room is dropped and counted, and
//! the log says one line when delivery stops and one when it works again. Exports have no trace of their own.
//! - `client`: attempts for a batch; `answer`: what comes back; `road`: connections

mod answer;
mod client;
mod road;

use std::{rc::Rc, time::Duration};

use opentelemetry_otlp::{
    ExporterBuildError, Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::client::Client;
use crate::{
    config::export::Export,
    net::socket::Sockets,
    telemetry::{
        access::Telemetry,
        origin::Origin,
        queue::SpanQueue,
        resource::{Attributes, resource},
    },
    tls::web::WebError,
};

/// Where spans go.
#[derive(Debug, Clone)]
pub struct Collector {
    client: Client,
    attributes: Attributes,
    delay: Duration,
}

impl Collector {
    /// A collector as `export` names it; `attributes` are added to what spans say of us.
    ///
    /// # Errors
    /// [`WebError`] where it is behind TLS and those who vouch for it cannot be read; whether somebody listens there shows
    /// later.
    pub fn new(export: &Export, sockets: Sockets, attributes: Attributes) -> Result<Self, WebError> {
        Ok(Self { client: Client::new(export, sockets)?, attributes, delay: export.queue.delay })
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
            () = sleep(sender.collector.delay) => {}
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
    /// A collector took a batch in part and it was said.
    complained: bool,
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
        let delivery = Delivery::Untried;
        Self { telemetry, collector, delivery, complained: false, in_flight: 0, exporter: None }
    }

    // Spans wait in the queue rather than in an export that must fail.
    async fn wait_until_reachable(&mut self) {
        self.collector.client.rest().await;
        let mut pause = SHORTEST_PAUSE;
        while self.delivery != Delivery::Works {
            match self.collector.client.reach().await {
                Ok(()) => return,
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
            Ok(exporter) => exporter.export(batch).await.map_err(|_| self.collector.client.failure()),
            Err(error) => Err(error.to_string()),
        };
        self.in_flight = 0;
        match sent {
            Ok(()) => {
                self.taken(count);
                self.works();
            }
            Err(error) => {
                self.telemetry.metrics.spans().dropped("export_failed", count);
                self.failed(&error);
            }
        }
    }

    fn taken(&mut self, count: usize) {
        let taken = self.collector.client.taken();
        let rejected = taken.rejected.min(count);
        self.telemetry.metrics.spans().exported(count - rejected);
        if rejected > 0 {
            self.telemetry.metrics.spans().dropped("rejected", rejected);
        }
        if !taken.complaint.is_empty() && !self.complained {
            self.complained = true;
            let (collector, reason) = (&self.collector.client, taken.complaint);
            tracing::warn!(%collector, rejected, reason, "the collector complains of spans (said once)");
        }
    }

    // It is told to try once: to try again is our client's business.
    fn exporter(&mut self, origin: Origin) -> Result<&SpanExporter, ExporterBuildError> {
        if self.exporter.as_ref().is_none_or(|(service, _)| *service != origin.service) {
            let mut exporter = SpanExporter::builder()
                .with_http()
                .with_http_client(self.collector.client.clone())
                .with_protocol(Protocol::HttpBinary)
                .with_endpoint(ANYWHERE)
                .with_timeout(Duration::MAX)
                .with_retry_policy(RetryPolicy::disabled())
                .build()?;
            exporter.set_resource(&resource(&origin, &self.collector.attributes));
            self.exporter = Some((origin.service, exporter));
        }
        let none = || ExporterBuildError::InternalFailure(String::new());
        self.exporter.as_ref().map(|(_, exporter)| exporter).ok_or_else(none)
    }

    fn works(&mut self) {
        if self.delivery != Delivery::Works {
            tracing::info!(collector = %self.collector.client, "spans are delivered");
        }
        self.delivery = Delivery::Works;
        self.telemetry.metrics.spans().exporter_is_up(1);
    }

    fn failed(&mut self, error: &dyn std::fmt::Display) {
        if self.delivery != Delivery::Fails {
            tracing::warn!(collector = %self.collector.client, %error, "spans are not delivered");
        }
        self.delivery = Delivery::Fails;
        self.telemetry.metrics.spans().exporter_is_up(0);
    }
}

// Our client knows where it sends; the exporter wants a URL.
const ANYWHERE: &str = "http://collector";
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
// After the end of traffic.
const FLUSH: Duration = Duration::from_secs(2);
