//! One relationship, as it is configured. Nothing in it follows from anything else (SPIFFE Federation 7.2).

use std::sync::Arc;

use douane_proto::id::TrustDomain;
use hyper::Uri;
use tokio_rustls::TlsConnector;

/// Makes a connector to a server that is known by its SVID, from the roots of its trust domain.
pub type ByRoots = Arc<dyn Fn(&[Vec<u8>]) -> Result<TlsConnector, String> + Send + Sync>;

/// Another trust domain whose identities are believed.
#[derive(Clone)]
pub struct Relation {
    /// Its name.
    pub trust_domain: TrustDomain,
    /// Where its bundle is fetched.
    pub url: Uri,
    /// Who is believed to serve it.
    pub server: Server,
}

/// Who is believed to serve a bundle.
#[derive(Clone)]
pub enum Server {
    /// Whoever has the name of the URL (profile `https_web`).
    Web(TlsConnector),
    /// Whoever has a certain SVID of the domain (profile `https_spiffe`).
    Spiffe {
        /// The bundle that an operator gave for the first time.
        first: Vec<u8>,
        /// Dials by the newest bundle.
        by_roots: ByRoots,
    },
}

impl Server {
    /// Its name in SPIFFE Federation 5.
    pub(super) fn profile(&self) -> &'static str {
        match self {
            Self::Web(_) => "https_web",
            Self::Spiffe { .. } => "https_spiffe",
        }
    }

    /// What an operator gave, for a mark of it.
    pub(super) fn first(&self) -> &[u8] {
        match self {
            Self::Web(_) => &[],
            Self::Spiffe { first, .. } => first,
        }
    }
}
