//! What one control plane is told: a YAML file, with a default for all but the state folder; flags are laid over it.
//!
//! A leaf: knows no room. Unknown fields are refused, so that a misspelt one does not silently do nothing.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use douane_proto::{
    id::TrustDomain,
    snapshot::{MeshSettings, OutboundMode, PathNormalization},
};
use serde::{Deserialize, Deserializer, de::Error as _};

/// gRPC of the control plane.
pub const GRPC_PORT: u16 = 15012;
/// Our own namespace and service account.
pub const OWN_NAMESPACE: &str = "douane-system";
/// See [`OWN_NAMESPACE`].
pub const OWN_ACCOUNT: &str = "douane-ca";

/// What a certificate may live: below, clocks and renewals cannot keep up; above, it is no short-lived certificate.
pub const LEAF_LIFE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(10)..=Duration::from_secs(24 * 3600);

/// What one control plane is told.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Config {
    /// The state folder; required, here or as `--dir`.
    pub dir: Option<PathBuf>,
    /// Where gRPC is served; all addresses at port 15012 when empty.
    pub listen: Vec<SocketAddr>,
    /// Folders of YAML files, the last one wins.
    pub resources: Vec<PathBuf>,
    /// Whose identities are signed.
    #[serde(deserialize_with = "trust_domain")]
    pub trust_domain: TrustDomain,
    /// What the names of services end in, after `.svc.`.
    pub cluster_domain: String,
    /// Policies and entries of this namespace count everywhere.
    pub root_namespace: String,
    /// How long certificates live unless a sidecar asks otherwise.
    #[serde(deserialize_with = "duration")]
    pub leaf_ttl: Duration,
    /// How service account tokens are verified; without it, only join tokens are accepted.
    pub tokens: Option<Tokens>,
    /// Further DNS names of our own certificate.
    pub dns_names: Vec<String>,
    /// What happens to destinations that no resource names.
    pub outbound: Outbound,
    /// How request paths are normalized.
    pub path_normalization: Normalization,
    /// Where metrics and status are served; nowhere by default.
    pub metrics: Option<SocketAddr>,
}

/// How service account tokens are verified.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Tokens {
    /// A JSON Web Key Set: a file, or an `http` or `https` URL.
    pub jwks: String,
    /// PEM certificates that vouch for an `https` URL.
    #[serde(default)]
    pub jwks_trust: Option<PathBuf>,
    /// `iss`, exactly.
    pub issuer: String,
    /// `aud`.
    #[serde(default = "default_audience")]
    pub audience: String,
}

/// What happens to destinations that no resource names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
pub enum Outbound {
    /// They are refused.
    #[default]
    #[serde(rename = "REGISTRY_ONLY")]
    RegistryOnly,
    /// They are passed on.
    #[serde(rename = "ALLOW_ANY")]
    AllowAny,
}

/// How request paths are normalized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
pub enum Normalization {
    /// RFC 3986.
    #[default]
    #[serde(rename = "BASE")]
    Base,
    /// The same, and repeated slashes are one.
    #[serde(rename = "MERGE_SLASHES")]
    MergeSlashes,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The text is not what it should be; says the line.
    #[error("{0}")]
    Yaml(String),
    /// No state folder.
    #[error("there is no state folder; give one with --dir, or as `dir` in the configuration file")]
    NoFolder,
    /// A default lifetime that no certificate can have.
    #[error(
        "certificates cannot live {wanted}: the lifetime (leafTtl, --leaf-ttl) is from 10s to 24h",
        wanted = humantime::format_duration(*.0)
    )]
    LeafTtl(Duration),
}

/// The audience of tokens for us.
#[must_use]
pub fn default_audience() -> String {
    "douane-ca".to_owned()
}

impl Config {
    /// Reads a configuration file's text.
    ///
    /// # Errors
    /// [`ConfigError::Yaml`] with the line.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(text).map_err(|error| ConfigError::Yaml(error.to_string()))
    }

    /// Is every value one that can be used? Flags were laid over the file by now.
    ///
    /// # Errors
    /// [`ConfigError`] names the first that is not.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !LEAF_LIFE.contains(&self.leaf_ttl) {
            return Err(ConfigError::LeafTtl(self.leaf_ttl));
        }
        Ok(())
    }

    /// What every sidecar is told of the mesh.
    #[must_use]
    pub fn mesh(&self) -> MeshSettings {
        MeshSettings {
            trust_domain: self.trust_domain.clone(),
            root_namespace: self.root_namespace.clone(),
            outbound: match self.outbound {
                Outbound::RegistryOnly => OutboundMode::RegistryOnly,
                Outbound::AllowAny => OutboundMode::AllowAny,
            },
            path_normalization: match self.path_normalization {
                Normalization::Base => PathNormalization::Base,
                Normalization::MergeSlashes => PathNormalization::MergeSlashes,
            },
            trust_domain_aliases: Vec::new(),
        }
    }

    /// The DNS names of our own certificate.
    #[must_use]
    pub fn own_names(&self) -> Vec<String> {
        let service = format!("{OWN_ACCOUNT}.{OWN_NAMESPACE}");
        let mut names =
            vec![format!("{service}.svc"), format!("{service}.svc.{}", self.cluster_domain), service];
        for name in &self.dns_names {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: None,
            listen: Vec::new(),
            resources: Vec::new(),
            trust_domain: default_trust_domain(),
            cluster_domain: "cluster.local".to_owned(),
            root_namespace: "istio-system".to_owned(),
            leaf_ttl: Duration::from_secs(3600),
            tokens: None,
            dns_names: Vec::new(),
            outbound: Outbound::default(),
            path_normalization: Normalization::default(),
            metrics: None,
        }
    }
}

#[expect(clippy::expect_used, reason = "a constant; a test holds it")]
fn default_trust_domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").expect("cluster.local is a trust domain")
}

fn trust_domain<'de, D: Deserializer<'de>>(from: D) -> Result<TrustDomain, D::Error> {
    let text = String::deserialize(from)?;
    TrustDomain::parse(&text).map_err(D::Error::custom)
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_all_defaults() {
        assert_eq!(Config::parse("").unwrap(), Config::default());
        assert_eq!(Config::parse("# nothing yet\n{}").unwrap(), Config::default());
    }

    #[test]
    fn every_field_can_be_written() {
        let text = "
dir: /var/lib/douane
listen: ['0.0.0.0:15012', '[::1]:15012']
resources: [/etc/douane/mesh]
trustDomain: example.org
clusterDomain: example.local
rootNamespace: law
leafTtl: 10m
tokens: {jwks: /etc/jwks.json, issuer: https://issuer, audience: us}
dnsNames: [ca.example.org]
outbound: ALLOW_ANY
pathNormalization: MERGE_SLASHES
metrics: 127.0.0.1:15014
";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.leaf_ttl, Duration::from_secs(600));
        assert_eq!(config.mesh().outbound, OutboundMode::AllowAny);
        assert_eq!(config.tokens.as_ref().unwrap().audience, "us");
        assert!(config.own_names().contains(&"douane-ca.douane-system.svc.example.local".to_owned()));
        assert!(config.own_names().contains(&"ca.example.org".to_owned()));
    }

    #[test]
    fn a_lifetime_that_no_certificate_can_have_is_refused_and_not_bent() {
        let config = |seconds| Config { leaf_ttl: Duration::from_secs(seconds), ..Config::default() };
        for seconds in [0, 9, 24 * 3600 + 1, u64::MAX] {
            let error = config(seconds).check().unwrap_err().to_string();
            assert!(error.contains("10s to 24h"), "{error}");
        }
        for seconds in [10, 24 * 3600] {
            config(seconds).check().unwrap();
        }
    }

    #[test]
    fn a_misspelt_field_is_refused_with_its_line() {
        let error = Config::parse("dir: /x\nlisten: []\ntrustdomain: a\n").unwrap_err().to_string();
        assert!(error.contains("trustdomain") && error.contains('3'), "{error}");
        assert!(Config::parse("leafTtl: soon\n").is_err());
        assert!(Config::parse("trustDomain: 'Not One'\n").is_err());
    }
}
