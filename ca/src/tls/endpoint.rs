//! The handshake of the bundle endpoint: with anybody, since a bundle is public, but not with too many at once.
//!
//! Knows not what is served (`federation`).

use std::{net::SocketAddr, sync::Arc, time::Instant};

use tokio::{net::TcpStream, time};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    error::{HANDSHAKE_LIMIT, TlsError},
    files::WebFiles,
    server::Tls,
    strangers::{Bounds, Stranger, Strangers},
};
use crate::budget::{Allowance, Budgets, household};

/// A bundle is fetched in one request of some KiB, by a handful of control planes.
const STRANGERS: Bounds =
    Bounds { in_all: 256, of_one_address: 32, visit: std::time::Duration::from_secs(30) };
/// Many may stand behind one address; a handshake costs us more than whoever asks for it.
const HANDSHAKES_OF_ONE_ADDRESS: Allowance = Allowance { burst: 100.0, rate: 10.0 };

/// API servers are few, come from few addresses and keep their connections; a cluster that starts asks much at once.
const API_SERVERS: Bounds =
    Bounds { in_all: 256, of_one_address: 256, visit: std::time::Duration::from_secs(600) };
/// See [`API_SERVERS`].
const HANDSHAKES_OF_API_SERVERS: Allowance = Allowance { burst: 1000.0, rate: 200.0 };

/// Whose certificate is shown to anybody: by the bundle endpoint, or the admission webhook.
pub struct Endpoint {
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
        Self::of(Shown::Web(files), STRANGERS, HANDSHAKES_OF_ONE_ADDRESS)
    }

    /// Profile `https_spiffe`: our own SVID.
    #[must_use]
    pub fn spiffe(tls: Arc<Tls>) -> Self {
        Self::of(Shown::Spiffe(tls), STRANGERS, HANDSHAKES_OF_ONE_ADDRESS)
    }

    /// The admission webhook: our own SVID, whose DNS names API servers look at.
    #[must_use]
    pub fn webhook(tls: Arc<Tls>) -> Self {
        Self::of(Shown::Spiffe(tls), API_SERVERS, HANDSHAKES_OF_API_SERVERS)
    }

    fn of(shown: Shown, bounds: Bounds, handshakes: Allowance) -> Self {
        Self { shown, strangers: Strangers::new(bounds), rates: Budgets::new(handshakes, Instant::now()) }
    }

    /// The handshake with somebody, within bounded time; their place is theirs until it is dropped.
    ///
    /// # Errors
    /// [`TlsError`]: they are sent away.
    pub async fn accept(
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
