//! `jwks`: how the key sets of token issuers are fetched.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de::Error as _};

/// How the key sets that `RequestAuthentication`s name are fetched.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Jwks {
    /// May they come over plain `http`? Whoever is on the way may then replace them.
    pub allow_http: bool,
    /// Addresses that are dialled although they are forbidden otherwise, such as an issuer on this host.
    #[serde(deserialize_with = "nets")]
    pub allow_addresses: Vec<IpNet>,
    /// Addresses that are never dialled, besides loopback, link-local and metadata addresses: the API server's, say.
    #[serde(deserialize_with = "nets")]
    pub forbid_addresses: Vec<IpNet>,
    /// PEM certificates that vouch for issuers; the system's where none is given.
    pub trust: Option<PathBuf>,
    /// How often each set is fetched anew.
    #[serde(deserialize_with = "super::duration")]
    pub refresh_every: Duration,
    /// How long a set counts that can no longer be fetched.
    #[serde(deserialize_with = "super::duration")]
    pub keep_for: Duration,
}

impl Default for Jwks {
    fn default() -> Self {
        Self {
            allow_http: false,
            allow_addresses: Vec::new(),
            forbid_addresses: Vec::new(),
            trust: None,
            // As Istio.
            refresh_every: Duration::from_secs(20 * 60),
            // An issuer that is away for a night locks nobody out, and keys that it has withdrawn do not live for ever.
            keep_for: Duration::from_secs(24 * 3600),
        }
    }
}

// A single address is a range of one.
fn nets<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    let net = |text: &String| {
        let address = || text.parse::<IpAddr>().map(IpNet::from).ok();
        text.parse::<IpNet>().ok().or_else(address).ok_or_else(|| {
            D::Error::custom(format!("{text:?} is neither an IP address nor a range such as 10.0.0.0/8"))
        })
    };
    texts.iter().map(net).collect()
}
