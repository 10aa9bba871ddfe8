//! `bundleEndpoint`: where other trust domains fetch our bundle.

use std::{net::SocketAddr, path::PathBuf};

use serde::Deserialize;

/// Where other trust domains fetch our bundle, and whose certificate they see there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BundleEndpoint {
    /// Where it listens.
    pub listen: SocketAddr,
    /// A certificate that is known by others' means (profile `https_web`); our own SVID (`https_spiffe`) where none is given.
    #[serde(default)]
    pub web: Option<WebCertificate>,
}

/// PEM files, read again when they change.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct WebCertificate {
    /// The certificate, and those between it and a public authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}
