//! `bundleEndpoint`: where other trust domains fetch our bundle; `federation`: whose bundles we fetch, and how. Nothing of a
//! relationship follows from anything else: trust domain, URL and profile are each written down (SPIFFE Federation 7.2).

use std::{net::SocketAddr, path::PathBuf};

use douane_proto::id::{TrustDomain, spiffe_id_domain};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_saphyr::Spanned;

/// Each costs every sidecar memory, and us a fetch a minute.
const MAX_RELATIONS: usize = 64;

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

/// Another trust domain whose identities are believed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Relation {
    /// Its name: a bundle does not say it.
    #[serde(deserialize_with = "super::trust_domain")]
    pub trust_domain: TrustDomain,
    /// Where its bundle is fetched.
    pub bundle_endpoint: BundleSource,
    /// Where it stands in the file.
    #[serde(skip)]
    pub line: u64,
}

/// Where a bundle is fetched, and who is believed to serve it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BundleSource {
    /// Such as `https://ca.partner.example:8443/bundle`.
    #[serde(deserialize_with = "endpoint_url")]
    pub url: String,
    /// How the server is known.
    pub profile: Profile,
    /// `https_web`: PEM certificates that vouch for the URL; the system's where none is given.
    #[serde(default)]
    pub trust: Option<PathBuf>,
}

/// How the server of a bundle is known.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub enum Profile {
    /// As on the web: by the name in its URL.
    #[serde(rename = "https_web")]
    Web,
    /// By its X509-SVID.
    #[serde(rename = "https_spiffe")]
    Spiffe(EndpointSvid),
}

/// Who serves the bundle, and how it is known the first time.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointSvid {
    /// Its SPIFFE ID, of the trust domain whose bundle it is.
    #[serde(rename = "endpointSpiffeID")]
    pub id: String,
    /// A file with the bundle of the trust domain, had by a road that is trusted: JSON, as the endpoint serves it.
    pub bundle: PathBuf,
}

/// Reads `federation`: what holds for one relation alone, and that no domain stands there twice.
pub(super) fn relations<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Relation>, D::Error> {
    let read = Vec::<Spanned<Relation>>::deserialize(from)?;
    if read.len() > MAX_RELATIONS {
        return Err(D::Error::custom(format!(
            "{} federated trust domains are more than {MAX_RELATIONS}",
            read.len()
        )));
    }
    let mut all: Vec<Relation> = Vec::with_capacity(read.len());
    for spanned in read {
        let line = spanned.referenced.line();
        let relation = Relation { line, ..spanned.value };
        relation.check().map_err(|wrong| D::Error::custom(format!("line {line}: {wrong}")))?;
        if let Some(known) = all.iter().find(|known| known.trust_domain == relation.trust_domain) {
            return Err(D::Error::custom(format!(
                "line {line}: {} is federated twice, first in line {}; remove one",
                relation.trust_domain, known.line
            )));
        }
        all.push(relation);
    }
    Ok(all)
}

impl Relation {
    fn check(&self) -> Result<(), String> {
        let Profile::Spiffe(EndpointSvid { id, .. }) = &self.bundle_endpoint.profile else { return Ok(()) };
        if self.bundle_endpoint.trust.is_some() {
            return Err("profile https_spiffe takes no `trust`: the server is known by its SVID".to_owned());
        }
        let domain = spiffe_id_domain(id).map_err(|error| format!("endpointSpiffeID: {error}"))?;
        if domain != self.trust_domain {
            return Err(format!(
                "endpointSpiffeID {id:?} is not of {}: an endpoint that another trust domain runs is not implemented; \
                 use https_web for it",
                self.trust_domain
            ));
        }
        Ok(())
    }
}

// SPIFFE Federation 5.2.1.1. A query is allowed there and refused here: it would be logged, and look like a secret.
fn endpoint_url<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    let wrong = |what: &str| {
        D::Error::custom(format!(
            "the URL {text:?} {what}; write one such as https://ca.partner.example:8443/bundle"
        ))
    };
    let rest = text.strip_prefix("https://").ok_or_else(|| wrong("does not begin with https://"))?;
    let (authority, _) = rest.split_once('/').unwrap_or((rest, ""));
    if text.contains(['?', '#']) {
        return Err(wrong("has a query or a fragment"));
    }
    if authority.contains('@') {
        return Err(wrong("names a user"));
    }
    let is_url = text.parse::<http::Uri>().is_ok_and(|url| url.host().is_some_and(|host| !host.is_empty()));
    if is_url { Ok(text) } else { Err(wrong("is none")) }
}
