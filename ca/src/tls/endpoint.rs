//! Doors that are open to anybody, the bundle endpoint's and the webhook's: each visitor takes a place and a handshake, and
//! not too many at once.
//!
//! Knows not what a visitor is served (`federation`, `webhook`).

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{
    error::{HANDSHAKE_LIMIT, TlsError},
    files::WebFiles,
    server::Tls,
    strangers::{Bounds, Stranger, Strangers},
};
use crate::{
    budget::{Allowance, Budgets, household},
    metrics::Metrics,
};

/// Out of descriptors: give others time to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bundle is fetched in one request of some KiB, by a handful of control planes.
const STRANGERS: Bounds = Bounds { in_all: 256, of_one_address: 32, visit: Duration::from_secs(30) };
/// Many may stand behind one address; a handshake costs us more than whoever asks for it.
const HANDSHAKES_OF_ONE_ADDRESS: Allowance = Allowance { burst: 100.0, rate: 10.0 };

/// API servers are few, come from few addresses and keep their connections; a cluster that starts asks much at once. One pod,
/// which may connect as well, cannot take all places.
const API_SERVERS: Bounds = Bounds { in_all: 1024, of_one_address: 64, visit: Duration::from_secs(660) };
/// See [`API_SERVERS`].
const HANDSHAKES_OF_API_SERVERS: Allowance = Allowance { burst: 1000.0, rate: 200.0 };

const BUNDLES: &str = "bundle endpoint";

/// Whose certificate is shown to anybody: by the bundle endpoint, or the admission webhook.
pub struct Endpoint {
    name: &'static str,
    shown: Shown,
    strangers: Strangers,
    rates: Budgets<std::net::IpAddr>,
}

enum Shown {
    Web(Arc<WebFiles>),
    Spiffe(Arc<Tls>),
}

impl Endpoint {
    /// Profile `https_web`: a certificate by which browsers would know us.
    #[must_use]
    pub fn web(files: Arc<WebFiles>) -> Self {
        Self::of(BUNDLES, Shown::Web(files), STRANGERS, HANDSHAKES_OF_ONE_ADDRESS)
    }

    /// Profile `https_spiffe`: our own SVID.
    #[must_use]
    pub fn spiffe(tls: Arc<Tls>) -> Self {
        Self::of(BUNDLES, Shown::Spiffe(tls), STRANGERS, HANDSHAKES_OF_ONE_ADDRESS)
    }

    /// The admission webhook: our own SVID, whose DNS names API servers look at.
    #[must_use]
    pub fn webhook(tls: Arc<Tls>) -> Self {
        Self::of("webhook", Shown::Spiffe(tls), API_SERVERS, HANDSHAKES_OF_API_SERVERS)
    }

    fn of(name: &'static str, shown: Shown, bounds: Bounds, handshakes: Allowance) -> Self {
        Self {
            name,
            shown,
            strangers: Strangers::new(bounds),
            rates: Budgets::new(handshakes, Instant::now()),
        }
    }

    /// Lets visitors in until `stop`: `visit` is what they are served, and itself ends when it stops.
    pub async fn receive<V, F>(
        self: Arc<Self>,
        listener: TcpListener,
        metrics: Arc<Metrics>,
        visit: V,
        stop: CancellationToken,
    ) where
        V: Fn(TlsStream<TcpStream>) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send,
    {
        let places = Arc::new(Semaphore::new(self.strangers.bounds().in_all));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, from)) = accepted else {
                time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let (endpoint, metrics, visit) = (Arc::clone(&self), Arc::clone(&metrics), visit.clone());
            tokio::spawn(async move {
                match endpoint.accept(stream, from).await {
                    Ok((stream, seat)) => {
                        // It has bounds of its own; none holds longer than this.
                        let _ = time::timeout(endpoint.strangers.bounds().visit, visit(stream)).await;
                        drop(seat);
                    }
                    Err(error) => {
                        metrics.handshake_failed();
                        tracing::info!(%error, peer = %from, door = endpoint.name, "a handshake failed");
                    }
                }
                drop(place);
            });
        }
    }

    // Within bounded time; their seat is theirs until it is dropped.
    async fn accept(
        &self,
        stream: TcpStream,
        from: SocketAddr,
    ) -> Result<(TlsStream<TcpStream>, Stranger), TlsError> {
        let address = from.ip();
        self.rates.take(household(address), 1.0, Instant::now()).map_err(|_| TlsError::Crowded)?;
        let seat = self.strangers.seat(address).ok_or(TlsError::Crowded)?;
        let config = match &self.shown {
            Shown::Web(files) => files.config(),
            Shown::Spiffe(tls) => tls.endpoint(),
        };
        let handshake = TlsAcceptor::from(config).accept(stream);
        let stream = time::timeout(HANDSHAKE_LIMIT, handshake).await.map_err(|_| TlsError::Slow)??;
        Ok((stream, seat))
    }
}
